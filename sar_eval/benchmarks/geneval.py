"""GenEval: overall score is the unweighted mean of the tasks' shares of correct images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sar_eval.suites.geneval.scoring import fold_by_task
from sar_eval.types import Metric, Prompt, Verdict


class GenEvalFold:
    """The official metrics; see `suites.geneval.scoring`."""

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Metric, ...]:
        """`overall`, one metric per task, then shares of correct images and of prompts with any correct."""
        return fold_by_task(prompts, verdicts)


BENCHMARK = GenEvalFold
