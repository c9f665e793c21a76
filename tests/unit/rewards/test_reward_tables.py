"""A recipe's tables of rewards, and how many rewards a step may lose."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sar_eval.errors import BadInput, Incomplete, UnknownName
from sar_eval.rewards.pool import RewardSpec, check_losses, lost_share, reward_specs
from sar_eval.types import Verdict


def test_tables_become_specs(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("JUDGE = SCORER = None\n")
    tables = {
        "shapes": {"weight": 0.5, "workers": 2, "options": {"threshold": 0.6}},
        "clip:simplear": {"device": "cuda:1", "normalise": True, "quantise": 0.5, "weight": -1},
        "mine": {"judge": "mine.py:JUDGE", "timeout_s": 5},
        "own": {"judge": "mine.py:SCORER", "options": {"dtype": "bfloat16"}},
    }
    shapes, clip, mine, own = reward_specs(tables, "mine.toml", tmp_path)
    assert shapes == RewardSpec("shapes", "shapes", 0.5, workers=2, options={"threshold": 0.6})
    assert clip == RewardSpec(
        "clip:simplear", "score", -1.0, True, 0.5, 1, "cuda:1", options={"scorers": ["clip:simplear"]}
    )
    assert mine == RewardSpec("mine", f"{tmp_path}/mine.py:JUDGE", timeout_s=5.0)
    assert own.options == {"scorers": [f"{tmp_path}/mine.py:SCORER"], "dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"weigth": 1}, "rewards.shapes has no option 'weigth'"),
        ({"weight": True}, "rewards.shapes.weight is True: a number"),
        ({"weight": float("nan")}, "weight is nan"),
        ({"weight": 0}, "the weights of all rewards are 0"),
        ({"quantise": -1}, "quantise is -1: a number from 0 to"),
        ({"timeout_s": 0}, "timeout_s is 0: a number from 1 to"),
        ({"workers": 0}, "workers 0 of mine.toml: rewards.shapes"),
        ({"normalise": 1}, "normalise is 1: true or false"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"device": "cuda:x"}, "device is 'cuda:x'"),
        ({"options": 3}, "options is 3: a table"),
        ({"judge": 3}, "judge is 3: the name"),
        ({"judge": "hps", "options": {"scorers": "clip"}}, "hps is itself the scorer"),
    ],
)
def test_wrong_tables_are_named(table: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message.replace("(", r"\(")):
        reward_specs({"shapes": table}, "mine.toml")


def test_unknown_rewards_get_a_suggestion() -> None:
    with pytest.raises(UnknownName, match=r"mine\.toml: rewards\.shape: unknown .* mean 'shapes'"):
        reward_specs({"shape": {}}, "mine.toml")
    with pytest.raises(UnknownName, match="did you mean 'hps'"):
        reward_specs({"hpx": {}}, "mine.toml")
    with pytest.raises(BadInput, match="no table"):
        reward_specs({}, "mine.toml")


def _verdicts(good: int, *errors: str) -> Iterator[Verdict]:
    yield from (Verdict(f"g/{n}", "j", "1", 0.5) for n in range(good))
    yield from (Verdict(f"b/{n}", "j", "1", error=error) for n, error in enumerate(errors))


def test_a_step_that_loses_too_many_rewards_stops_the_run() -> None:
    fifth = [*_verdicts(8, "server down", "server down")]
    assert lost_share(fifth) == 0.2
    assert lost_share([]) == 0.0
    assert lost_share([Verdict("a", "j", "1", float("nan"))]) == 1.0
    check_losses({"vqa": fifth})
    more = [*_verdicts(7, "server down", "no image", "server down")]
    with pytest.raises(Incomplete, match=r"'vqa' has no score for 3 of 10 .* \(30%.*2 times: .server down"):
        check_losses({"shapes": fifth, "vqa": more})


@pytest.mark.parametrize("name", ["", "mixed"])
def test_names_that_no_reward_can_have(name: str) -> None:
    with pytest.raises(BadInput, match="is no name of a reward"):
        reward_specs({name: {"judge": "shapes"}}, "recipe.toml")
