"""Scores: means of any judge's scores, and of every scorer's, over all images and by tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.measures import DrawScores, Measure, collect_scores, draw_scores, merge
from sar_eval.types import Prompt, Verdict

LARGEST = 1e100  # of a score: squares can be summed


class ScoresFold:
    """Plain means, every image the same weight."""

    version = "1"

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """`overall` of the verdicts' scores; `scorer/*` of each scorer in the evidence; `tag/*`."""
        overall = draw_scores(prompts, verdicts)
        by_scorer = scores_by_scorer(prompts, verdicts)
        scorers = [_mean(f"scorer/{name}", scores) for name, scores in by_scorer.items()]
        return (_mean("overall", overall), *scorers, *_by_tag(prompts, overall))


def scores_by_scorer(prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> dict[str, DrawScores]:
    """Each scorer's own numbers, from the evidence of the judge `score`, whatever others gave.

    Raises:
        BadInput: evidence that the judge did not write.
    """
    pairs: dict[str, list[tuple[str, float | None]]] = {}
    for key, verdict in verdicts.items():
        evidence: Any = verdict.evidence if isinstance(verdict.evidence, dict) else {}
        for name, value in _checked(evidence.get("scores"), key).items():
            pairs.setdefault(name, []).append((key, value))
    return {name: collect_scores(prompts, found) for name, found in pairs.items()}


def _checked(scores: Any, key: str) -> dict[str, float]:
    """Scores by scorer; none where another judge gave the verdict."""
    numbers = scores.values() if isinstance(scores, dict) else ()
    if scores is None or (isinstance(scores, dict) and all(map(_is_number, numbers))):
        return scores or {}
    raise BadInput(
        f"evidence of {key}: scores {shorten(scores)} are no table of numbers: remove the run's verdicts "
        "and judge again"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


def _mean(name: str, scores: DrawScores) -> Measure:
    strata = scores.strata(["" for _ in scores.ids])
    return Measure(name, (merge(strata),) if strata else (), bounds=None)


def _by_tag(prompts: Sequence[Prompt], scores: DrawScores) -> list[Measure]:
    """One for each tag, if there are several."""
    strata = scores.strata([prompt.tag for prompt in prompts])
    if len(strata) < 2:
        return []
    return [Measure(f"tag/{found.task or 'untagged'}", (found,), bounds=None) for found in strata]


BENCHMARK = ScoresFold
