"""Mean score, and the mean of each prompt's worst image."""

from collections.abc import Mapping, Sequence

from sar_eval.measures import Measure, scores_by_task
from sar_eval.types import Prompt, Verdict


class WorstPrompt:
    """An example of a fold: one file with a docstring and `BENCHMARK`."""

    version = "1"  # another one whenever the same verdicts may give other figures

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """`overall` first, as in every fold, then `worst_image`; stats does the rest."""
        tasks = scores_by_task(prompts, verdicts)
        return Measure("overall", tasks), Measure("worst_image", tasks, combine="min")


BENCHMARK = WorstPrompt
