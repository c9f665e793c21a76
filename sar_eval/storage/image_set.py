"""A synthesised set in an object store: its spec, and which blocks are committed.

    spec.json                                  what decides the set's bytes
    prompts.index                              how to read any range of the prompt file, and its digest
    data/part-000000123-<digest>.parquet|.tar  kept rows of block 123
    manifest/part-000000123-<digest>.parquet   one row for each of its draws
    done/000000/000000123-0.json               its done-record, made by create-if-absent: this commits it
    ledger/000000-<digest>.jsonl               the records of blocks 0 to 999, when all of them are there

Data and manifest objects are pure functions of spec and block and carry their digest in their names, so
work that is done twice gives the same names. Readers follow done-records, never a listing of `data/`. The
record of a later attempt at a block stands for it from then on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict

from sar_eval.documents import convert, parse_json
from sar_eval.errors import BadInput
from sar_eval.storage.objects import ObjectStore
from sar_eval.storage.set_rows import BlockRecord
from sar_eval.types import Json

SPEC = "spec.json"
REPACKED = "repack.json"  # of a copy by `synth repack`, which has no blocks
PROMPT_INDEX = "prompts.index"
BLOCKS_PER_GROUP = 1000  # of a folder of done-records, and of a ledger
RECORD_NAME = re.compile(r"done/(\d{6,})/(\d{9,})-(\d{1,6})\.json", re.ASCII)
LEDGER_NAME = re.compile(r"ledger/(\d{6,})-[0-9a-f]{16}\.jsonl", re.ASCII)
_GROUP = re.compile(r"\d{6,18}", re.ASCII)
OBJECT_NAME = re.compile(r"(data|manifest)/part-(\d{9,})-([0-9a-f]{16})(\.parquet|\.tar)", re.ASCII)
OTHER_BYTES = "its bytes are not those that its name is the digest of"


class ImageSet:
    """The committed part of a set."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def begin(self, spec: Mapping[str, Json]) -> Json:
        """Store the spec, unless one is there; returns the one that is there.

        Raises:
            BadInput: it cannot be read.
        """
        self.store.create(SPEC, _json(spec))
        return self.spec()

    def exists(self) -> bool:
        """Whether a set was begun here."""
        return self.store.exists(SPEC)

    def spec(self) -> Json:
        """The stored spec.

        Raises:
            BadInput: there is no set here, or its spec is broken.
        """
        if not self.exists():
            if self.store.exists(REPACKED):
                raise BadInput(f"{self.store.uri} is a repacked copy: ask the set that it is from")
            raise BadInput(f"{self.store.uri} is no set (no {SPEC}): `sar-eval synth` makes one")
        return parse_json(self.store.read(SPEC), f"{self.store.uri}, {SPEC}")

    def prompt_index(self) -> bytes | None:
        """What later starts and workers need to read the prompt file by row; None if none is stored."""
        return self.store.read(PROMPT_INDEX) if self.store.exists(PROMPT_INDEX) else None

    def store_prompt_index(self, index: bytes) -> None:
        """Keep the index of the prompt file, unless one is there."""
        self.store.create(PROMPT_INDEX, index)

    def commit(self, record: BlockRecord, data: bytes, manifest: bytes) -> bool:
        """Store a block's objects, then its done-record; False if another worker committed it before.

        `data` and `manifest` are the bytes that the record names.

        Raises:
            StorageFailed: they cannot be stored.
        """
        if record.data:
            self.store.write(record.data, data)
        self.store.write(record.manifest, manifest)
        return self.store.create(record_name(record.block, record.attempt), _json(asdict(record)))

    def records(self) -> Iterator[BlockRecord]:
        """The record of every committed block, by number, group after group.

        Raises:
            BadInput: a record is broken.
        """
        ledgers = self._ledgers()
        folders = group_folders(self.store)
        for group in sorted({*ledgers, *folders}):
            found = self._from_ledgers(ledgers.get(group, []))
            if group in folders and (not found or any(record.lacking for record in found.values())):
                self._add_records(found, folders[group])
            yield from (found[block] for block in sorted(found))

    def record(self, block: int) -> BlockRecord | None:
        """The record of one block."""
        found: dict[int, BlockRecord] = {}
        group = block // BLOCKS_PER_GROUP
        names = [info.name for info in self.store.list(f"done/{group:06d}/{block:09d}-")]
        self._read_records(found, names)
        if block not in found:
            found = self._from_ledgers(self._ledgers().get(group, []))
        return found.get(block)

    def finished(self) -> set[int]:
        """Numbers of the committed blocks in which nothing failed and nothing is unjudged."""
        return {record.block for record in self.records() if not record.lacking}

    def write_ledgers(self, blocks: int, again: Collection[int] = ()) -> int:
        """Write the ledger of each group that is committed as a whole and has none; returns how many.

        Args:
            blocks: number of blocks of the set.
            again: blocks of which there is a later attempt than ledgers may know: their groups get one
                more, so that a copy of the set without done-records is of the latest attempts.
        """
        outdated = {block // BLOCKS_PER_GROUP for block in again}
        there, written = self._ledgers(), 0
        for group, name in group_folders(self.store).items():
            first, stop = group * BLOCKS_PER_GROUP, min(blocks, (group + 1) * BLOCKS_PER_GROUP)
            if group in there and group not in outdated:
                continue
            latest = self._latest(name)
            if len(latest) == stop - first:  # told by names alone: most groups need not be read
                self._write_ledger(group, [latest[block][1] for block in sorted(latest)])
                written += 1
        return written

    def _write_ledger(self, group: int, names: list[str]) -> None:
        found: dict[int, BlockRecord] = {}
        self._read_records(found, names)
        lines = b"".join(_json(asdict(record)) for record in found.values())
        self.store.write(f"ledger/{group:06d}-{digest_of(lines)}.jsonl", lines)

    def _ledgers(self) -> dict[int, list[str]]:
        """Names of the ledgers of each group: two drivers may have written one each."""
        found: dict[int, list[str]] = {}
        for info in self.store.list("ledger/"):
            if match := LEDGER_NAME.fullmatch(info.name):
                found.setdefault(int(match[1]), []).append(info.name)
        return found

    def _from_ledgers(self, names: list[str]) -> dict[int, BlockRecord]:
        found: dict[int, BlockRecord] = {}
        for name, data in self.store.read_many(names):
            if f"-{digest_of(data)}." not in name:  # one that lost lines would hide blocks
                raise self._broken(name, OTHER_BYTES)
            for number, line in enumerate(data.splitlines(), 1):
                _add(found, self.parse_record(line, f"{name}:{number}"))
        return found

    def _add_records(self, found: dict[int, BlockRecord], folder: str) -> None:
        """Add what the done-records of a group say beyond `found`."""
        latest = sorted(self._latest(folder).items())
        self._read_records(
            found,
            [
                name
                for block, (attempt, name) in latest
                if block not in found or attempt > found[block].attempt
            ],
        )

    def _latest(self, folder: str) -> dict[int, tuple[int, str]]:
        """The latest attempt at each block of a group, and the name of its done-record."""
        latest: dict[int, tuple[int, str]] = {}
        for info in self.store.list(f"done/{folder}/"):
            if match := RECORD_NAME.fullmatch(info.name):
                block, attempt = int(match[2]), int(match[3])
                latest[block] = max(latest.get(block, (-1, "")), (attempt, info.name))
        return latest

    def _read_records(self, found: dict[int, BlockRecord], names: list[str]) -> None:
        for name, data in self.store.read_many(names):
            _add(found, self.parse_record(data, name))

    def parse_record(self, data: bytes, name: str) -> BlockRecord:
        """The record in a done-record, or in a line of a ledger (`name` is then ledger and line).

        Raises:
            BadInput: it is broken, or names what is not its own.
        """
        where = f"{self.store.uri}, {name}"
        try:
            record = convert(parse_json(data, where), BlockRecord, where)
        except BadInput as error:
            raise self._broken(name, str(error).removeprefix(f"{where}: ")) from error
        for kind, named in (("data", record.data), ("manifest", record.manifest)):
            match = OBJECT_NAME.fullmatch(named)
            if (named or kind == "manifest") and not (match and match[1] == kind):
                raise self._broken(name, f"{named!r} is no name of its {kind} object")
            if match and int(match[2]) != record.block:
                raise self._broken(name, f"it names {named}, of another block")
        if min(record.draws, *record.fates.values(), 0) < 0 or sum(record.fates.values()) != record.draws:
            raise self._broken(name, "its fates do not add up to its draws")
        own = record_name(record.block, record.attempt)
        if name != own and not name.startswith(f"ledger/{own.split('/')[1]}-"):
            raise self._broken(name, f"it is about attempt {record.attempt} of block {record.block}")
        return record

    def _broken(self, name: str, why: str) -> BadInput:
        return BadInput(
            f"{self.store.uri}, {name} is broken: {why}; `sar-eval synth verify --repair` removes it, and "
            "the same command as before then makes it again"
        )


def _add(found: dict[int, BlockRecord], record: BlockRecord) -> None:
    known = found.get(record.block)
    if known is None or record.attempt > known.attempt:
        found[record.block] = record


def group_folders(store: ObjectStore) -> dict[int, str]:
    """Folders of done-records by the number of their group; others are none of ours."""
    names = (name for name in store.folders("done") if _GROUP.fullmatch(name))
    return {int(name): name for name in names}


def record_name(block: int, attempt: int) -> str:
    """Where the done-record of an attempt at a block lies."""
    return f"done/{block // BLOCKS_PER_GROUP:06d}/{block:09d}-{attempt}.json"


def object_name(kind: str, block: int, data: bytes, suffix: str) -> str:
    """Where an object of a block lies; `kind` is "data" or "manifest"."""
    return f"{kind}/part-{block:09d}-{digest_of(data)}{suffix}"


def digest_of(data: bytes) -> str:
    """Digest of an object's bytes, as its name has it: 16 hex digits."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _json(value: Mapping[str, Json]) -> bytes:
    return (json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n").encode()
