"""ImageReward's benchmark: the mean over prompts of the mean rewards of their pictures.

A verdict's score is the scorer's own number (`--judge score --scorers imagereward`).
docs/reward-benchmarks.md describes both ways of averaging.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sar_eval.measures import DrawScores, Measure, draw_scores, stratum
from sar_eval.suites.imagereward.scoring import official_rewards
from sar_eval.types import Prompt, Verdict


class ImageRewardFold:
    """The mean over prompts, and what the official script makes of the same pictures."""

    version = "1"

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """`overall` and `reference/overall`, without a value where the script fails.

        Only scored draws count; the summary reports missing ones.
        """
        scores = draw_scores(prompts, verdicts)
        overall = Measure("overall", scores.strata([""] * len(prompts)), combine="mean", bounds=None)
        return overall, _official(scores)


def _official(scores: DrawScores) -> Measure:
    """As if the folder held the scored pictures and nothing else."""
    rewards = {
        f"{scores.ids[prompt]}_{index}": score
        for prompt, index, score in zip(
            scores.prompts.tolist(), scores.indices.tolist(), scores.scores.tolist(), strict=True
        )
    }
    found = official_rewards(scores.ids, len(rewards), rewards)
    rows = [
        (prompt, index, reward, 1.0)
        for prompt, taken in (found or {}).items()
        for index, reward in enumerate(taken)
    ]
    strata = (stratum(rows),) if rows else ()
    return Measure("reference/overall", strata, combine="mean", bounds=None)


BENCHMARK = ImageRewardFold
