"""Judge the pictures of a wave while the next wave is drawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeVar

from sar_eval.types import Generation, Prompt, Verdict

AHEAD = 2  # waves whose pictures are kept until they are judged
Drawn = TypeVar("Drawn")
Item = tuple[Prompt, Generation]
Begun = tuple[list[Drawn], Sequence[Future[list[Verdict]]]]


class Judges(Protocol):
    """What this needs of a `pool.RewardPool`."""

    def submit(self, items: Sequence[Item]) -> Sequence[Future[list[Verdict]]]:
        """One future of verdicts for each judge, in the items' order."""
        ...


def judged(
    waves: Iterable[Future[list[Drawn]]], item_of: Callable[[Drawn], Item], judges: Judges
) -> Iterator[tuple[Drawn, Sequence[Verdict]]]:
    """What the waves give, each with one verdict of each judge, and with none if the draw failed.

    Args:
        waves: of an engine's `begin` or `roll`.
        item_of: prompt and generation of what a wave gives.
        judges: of the pictures.
    """
    begun: deque[Begun[Drawn]] = deque()
    for drawn in _one_late(waves):
        begun.append(_begin(drawn, item_of, judges))
        if len(begun) > AHEAD:
            yield from _joined(begun.popleft(), item_of)
    while begun:
        yield from _joined(begun.popleft(), item_of)


def _one_late(waves: Iterable[Future[list[Drawn]]]) -> Iterator[list[Drawn]]:
    """Each wave when the next one has begun: a thread encodes its pictures meanwhile."""
    previous: Future[list[Drawn]] | None = None
    for wave in waves:
        if previous is not None:
            yield previous.result()
        previous = wave
    if previous is not None:
        yield previous.result()


def _begin(drawn: list[Drawn], item_of: Callable[[Drawn], Item], judges: Judges) -> Begun[Drawn]:
    items = [item for item in map(item_of, drawn) if item[1].error is None]
    return drawn, judges.submit(items) if items else []


def _joined(
    begun: Begun[Drawn], item_of: Callable[[Drawn], Item]
) -> Iterator[tuple[Drawn, Sequence[Verdict]]]:
    drawn, futures = begun
    rows = zip(*[future.result() for future in futures], strict=True)
    for each in drawn:
        yield each, (() if item_of(each)[1].error is not None else next(rows))
