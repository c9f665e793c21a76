"""Compute GenEval's metrics from verdicts, task by task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sar_eval.protocols import scores
from sar_eval.stats import clustered_metric
from sar_eval.types import Metric, Prompt, Verdict

Scores = Mapping[str, list[float]]  # of the judged images, by prompt id


def fold_by_task(prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Metric, ...]:
    """`overall`, one metric per task, then shares of correct images and of prompts with any correct.

    Overall is the unweighted mean of the tasks. Only scored draws count; the summary reports missing ones.
    """
    return metrics_of_tasks(group_by_task(prompts, scores_by_prompt(verdicts)))


def scores_by_task(
    prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]
) -> dict[str, list[list[float]]]:
    """Scores of the judged images by task and prompt: `{task: [[score, ...], ...]}`, in suite order."""
    return group_by_task(prompts, scores_by_prompt(verdicts))


def scores_by_prompt(verdicts: Mapping[str, Verdict]) -> Scores:
    """Scores of the judged images by prompt id."""
    by_prompt: dict[str, list[float]] = {}
    for key, score in scores(verdicts):
        if score is not None:
            by_prompt.setdefault(key.rpartition("/")[0], []).append(score)
    return by_prompt


def group_by_task(prompts: Iterable[Prompt], by_prompt: Scores) -> dict[str, list[list[float]]]:
    """The same as `scores_by_task`, for a fold that groups the same scores several times."""
    tasks: dict[str, list[list[float]]] = {}
    for prompt in prompts:
        if prompt.id in by_prompt:
            tasks.setdefault(prompt.tag, []).append(by_prompt[prompt.id])
    return tasks


def metrics_of_tasks(by_task: Mapping[str, list[list[float]]]) -> tuple[Metric, ...]:
    """See `fold_by_task`."""
    all_prompts = [scores for task in by_task.values() for scores in task]
    return (
        clustered_metric("overall", list(by_task.values())),
        *(clustered_metric(f"task/{name}", [task]) for name, task in by_task.items()),
        clustered_metric("correct_images", [all_prompts]),
        clustered_metric("correct_prompts", [[[max(scores)] for scores in all_prompts]]),
    )
