"""Hold every byte of a set against the names and records that committed it, and take back what is damaged.

An object's name carries the digest of its bytes, and its block's record names it with its size. So what
somebody deleted, cut or changed is found, and a block whose record is removed is drawn again by the next
start, to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from sar_eval.errors import BadInput
from sar_eval.storage.image_set import (
    BLOCKS_PER_GROUP,
    OBJECT_NAME,
    RECORD_NAME,
    ImageSet,
    digest_of,
    record_name,
)
from sar_eval.storage.objects import ObjectMissing, ObjectStore
from sar_eval.storage.set_groups import Group, Problem, group_numbers, listed, read_group
from sar_eval.storage.set_rows import BlockRecord

READERS = 8  # objects that are in memory at a time; each may have a hundred megabytes
MISSING = "it is missing"


@dataclass(slots=True)
class Verified:
    """What was looked at, and what is wrong.

    `size` is in bytes of data and manifest objects.
    """

    blocks: int = 0
    objects: int = 0
    size: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def blocks_hurt(self) -> list[int]:
        """Numbers of the blocks that have to be drawn again."""
        return sorted({problem.block for problem in self.problems if problem.block is not None})


def verify(
    image_set: ImageSet,
    progress: Callable[[int, int], None],
    quick: bool = False,
) -> Verified:
    """Look at every committed block.

    Args:
        image_set: to look at.
        progress: told how many of how many groups of 1,000 blocks are done.
        quick: look at names and sizes in listings alone, and read no data object.

    Raises:
        BadInput: there is no set, or the store cannot be read.
    """
    image_set.spec()
    found, numbers = Verified(), group_numbers(image_set)
    for count, number in enumerate(numbers, 1):
        _verify_group(found, image_set, read_group(image_set, number), quick)
        progress(count, len(numbers))
    return found


def repair(image_set: ImageSet, problems: Sequence[Problem]) -> list[int]:
    """Take back the blocks with problems, so that the next start draws them again; returns their numbers.

    Nothing else is lost, also if this is interrupted: what only a ledger knows of other blocks is written
    as done-records before that ledger goes, and problems stay visible until their block is gone.

    Raises:
        StorageFailed: no permission to write or to delete.
    """
    ledgers = {problem.name for problem in problems if problem.block is None}
    blocks = {problem.block for problem in problems if problem.block is not None}
    for number in sorted({block // BLOCKS_PER_GROUP for block in blocks}):
        ledgers |= _take_back(image_set, read_group(image_set, number), blocks)
    objects = {problem.name for problem in problems if OBJECT_NAME.fullmatch(problem.name)}
    image_set.store.delete(sorted(ledgers | objects))
    return sorted(blocks)


def _verify_group(found: Verified, image_set: ImageSet, group: Group, quick: bool) -> None:
    named = group.named()
    sizes = {info.name: info.size for _, info in listed(image_set, group.number)}
    found.blocks += len(group.standing)
    found.objects += len(named)
    found.size += sum(sizes.get(name, 0) for name in named)
    found.problems += group.problems
    wrong = [_wrong_size(image_set.store, name, record, sizes) for name, record in named.items()]
    found.problems += [problem for problem in wrong if problem]
    if not quick:
        bad = {problem.name for problem in found.problems}
        found.problems += _wrong_bytes(
            image_set.store, {name: record for name, record in named.items() if name not in bad}
        )


def _wrong_size(
    store: ObjectStore, name: str, record: BlockRecord, sizes: Mapping[str, int]
) -> Problem | None:
    if name not in sizes:  # a listing may lag behind
        return None if store.exists(name) else Problem(name, MISSING, record.block)
    size = record.data_bytes if name == record.data else record.manifest_bytes
    if sizes[name] == size:
        return None
    return Problem(name, f"it has {sizes[name]:,} bytes, its record says {size:,}", record.block)


def _wrong_bytes(store: ObjectStore, named: Mapping[str, BlockRecord]) -> Iterable[Problem]:
    def wrong(name: str) -> str:
        try:
            good = f"-{digest_of(store.read(name))}." in name
        except ObjectMissing:
            return MISSING
        except BadInput as error:
            return str(error)
        return "" if good else "its bytes are not those that its name is the digest of"

    with ThreadPoolExecutor(READERS, thread_name_prefix="verify") as pool:
        for (name, record), why in zip(named.items(), pool.map(wrong, named), strict=True):
            if why:
                yield Problem(name, why, record.block)


def _take_back(image_set: ImageSet, group: Group, blocks: set[int]) -> set[str]:
    """Remove the done-records of some blocks of a group; returns the ledgers that have to go as well."""
    stale = {
        name for name, lines in group.ledgers.items() if any(record.block in blocks for record, _ in lines)
    }
    for name in sorted(stale):
        for record, line in group.ledgers[name]:
            if record.block not in blocks:
                image_set.store.create(record_name(record.block, record.attempt), line)
    gone = [
        name for name in group.done if (match := RECORD_NAME.fullmatch(name)) and int(match[2]) in blocks
    ]
    image_set.store.delete(gone)
    return stale
