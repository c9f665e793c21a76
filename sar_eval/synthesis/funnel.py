"""The funnel of a set: how many of its draws are left after each step, as shares with 95 % intervals.

Draws of a prompt are alike and prompts of a block may be, so blocks are what is counted as independent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sar_eval.stats.running_share import RunningShare
from sar_eval.storage.set_rows import BlockRecord

FILTERED = "filtered: "  # before the clause, in a record


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """What is left of all draws after a step.

    Attributes:
        name: of the step; a clause of the filter as written.
        draws: left after it.
        share: of all draws, 0 to 1.
        low, high: a 95 % interval of the share, for further prompts like these.
    """

    name: str
    draws: int
    share: float
    low: float
    high: float


def funnel(records: Iterable[BlockRecord], clauses: Sequence[str] = ()) -> list[FunnelStep]:
    """The steps of a set, from all draws to those kept; memory does not grow with the records.

    A draw that fails several clauses is counted by the one that decided. Clauses that only records have
    make a step "other clauses", so that the steps always end at what is kept.

    Args:
        records: of committed blocks, in any order.
        clauses: of the filter, in the order in which they are shown.

    Returns:
        "draws", "drawn", "judged", a step for each clause, "best of its prompt" and "kept"; nothing if
        there are no draws.
    """
    clauses = list(dict.fromkeys(clauses))
    names = ["draws", "drawn", "judged", *clauses, "other clauses", "best of its prompt", "kept"]
    steps = [RunningShare() for _ in names]
    for record in records:
        for step, left in zip(steps, _left(record, clauses), strict=True):
            step.add(left, record.draws, record.prompts)
    if not steps[0].draws:
        return []
    found = [_step(name, step) for name, step in zip(names, steps, strict=True)]
    others = names.index("other clauses", 3 + len(clauses))
    if found[others].draws == found[others - 1].draws:
        del found[others]
    return found


def _left(record: BlockRecord, clauses: Sequence[str]) -> Iterator[int]:
    """Draws of a block that are left after each step."""
    fates = record.fates
    filtered = sum(number for fate, number in fates.items() if fate.startswith(FILTERED))
    yield (left := record.draws)
    for fate in ("failed", "unjudged", *(FILTERED + clause for clause in clauses)):
        yield (left := left - fates.get(fate, 0))
    yield (left := record.draws - record.lacking - filtered)
    for fate in ("outranked", "duplicate"):
        yield (left := left - fates.get(fate, 0))


def _step(name: str, left: RunningShare) -> FunnelStep:
    low, high = left.interval() or (0.0, 1.0)
    return FunnelStep(name, left.hits, left.value or 0.0, low, high)
