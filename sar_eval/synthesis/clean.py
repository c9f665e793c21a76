"""Remove from a set what nobody will read again: never anything that a record which counts names."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
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
        hurt: blocks that a worker committed with an object while that was removed.
    """

    names: list[str] = field(default_factory=list)
    size: int = 0
    unclear: list[int] = field(default_factory=list)
    hurt: list[int] = field(default_factory=list)


def clean(
    image_set: ImageSet,
    older_s: float,
    progress: Callable[[int, int], None],
    dry_run: bool = False,
) -> Cleaned:
    """Remove objects of lost races and superseded attempts, outdated ledgers and claims, temporaries.

    Args:
        image_set: to clean. Workers may go on meanwhile.
        older_s: age by the store's clock, in seconds, below which an object stays: a worker may have
            written it whose record follows.
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
    orphans = {info.name: info for info in _orphans(image_set, group, before)}
    records = [record_name(record.block, record.attempt) for record in group.superseded]
    rest = [*_outdated_ledgers(group), *_old_claims(image_set.store, group, before)]
    # Records before what they name: no record may ever name what is gone.
    names = [*(name for name in records if name in group.done), *orphans, *rest]
    cleaned.names += names
    cleaned.size += sum(info.size for info in orphans.values())
    if names and not dry_run:
        image_set.store.delete(names)
        now = read_group(image_set, group.number).named()
        cleaned.hurt += sorted({now[name].block for name in orphans if name in now})


def _orphans(image_set: ImageSet, group: Group, before: float) -> Iterator[ObjectInfo]:
    named = group.named()
    for _, info in listed(image_set, group.number):
        if info.name not in named and info.modified < before:
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


def _old_claims(store: ObjectStore, group: Group, before: float) -> list[str]:
    """Claims of blocks that nobody has to draw any more."""
    finished = {block for block, record in group.standing.items() if not record.lacking}
    return [
        info.name
        for info in store.list(f"{CLAIMS}/{group.number:06d}")
        if info.modified < before
        and info.name.removeprefix(f"{CLAIMS}/").partition("-")[0] in {f"{b:09d}" for b in finished}
    ]
