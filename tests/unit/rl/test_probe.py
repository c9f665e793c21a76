"""The probe: whether groups of a start, a protocol and a reward have anything to learn from."""

import math
from itertools import combinations
from pathlib import Path

import pytest

from sar_eval.cli.train_probe import print_probe
from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput
from sar_eval.rewards.pool import RewardPool, RewardSpec
from sar_eval.rewards.train_prompts import evenly_by_tag
from sar_eval.rl.probe import (
    MIXED,
    Probed,
    ProbeResult,
    diversity,
    expected_share,
    probe,
    summed_up,
    varied_share,
)
from sar_eval.rl.probe_advice import advice, check_variance
from sar_eval.suites.prompts import load_suite
from sar_eval.types import DrawProtocol, Prompt

NAN = math.nan
SUITE = Path(__file__).parents[3] / "prompts" / "shapes-train.jsonl"
COOL = DrawProtocol("cool", resolution=64, guidance=2.0, temperature=0.5)
BINARY, SOFT = RewardSpec("shapes", "shapes"), RewardSpec("soft", "shapes-soft")


@pytest.mark.parametrize("rewards", [[1, 0, 0, 0], [1, 1, 0, 0, 2], [0, 0, 0], [1, 0, NAN, 1, 1]])
@pytest.mark.parametrize("group", [2, 3])
def test_the_share_of_varied_groups_is_that_of_all_subsets(rewards: list[float], group: int) -> None:
    known = [reward for reward in rewards if not math.isnan(reward)]
    subsets = list(combinations(known, group))
    varied = sum(len(set(subset)) > 1 for subset in subsets) / len(subsets)
    assert varied_share(rewards, group) == pytest.approx(varied)


def test_groups_larger_than_what_was_drawn_are_drawn_with_replacement() -> None:
    assert varied_share([1.0, 0.0], 3) == pytest.approx(1 - 2 * 0.5**3)
    assert varied_share([1.0, 1.0], 3) == 0
    assert varied_share([1.0, NAN], 3) == varied_share([], 3) == 0
    assert expected_share(0.5, 3) == pytest.approx(1 - 2 * 0.5**3)
    assert expected_share(0.0, 8) == expected_share(1.0, 8) == 0


def test_diversity_is_over_all_pairs_of_pictures() -> None:
    assert diversity([(1, 2, 3, 4), (1, 2, 0, 0), (1, 2, 3, 4)]) == pytest.approx(1 / 3)
    assert math.isnan(diversity([(1, 2)]))


def _group(prompt: str, tag: str, *rewards: tuple[float, ...]) -> list[Probed]:
    """Pictures with these scores; a first reward of 0 or 1 also passes or fails."""
    return [
        Probed(prompt, tag, scores, (scores[0] == 1, *[None] * (len(scores) - 1)), (n, 0), 0.5)
        for n, scores in enumerate(rewards)
    ]


def test_a_result_has_every_reward_by_tag_and_all_mixed() -> None:
    pictures = [
        *_group("a", "one", (1, 0.5), (0, 0.5)),
        *_group("b", "one", (0, 0.25), (0, 0.75)),
        *_group("c", "two", (1, 1.0), (1, 1.0)),
    ]
    found = summed_up(pictures, [BINARY, SOFT], draws=2, group=2)
    shapes, one, two = found.of("shapes")
    assert (shapes.prompts, shapes.mean, shapes.pass_rate) == (3, 0.5, 0.5)
    assert shapes.varied == pytest.approx(1 / 3)
    assert shapes.expected == pytest.approx(0.5 / 3)
    assert (one.tag, one.pass_rate, one.varied) == ("one", 0.25, 0.5)
    assert (two.tag, two.pass_rate, two.varied, two.expected) == ("two", 1, 0, 0)
    soft = found.of("soft")[0]
    assert (soft.pass_rate, soft.expected) == (None, None)
    assert soft.varied == pytest.approx(1 / 3)
    mixed = found.of(MIXED)
    assert found.varied == mixed[0].varied == pytest.approx(2 / 3)
    assert [line.mean for line in mixed] == pytest.approx([7 / 6, 0.75, 2.0])
    assert (found.diversity, found.nats) == (0.5, 0.5)


def test_failed_draws_and_lost_rewards_are_counted() -> None:
    failed = Probed("a", "", (NAN, NAN), (None, None), error="the prompt is too long")
    lost = Probed("a", "", (1.0, NAN), (True, None), (1, 2), 0.5)
    whole = Probed("a", "", (0.0, 0.5), (False, None), (1, 3), 0.5)
    found = summed_up([failed, lost, whole, whole], [BINARY, SOFT], draws=4, group=2)
    assert found.failed == {"the prompt is too long": 1}
    assert found.lost == {"shapes": 0.25, "soft": 0.5}
    assert [line.tag for line in found.of("shapes")] == [""]
    assert found.varied == 0
    lines = advice(found, COOL, [BINARY, SOFT])
    assert lines[0] == "1 of 4 draws failed, 1 of them so: the prompt is too long"
    assert lines[1].startswith("reward 'shapes' has no score for 25% of pictures")


def _always(nats: float = 0.5) -> ProbeResult:
    pictures = [*_group("a", "one", (1,), (1,), (1,)), *_group("b", "two", (1,), (1,), (1,))]
    cold = [
        Probed(p.prompt, p.tag, p.scores, p.passed, p.codes if nats > 0.1 else (0, 0), nats)
        for p in pictures
    ]
    return summed_up(cold, [BINARY], draws=3, group=3)


def test_a_start_that_is_always_right_is_told_what_to_change() -> None:
    lines = advice(_always(), COOL, [BINARY])
    assert lines[0].startswith("100.0% of pictures pass")
    assert "[rewards.shapes-soft]" in lines[1]
    assert lines[2].startswith("shapes always passes one, two: leave these prompts out")
    cold = advice(_always(nats=0.06), COOL, [BINARY])
    assert any("raise protocol.temperature (now 0.5)" in line and "0.06 nats" in line for line in cold)
    hot = DrawProtocol("hot", resolution=64, guidance=6.0)
    assert any("lower protocol.guidance (now 6)" in line for line in advice(_always(0.06), hot, [BINARY]))


def test_a_start_that_is_never_right_is_told_what_to_change() -> None:
    pictures = [p for name in "ab" for p in _group(name, "", (0, 0.1), (0, 0.4))]
    unused = RewardSpec("soft", "shapes-soft", weight=0.0)
    found = summed_up(pictures, [BINARY, unused], draws=2, group=2)
    lines = advice(found, COOL, [BINARY, unused])
    assert lines[0].startswith("0.0% of pictures pass: this start is too weak")
    assert lines[1].startswith("give soft a weight")
    with pytest.raises(BadInput, match=r"rewards differ in 0% of groups of 2, and must in 20%.*\n- 0\.0%"):
        check_variance(found, COOL, [BINARY, unused])
    check_variance(found, COOL, [BINARY, unused], refuse_below=0.0)


def test_rare_success_asks_for_larger_groups() -> None:
    groups = [_group(f"p{n}", "", *[(float(n == 0 and k == 0),) for k in range(4)]) for n in range(10)]
    found = summed_up([p for group in groups for p in group], [BINARY], draws=4, group=4)
    assert found.varied == pytest.approx(0.1)
    share = 1 - 0.025**8 - 0.975**8
    expected = f"groups of 8 (grpo.group) would differ in at most {share:.0%}"
    assert expected in advice(found, COOL, [BINARY])


def test_a_graded_reward_teaches_where_no_picture_is_right() -> None:
    found = summed_up(_group("a", "one", (0, 0.1), (0, 0.4)), [BINARY, SOFT], draws=2, group=2)
    assert found.varied == 1
    assert advice(found, COOL, [BINARY, SOFT]) == []
    check_variance(found, COOL, [BINARY, SOFT])


def test_the_terminal_shows_rewards_by_task_and_acts_on_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [*_group("a", "o\x1b[31mne", (1, 0.5), (0, 0.5)), *_group("b", "two", (0, 0.1), (0, 0.4))]
    found = summed_up(pictures, [BINARY, SOFT], draws=2, group=2)
    print_probe(found, ["change \x1b[2J this"], 7.2)
    shown = capsys.readouterr().out
    assert shown.startswith("4 pictures, 2 of a prompt, groups of 2, 7 s")
    assert "\x1b" not in shown
    assert [line.split()[1] for line in shown.splitlines() if " all  " in line] == [
        "shapes",
        "soft",
        "mixed",
    ]
    assert "differ at 50% of their places, 0.50 nats a token; 0 of 4 draws failed" in shown
    assert "- change \\x1b[2J this" in shown
    print_probe(_always(), [])
    assert "mixed" not in capsys.readouterr().out


def test_a_probe_draws_and_rewards_under_the_protocol() -> None:
    protocol = DrawProtocol("small", resolution=16, guidance=2.0)
    prompts = [*evenly_by_tag(load_suite(SUITE).prompts, 6), Prompt("long", "a red circle " * 200, "long")]
    with RewardPool([BINARY]) as pool, NativeEngine("demo:pretrain", protocol, batch_size=8) as engine:
        first, again = (
            probe(engine, pool, prompts, [BINARY], draws=3, group=2, seed=seed) for seed in (1, 1)
        )
        other = probe(engine, pool, prompts, [BINARY], draws=3, group=2, seed=2)
    assert first.pictures == 21
    assert sum(first.failed.values()) == 3
    assert first.lost == {"shapes": pytest.approx(3 / 21)}
    assert [line.prompts for line in first.of("shapes")] == [6, *[1] * 6, 0]
    assert 0 < first.nats < 8
    assert 0 < first.diversity <= 1
    assert repr(again) == repr(first)
    assert (other.nats, other.diversity) != (first.nats, first.diversity)
