"""From GenEval's verdicts to its figures, task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sar_eval.stats import clustered_metric
from sar_eval.types import Metric, Prompt, Verdict


def fold_by_task(prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Metric, ...]:
    """`overall`, one metric a task, then shares of correct images and of prompts with any correct.

    Overall is the unweighted mean of the tasks. Scored draws count only; what is missing is the
    summary's business.
    """
    scores = scores_by_task(prompts, verdicts)
    tasks = [clustered_metric(f"task/{name}", [found]) for name, found in scores.items()]
    everything = [found for prompts_scores in scores.values() for found in prompts_scores]
    return (
        clustered_metric("overall", list(scores.values())),
        *tasks,
        clustered_metric("correct_images", [everything]),
        clustered_metric("correct_prompts", [[[max(found)] for found in everything]]),
    )


def scores_by_task(
    prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]
) -> dict[str, list[list[float]]]:
    """Task to prompts to scores of the judged images, tasks in suite order."""
    by_prompt: dict[str, list[float]] = {}
    for key, verdict in verdicts.items():
        if verdict.score is not None:
            by_prompt.setdefault(key.rpartition("/")[0], []).append(verdict.score)
    tasks: dict[str, list[list[float]]] = {}
    for prompt in prompts:
        if prompt.id in by_prompt:
            tasks.setdefault(prompt.tag, []).append(by_prompt[prompt.id])
    return tasks
