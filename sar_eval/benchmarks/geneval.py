"""GenEval: overall score is the unweighted mean of the tasks' shares of correct images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sar_eval.measures import Measure, scores_by_task
from sar_eval.suites.geneval.scoring import measures_of_tasks
from sar_eval.types import Prompt, Verdict


class GenEvalFold:
    """The official figures; see `suites.geneval.scoring`."""

    version = "1"

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """`overall`, one per task, then shares of correct images and of prompts with any correct."""
        return measures_of_tasks(scores_by_task(prompts, verdicts))


BENCHMARK = GenEvalFold
