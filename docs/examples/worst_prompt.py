"""Mean score, and the mean of each prompt's worst image."""

from collections.abc import Mapping, Sequence

from sar_eval.stats import clustered_metric
from sar_eval.suites.geneval.scoring import scores_by_task
from sar_eval.types import Metric, Prompt, Verdict


class WorstPrompt:
    """An example of a fold: one file with a docstring and `BENCHMARK`."""

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Metric, ...]:
        """`overall` first, as in every fold, then `worst_image`; intervals clustered by prompt."""
        scores = scores_by_task(prompts, verdicts)
        worst = [[[min(images)] for images in task] for task in scores.values()]
        return clustered_metric("overall", list(scores.values())), clustered_metric("worst_image", worst)


BENCHMARK = WorstPrompt
