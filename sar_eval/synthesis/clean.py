"""Remove from a set what nobody will read again: never anything that a record which counts names.

Only of whole blocks, which nobody draws any more: objects of another might be those that its next worker
has just written, and would be gone when the record follows. That worker writes the same ones again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from sar_eval.storage.image_set import BLOCKS_PER_GROUP, ImageSet, record_name
from sar_eval.storage.objects import PROBE, ObjectInfo, ObjectStore
from sar_eval.storage.set_groups import Group, listed, read_group
from sar_eval.synthesis.claims import FOLDER as CLAIMS
from sar_eval.synthesis.spec import SetSpec


@dataclass(slots=True)
class Cleaned:
    """What was removed, by kind of object, and what could not be looked at.

    Attributes:
        names: of the objects.
        size: bytes of the data and manifest objects among them.
        unclear: groups of 1,000 blocks with broken records, of which everything stays.
    """

    names: list[str] = field(default_factory=list)
    size: int = 0
    unclear: list[int] = field(default_factory=list)


def clean(
    image_set: ImageSet,
    older_s: float,
    progress: Callable[[int, int], None],
    dry_run: bool = False,
) -> Cleaned:
    """Remove objects of lost races and superseded attempts, outdated ledgers and claims, temporaries.

    Args:
        image_set: to clean. Workers may go on meanwhile.
        older_s: age by the store's clock, in seconds, below which an object or a claim stays: a slow worker
            may still be at it, though another committed its block.
        progress: told how many of how many groups of 1,000 blocks are done.
        dry_run: name what would go, and remove nothing.

    Raises:
        BadInput: there is no set, or the store cannot be read.
        StorageFailed: no permission to delete.
    """
    store = image_set.store
    blocks = SetSpec.from_json(image_set.spec(), store.where("spec.json")).blocks
    before, groups, cleaned = store_time(store) - older_s, -(-blocks // BLOCKS_PER_GROUP), Cleaned()
    for number in range(groups):
        _clean_group(image_set, read_group(image_set, number), before, dry_run, cleaned)
        progress(number + 1, groups)
    if not dry_run:
        cleaned.names += store.sweep()
    return cleaned


def store_time(store: ObjectStore) -> float:
    """The time by the store's clock, as of an object just written, in seconds since 1970."""
    name = f"{PROBE}{uuid.uuid4().hex}"
    store.write(name, b"")
    try:
        return max(info.modified for info in store.list(name))
    finally:
        store.delete([name])


def _clean_group(image_set: ImageSet, group: Group, before: float, dry_run: bool, cleaned: Cleaned) -> None:
    if group.problems:
        cleaned.unclear.append(group.number)
        return
    whole = {block for block, record in group.standing.items() if not record.lacking}
    superseded = (record for record in group.superseded if record.block in whole)
    records = [record_name(record.block, record.attempt) for record in superseded]
    orphans = list(_orphans(image_set, group, whole, before))
    first = [name for name in records if name in group.done]
    then = [
        *(info.name for info in orphans),
        *_outdated_ledgers(group),
        *_old_claims(image_set.store, group, whole, before),
    ]
    cleaned.names += first + then
    cleaned.size += sum(info.size for info in orphans)
    if not dry_run:
        image_set.store.delete(first)  # before what they name: no record may ever name what is gone
        image_set.store.delete(then)


def _orphans(
    image_set: ImageSet, group: Group, whole: Collection[int], before: float
) -> Iterator[ObjectInfo]:
    """Objects of whole blocks that no record which counts names."""
    named = group.named()
    for block, info in listed(image_set, group.number):
        if block in whole and info.name not in named and info.modified < before:
            yield info


def _outdated_ledgers(group: Group) -> list[str]:
    """Ledgers that say less than the done-records, which are all there: the next start writes another."""
    return [
        name
        for name, lines in group.ledgers.items()
        if any(record.attempt < group.standing[record.block].attempt for record, _ in lines)
        and all(
            record_name(record.block, group.standing[record.block].attempt) in group.done
            for record, _ in lines
        )
    ]


def _old_claims(store: ObjectStore, group: Group, whole: Collection[int], before: float) -> list[str]:
    """Claims of whole blocks."""
    stems = {f"{CLAIMS}/{block:09d}" for block in whole}
    return [
        info.name
        for info in store.list(f"{CLAIMS}/{group.number:06d}")
        if info.modified < before and info.name.rpartition("-")[0] in stems
    ]
