"""The fold of scorers' numbers: their means, and evidence that nobody's judge wrote."""

import pytest

from sar_eval.benchmarks.scores import BENCHMARK
from sar_eval.errors import BadInput
from sar_eval.stats.intervals import metric_of
from sar_eval.types import Prompt, Verdict

PROMPTS = [Prompt("a", "a cat"), Prompt("b", "a dog")]


def fold(evidence: object):
    verdicts = {
        "a/0": Verdict("a/0", "score", "1", 0.5, evidence={"scores": {"hps": 0.25}}),
        "b/0": Verdict("b/0", "score", "1", 1.5, evidence=evidence),
    }
    return {m.name: metric_of(m) for m in BENCHMARK().fold(PROMPTS, verdicts)}


def test_the_means_of_each_scorer() -> None:
    found = fold({"scores": {"hps": 0.75}})
    assert (found["overall"].value, found["scorer/hps"].value) == (1.0, 0.5)


@pytest.mark.parametrize("evidence", [None, {}, [], 3, "text", {"replies": []}, {"scores": None}])
def test_another_judges_evidence_has_no_scorers(evidence: object) -> None:
    assert fold(evidence)["scorer/hps"].n == 1


@pytest.mark.parametrize(
    "scores",
    [
        *(3, [1], "text"),
        *({"hps": value} for value in ("0.5", None, True, [1], float("nan"), 10**400, float("inf"))),
    ],
)
def test_scores_that_are_no_numbers_are_refused(scores: object) -> None:
    with pytest.raises(BadInput, match="evidence of b/0"):
        fold({"scores": scores})
