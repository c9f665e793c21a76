"""GenEval's measures: what its figures are means of."""

from __future__ import annotations

from collections.abc import Sequence

from sar_eval.measures import Measure, Stratum, merge


def measures_of_tasks(tasks: Sequence[Stratum]) -> tuple[Measure, ...]:
    """`overall`, one measure per task, then the shares of correct images and of prompts with any correct.

    Overall is the unweighted mean of the tasks. Only scored draws count; the summary reports missing ones.
    """
    everything = (merge(tasks),)
    return (
        Measure("overall", tasks),
        *(Measure(f"task/{task.task}", (task,)) for task in tasks),
        Measure("correct_images", everything),
        Measure("correct_prompts", everything, combine="max"),
    )
