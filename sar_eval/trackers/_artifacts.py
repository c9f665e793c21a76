"""The report as an artifact of wandb's kind, which trackio's has the shape of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sar_eval.tracked_runs import TrackedRun


def report_artifact(make: Callable[..., Any], run: TrackedRun) -> Any:
    """An artifact of type "report" with the page and what lies beside it.

    Args:
        make: the class, called with a name and `type`.
        run: whose report it is.
    """
    artifact = make(run.report_name, type="report")
    for path in run.report:
        if path.is_dir():
            artifact.add_dir(str(path), name=path.name)
        else:
            artifact.add_file(str(path))
    return artifact
