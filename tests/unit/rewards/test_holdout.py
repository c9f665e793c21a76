"""The hold-out: what is drawn and judged, paired with step 0 as `compare` pairs two runs."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sar_eval.benchmarks.shapes import ShapesFold
from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput, Incomplete, UnknownName
from sar_eval.recipe import load_recipe
from sar_eval.rewards.holdout import Holdout, HoldoutResult, joined, read_results, save_result
from sar_eval.rewards.pool import RewardPool
from sar_eval.rl.grpo_recipe import HoldoutTable
from sar_eval.stats.differences import difference
from sar_eval.stats.intervals import metric_of
from sar_eval.stats.pairing import pair
from sar_eval.suites.prompts import load_suite
from sar_eval.types import Draw, DrawProtocol, Prompt, Verdict, draw_seed

PROTOCOL = DrawProtocol("rollouts", resolution=16, guidance=2.0, temperature=1.0)


def _read(rollouts: DrawProtocol = PROTOCOL, **table: object) -> Holdout:
    return Holdout.read(HoldoutTable(benchmark="shapes", **table), rollouts, 64, 5, "mine.toml")


@pytest.fixture(scope="module")
def pool() -> Iterator[RewardPool]:
    with RewardPool(_read().judges) as opened:
        yield opened


def test_the_benchmark_gives_suite_protocol_and_judge() -> None:
    found = _read(judges=("colourfulness", "shapes"), max_prompts=12, images_per_prompt=2)
    recipe = load_recipe("shapes")
    assert found.suite == recipe.suite
    own, further = found.judges
    assert (own.name, own.judge, own.options) == ("shapes", "shapes", recipe.judge_options)
    assert (further.name, further.judge) == ("colourfulness", "score")
    assert found.protocol == DrawProtocol("shapes", resolution=64, guidance=2.0, temperature=0.5)
    assert len({prompt.tag for prompt in found.prompts}) == 6
    assert len(found.draws()) == 24
    first = found.draws()[1]
    assert first == Draw(found.prompts[0], 1, draw_seed(5, found.prompts[0].id, 1))
    assert len(_read().prompts) == 360


def test_all_judges_are_on_the_device_that_is_asked_for() -> None:
    assert {judge.device for judge in _read(judges=("colourfulness",)).judges} == {"cpu"}
    moved = _read(judges=("colourfulness",), device="cuda:1").judges
    assert [(judge.name, judge.device) for judge in moved] == [
        ("shapes", "cuda:1"),
        ("colourfulness", "cuda:1"),
    ]
    with pytest.raises(BadInput, match="device is 'gpu'"):
        _read(device="gpu")


def test_an_engine_of_another_protocol_is_told_apart() -> None:
    own = _read()
    assert own.draws_like(replace(own.protocol, name="of another name"))
    assert not own.draws_like(PROTOCOL)
    assert _read(images_of_the_protocol=True).draws_like(PROTOCOL)


def test_a_holdout_that_cannot_watch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'shapes'"):
        Holdout.read(HoldoutTable(benchmark="shape"), PROTOCOL, 64, 0, "mine.toml")
    with pytest.raises(BadInput, match=r"mine.toml: holdout: .*'hpss'"):
        _read(judges=("hpss",))
    with pytest.raises(BadInput, match="has no prompts of its own"):
        Holdout.read(HoldoutTable(benchmark="scores"), PROTOCOL, 64, 0, "mine.toml")
    free = tmp_path / "free.toml"
    free.write_text('suite = "shapes.jsonl"\n')
    with pytest.raises(BadInput, match=r"'free' has no judge: name one in holdout.judges"):
        Holdout.read(HoldoutTable(benchmark=str(free)), PROTOCOL, 64, 0, "mine.toml")


def test_an_evaluation_is_the_same_again_and_in_shares(pool: RewardPool) -> None:
    holdout = _read(max_prompts=12, images_of_the_protocol=True)
    with NativeEngine("demo:pretrain", PROTOCOL, batch_size=5) as engine:
        whole = joined([holdout.evaluate(engine, pool, 0)])
        shares = [holdout.evaluate(engine, pool, 0, rank, 3) for rank in range(3)]
    assert joined(shares) == whole
    assert set(whole.scores["shapes"]) == {draw.key for draw in holdout.draws()}
    assert whole.faults == {}


def test_a_draw_that_fails_is_left_out_and_named(pool: RewardPool) -> None:
    holdout = _read(max_prompts=2, images_of_the_protocol=True)
    long = Prompt("long", "a photo of a red circle " * 100)
    holdout = replace(holdout, prompts=(holdout.prompts[0], long))
    with NativeEngine("demo:pretrain", PROTOCOL) as engine:
        found = holdout.evaluate(engine, pool, 3)
        with pytest.raises(ValueError, match="the engine draws under"):
            _read().evaluate(engine, pool, 3)
    assert list(found.scores["shapes"]) == [f"{holdout.prompts[0].id}/0"]
    assert found.faults["shapes"].startswith("long/0: not drawn: the prompt takes")


def test_what_a_judge_left_out_is_said() -> None:
    holdout = _read(max_prompts=12, images_per_prompt=2, judges=("colourfulness",))
    scores = {draw.key: 1.0 for draw in holdout.draws()}
    part = {key: scores[key] for key in list(scores)[:21]}
    faults = {"colourfulness": "colors-000/1: one colour"}
    result = HoldoutResult(step=10, scores={"shapes": scores, "colourfulness": part}, faults=faults)
    (said,) = holdout.losses(result)
    assert said.startswith("Hold-out judge 'colourfulness' has no score for 3 of 24 pictures at step 10; ")
    assert said.endswith("colors-000/1: one colour")
    assert holdout.losses(HoldoutResult(step=0, scores={"shapes": scores, "colourfulness": scores})) == []


def test_a_judge_without_any_score_ends_the_run() -> None:
    results = [HoldoutResult(step=0, scores={"hps": {}}, faults={"hps": "a/0: no weights"})]
    with pytest.raises(Incomplete, match="hold-out judge 'hps' gave no score at all; a/0: no weights"):
        joined(results)


def _result(step: int, rates: dict[str, float], seed: int) -> HoldoutResult:
    rng = random.Random(seed)
    prompts = load_suite(load_recipe("shapes").suite).prompts
    own = {f"{p.id}/{n}": float(rng.random() < rates[p.tag]) for p in prompts for n in range(2)}
    return HoldoutResult(step=step, scores={"shapes": own})


def test_rows_say_what_compare_says() -> None:
    holdout = _read(images_per_prompt=2)
    tags = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
    first = _result(0, dict.fromkeys(tags, 0.6), 1)
    last = _result(20, dict(zip(tags, (0.9, 0.5, 0.1, 0.6, 0.4, 0.3), strict=True)), 2)
    del last.scores["shapes"]["counting-003/1"]
    measures = [
        ShapesFold().fold(holdout.prompts, {k: Verdict(k, "shapes", "1", score=s) for k, s in r.items()})[0]
        for r in (first.scores["shapes"], last.scores["shapes"])
    ]
    (row,) = holdout.rows(first, last)
    expected, metric = difference(pair(*measures)), metric_of(measures[1])
    assert (row.change, row.change_low, row.change_high) == (expected.value, expected.low, expected.high)
    assert (row.step, row.value, row.low, row.high) == (20, metric.value, metric.low, metric.high)
    assert row.n == 360
    assert row.change_high < 0
    (start,) = holdout.rows(first, first)
    assert (start.change, start.change_low, start.change_high) == (None, None, None)


def test_a_scorers_numbers_have_no_bounds() -> None:
    holdout = _read(judges=("colourfulness",))
    keys = [f"{prompt.id}/0" for prompt in holdout.prompts]
    results = [
        HoldoutResult(
            step=step,
            scores={
                "shapes": dict.fromkeys(keys, 1.0),
                "colourfulness": dict.fromkeys(keys, 0.4 - step / 100),
            },
        )
        for step in (0, 10)
    ]
    own, scorer = holdout.rows(*results)
    # Of a number that lies in [0, 1] by its unit, prompts that all agree leave no doubt.
    assert (scorer.change, scorer.change_low, scorer.change_high) == pytest.approx((-0.1, -0.1, -0.1))
    assert own.change == 0
    assert own.change_low < 0 < own.change_high


def test_results_are_read_again_up_to_a_step(tmp_path: Path) -> None:
    assert read_results(tmp_path / "none", 5) == []
    made = [HoldoutResult(step=s, scores={"shapes": {"a/0": 0.1 * s}}, faults={}) for s in (0, 10, 20)]
    for result in reversed(made):
        save_result(tmp_path / "holdout", result)
    assert read_results(tmp_path / "holdout", 10) == made[:2]
    (tmp_path / "holdout" / "step-000010.json").write_text('{"step": 10, "scores": {"shapes": 3}}')
    with pytest.raises(BadInput, match=r"step-000010.json"):
        read_results(tmp_path / "holdout", 20)
