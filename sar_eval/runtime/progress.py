"""What a stage reports while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """One step of a stage, for whatever shows progress.

    Attributes:
        stage: "generate", "import" or "judge".
        done, total: images, those of an earlier start included.
        failed: images of this stage without a result so far.
        worker: index of the worker that finished them; None when the stage starts.
        added: images that this step finished.
        note: something worth showing (a damaged part, a block given up).
    """

    stage: str
    done: int
    total: int
    failed: int = 0
    worker: int | None = None
    added: int = 0
    note: str = ""


ProgressCallback = Callable[[ProgressEvent], None]


def no_progress(event: ProgressEvent) -> None:
    """A callback that shows nothing."""
