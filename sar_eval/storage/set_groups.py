"""A set's committed blocks, a thousand at a time, read so that what is broken is told and not raised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sar_eval.errors import BadInput
from sar_eval.storage.image_set import (
    BLOCKS_PER_GROUP,
    LEDGER_NAME,
    OBJECT_NAME,
    OTHER_BYTES,
    RECORD_NAME,
    ImageSet,
    digest_of,
    group_folders,
    record_name,
)
from sar_eval.storage.objects import ObjectInfo
from sar_eval.storage.set_rows import BlockRecord


@dataclass(frozen=True, slots=True)
class Problem:
    """An object that is missing or not what it should be, and its block (None: it is a ledger)."""

    name: str
    why: str
    block: int | None = None


@dataclass(slots=True)
class Group:
    """What a set says of the blocks of one folder of done-records.

    Attributes:
        number: block // `BLOCKS_PER_GROUP`.
        done: bytes of each done-record, by name; broken ones too.
        standing: by block, the record of its latest attempt.
        superseded: records of earlier attempts.
        ledgers: by name, records and their lines; broken ledgers have none.
        problems: of done-records and ledgers.
    """

    number: int
    done: dict[str, bytes] = field(default_factory=dict)
    standing: dict[int, BlockRecord] = field(default_factory=dict)
    superseded: list[BlockRecord] = field(default_factory=list)
    ledgers: dict[str, list[tuple[BlockRecord, bytes]]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, record: BlockRecord) -> None:
        """Add a record; the latest attempt stands."""
        known = self.standing.get(record.block)
        if known is None or record.attempt > known.attempt:
            self.standing[record.block] = record
        if known is not None and record.attempt != known.attempt:
            self.superseded.append(min(record, known, key=lambda r: r.attempt))

    def named(self) -> dict[str, BlockRecord]:
        """The objects that count: those which standing records name."""
        return {
            name: record
            for record in self.standing.values()
            for name in (record.data, record.manifest)
            if name
        }


def group_numbers(image_set: ImageSet) -> list[int]:
    """Of all groups in which anything is committed."""
    ledgers = (LEDGER_NAME.fullmatch(info.name) for info in image_set.store.list("ledger/"))
    return sorted({*group_folders(image_set.store), *(int(match[1]) for match in ledgers if match)})


def read_group(image_set: ImageSet, number: int) -> Group:
    """A group as it is stored.

    Raises:
        BadInput: the store cannot be read.
    """
    group, store = Group(number), image_set.store
    names = (info.name for info in store.list(f"done/{number:06d}/"))
    for name, data in store.read_many(name for name in names if RECORD_NAME.fullmatch(name)):
        group.done[name] = data
        _add_record(group, image_set, name, data)
    ledgers = (info.name for info in store.list(f"ledger/{number:06d}-"))
    for name, data in store.read_many(name for name in ledgers if LEDGER_NAME.fullmatch(name)):
        group.ledgers[name] = _ledger(group, image_set, name, data)
        for record, _ in group.ledgers[name]:
            if record_name(record.block, record.attempt) not in group.done:
                group.add(record)
    return group


def listed(image_set: ImageSet, number: int) -> Iterator[tuple[int, ObjectInfo]]:
    """Data and manifest objects of a group that a listing has, with the block that their names say."""
    for kind in ("data", "manifest"):
        for info in image_set.store.list(f"{kind}/part-{number:06d}"):
            match = OBJECT_NAME.fullmatch(info.name)
            if match and int(match[2]) // BLOCKS_PER_GROUP == number:
                yield int(match[2]), info


def _add_record(group: Group, image_set: ImageSet, name: str, data: bytes) -> None:
    match = RECORD_NAME.fullmatch(name)
    block = int(match[2]) if match else None
    try:
        group.add(image_set.parse_record(data, name))
    except BadInput as error:
        group.problems.append(Problem(name, _after(error, name), block))


def _ledger(group: Group, image_set: ImageSet, name: str, data: bytes) -> list[tuple[BlockRecord, bytes]]:
    if f"-{digest_of(data)}." not in name:
        group.problems.append(Problem(name, OTHER_BYTES))
        return []
    lines: Sequence[bytes] = data.splitlines(keepends=True)
    try:
        return [(image_set.parse_record(line, f"{name}:{n}"), line) for n, line in enumerate(lines, 1)]
    except BadInput as error:
        group.problems.append(Problem(name, _after(error, name)))
        return []


def _after(error: BadInput, name: str) -> str:
    """What a message says behind the name of its object, without the way on."""
    said = str(error).rpartition(name)[2].lstrip(" :")
    return said.removeprefix("is broken: ").partition("; `sar-eval")[0]
