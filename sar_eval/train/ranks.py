"""What the processes of a training do together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate.utils import gather_object

from sar_eval.errors import Incomplete

T = TypeVar("T")


def on_every_rank(work: Callable[[], T]) -> list[T]:
    """Do some work that takes no part of other ranks, and give each rank's result to all of them.

    Where one rank fails all of them do: none is left waiting for it.

    Raises:
        Incomplete: another rank failed; this one's own error is raised as it is.
    """
    own: T | None = None
    failure: Exception | None = None
    try:
        own = work()
    except Exception as error:  # noqa: BLE001 - raised below, once the others know
        failure = error
    found: list[tuple[Any, str | None]] = gather_object([(own, failure and _words(failure))])
    if failure is not None:
        raise failure
    for rank, (_, words) in enumerate(found):
        if words is not None:
            raise Incomplete(f"rank {rank} failed: {words}")
    return [result for result, _ in found]


def _words(error: Exception) -> str:
    """The first line that says something."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
