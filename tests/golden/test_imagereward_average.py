"""ImageReward's average against the official `test_benchmark` on made-up rewards."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from sar_eval.benchmarks.imagereward import ImageRewardFold
from sar_eval.stats.intervals import metric_of
from sar_eval.suites.imagereward.scoring import official_rewards
from sar_eval.types import Metric, Prompt, Verdict

TOLERANCE = 1e-12
OURS_DIFFERS = {"missing-file", "extra-files"}  # modes in which the script takes other pictures


@pytest.fixture(scope="module")
def cases(parity: Path) -> list[dict[str, Any]]:
    with gzip.open(parity / "folds" / "imagereward" / "dev.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def _metrics(case: dict[str, Any]) -> dict[str, Metric]:
    """The fold's figures of the pictures that lie in the folder."""
    there = {name.removesuffix(".png") for name in case["input"]["files"]}
    verdicts = {}
    for key, reward in case["input"]["rewards"].items():
        prompt, _, index = key.rpartition("_")
        if key in there:
            verdicts[f"{prompt}/{index}"] = Verdict(f"{prompt}/{index}", "score", "1", score=reward)
    prompts = [Prompt(prompt, "a text") for prompt in case["input"]["prompts"]]
    return {m.name: metric_of(m) for m in ImageRewardFold().fold(prompts, verdicts)}


def test_every_official_case_agrees(cases: list[dict[str, Any]]) -> None:
    for case in cases:
        given, expected = case["input"], case["expected"]
        there = {name.removesuffix(".png") for name in given["files"]}
        rewards = {key: reward for key, reward in given["rewards"].items() if key in there}
        found = official_rewards(given["prompts"], len(given["files"]), rewards)
        if "error" in expected:
            assert found is None, case["id"]
            assert _metrics(case)["reference/overall"].value is None
            continue
        assert found is not None
        means = {prompt: sum(taken) / len(taken) for prompt, taken in found.items()}
        assert means == pytest.approx(expected["prompts"], rel=TOLERANCE, abs=TOLERANCE)
        score = sum(means.values()) / len(means)
        assert score == pytest.approx(expected["score"], rel=TOLERANCE, abs=TOLERANCE)
        assert f"{score:.4f}" == expected["printed"]


def test_the_fold_is_the_script_where_the_folder_holds_the_pictures_alone(
    cases: list[dict[str, Any]],
) -> None:
    compared = 0
    for case in cases:
        names = [name.removesuffix(".png") for name in case["input"]["files"]]
        if "error" in case["expected"] or not all(name in case["input"]["rewards"] for name in names):
            continue
        metrics, score = _metrics(case), case["expected"]["score"]
        assert metrics["reference/overall"].value == pytest.approx(score, rel=TOLERANCE, abs=TOLERANCE)
        if case["mode"] not in OURS_DIFFERS:
            assert metrics["overall"].value == pytest.approx(score, rel=TOLERANCE, abs=TOLERANCE)
        compared += 1
    assert compared >= 3
