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
    told = "" if failure is None else (str(failure).splitlines() or [type(failure).__name__])[0]
    found: list[tuple[Any, str]] = gather_object([(own, told)])
    if failure is not None:
        raise failure
    for rank, (_, words) in enumerate(found):
        if words:
            raise Incomplete(f"rank {rank} failed: {words}")
    return [result for result, _ in found]
