"""ImageReward's mean over prompts, and what the official script makes of folders with gaps."""

import hashlib
import json
from pathlib import Path

import pytest

from sar_eval.benchmarks.imagereward import ImageRewardFold
from sar_eval.stats.intervals import metric_of
from sar_eval.suites.imagereward.scoring import official_rewards
from sar_eval.suites.prompts import load_suite
from sar_eval.types import Metric, Prompt, Verdict

ROOT = Path(__file__).parents[3]
PROMPTS = [Prompt("a", "text"), Prompt("b", "text")]
REWARDS = {"a/0": 1.0, "a/1": -0.5, "a/2": 0.4, "b/0": 2.0, "b/1": 0.0, "b/2": 1.6}


def _figures(rewards: dict[str, float]) -> dict[str, Metric]:
    verdicts = {key: Verdict(key, "score", "1", score=reward) for key, reward in rewards.items()}
    return {m.name: metric_of(m) for m in ImageRewardFold().fold(PROMPTS, verdicts)}


def test_a_whole_folder_gives_both_the_same() -> None:
    figures = _figures(REWARDS)
    assert figures["overall"].value == pytest.approx((0.3 + 1.2) / 2)
    assert figures["reference/overall"].value == pytest.approx(0.75)
    assert figures["overall"].bounds is None


def test_a_missing_picture_counts_its_neighbour_twice_officially_and_not_here() -> None:
    """Where something else lies in the folder, so that the number of files still fits."""
    there = {key.replace("/", "_"): reward for key, reward in REWARDS.items() if key != "a/1"}
    assert official_rewards(["a", "b"], 6, there) == {"a": [1.0, 1.0, 0.4], "b": [2.0, 0.0, 1.6]}
    figures = _figures({key: reward for key, reward in REWARDS.items() if key != "a/1"})
    assert figures["overall"].value == pytest.approx((0.7 + 1.2) / 2)


def test_too_few_files_make_fewer_of_every_prompt_officially_and_not_here() -> None:
    figures = _figures({key: reward for key, reward in REWARDS.items() if key != "b/2"})
    assert figures["reference/overall"].value == pytest.approx((0.25 + 1.0) / 2)  # two of each
    assert figures["overall"].value == pytest.approx((0.3 + 1.0) / 2)


@pytest.mark.parametrize("missing", [("a/0",), ("a/0", "a/1", "a/2", "b/1", "b/2")])
def test_where_the_script_fails_there_is_no_reference(missing: tuple[str, ...]) -> None:
    figures = _figures({key: reward for key, reward in REWARDS.items() if key not in missing})
    assert figures["reference/overall"].value is None
    assert figures["overall"].value is not None


def test_the_shipped_suite_is_as_long_as_the_official_file() -> None:
    """Written in its form, the 100 ids and texts have its length; the digest is ours, against changes."""
    suite = load_suite(ROOT / "prompts" / "imagereward.jsonl")
    rows = [{"id": prompt.id, "prompt": prompt.text} for prompt in suite.prompts]
    official = json.dumps(rows, indent=4)
    assert (len(rows), len(official)) == (100, 14_558)
    assert hashlib.sha256(official.encode()).hexdigest() == (
        "34682e824ebb3ad8e2531b3cde1b362dc72e1e29946ff6fab77bb49e9edb4b21"
    )
