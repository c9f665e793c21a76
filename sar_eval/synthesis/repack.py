"""A set with data objects of even size, without the rows that `synth dedup` removed, in either layout.

Objects are cut by rows and bytes in the order of the set, so their bytes are a function of the source and
the options. A note on each finished object says where the next begins: after a stop, the same command goes
on there. `repack.json` is written last and lists all; until then nobody takes the folder for a set.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

from sar_eval.documents import convert, parse_json
from sar_eval.errors import BadInput
from sar_eval.storage.image_set import REPACKED, SPEC, object_name
from sar_eval.storage.objects import ObjectStore
from sar_eval.storage.set_objects import data_object
from sar_eval.storage.set_reader import REMOVED, Repacked, RepackedPart, SetReader
from sar_eval.storage.set_rows import DataRow
from sar_eval.synthesis.card import README
from sar_eval.synthesis.summary import SetSummary, summarise

BEGUN = "repack/begun.json"
_NOTE = re.compile(r"repack/(\d{9,})\.json")
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class RepackOptions:
    """How a set is repacked.

    Attributes:
        rows: of an object at most.
        layout: "parquet" or "webdataset".
        mib: an object ends before its pictures and codes are larger.
    """

    rows: int
    layout: str
    mib: int = 512


@dataclass(frozen=True, slots=True)
class _Note:
    """A finished object, and the place in the source of the first row after it."""

    part: RepackedPart
    block: int
    position: int


def repack(
    source: SetReader,
    out: ObjectStore,
    options: RepackOptions,
    progress: Callable[[int], None] = lambda rows: None,
) -> Repacked:
    """Write the set that `source` holds to `out`; what an interrupted call wrote there is used.

    `progress` is called with the number of rows that are written.

    Raises:
        BadInput: the source is not complete; `out` holds another set, or one begun otherwise.
        StorageFailed: `out` cannot be written.
    """
    summary = _complete(source)
    state = state_of(source, options)
    _begin(out, state)
    if out.exists(REPACKED):
        return _read_repacked(out)
    notes = _notes(out)
    metadata, measures = source.metadata(), [m.name for m in summary.spec.selection.measures]
    done = sum(note.part.rows for note in notes)
    progress(done)
    after = notes[-1] if notes else None
    for rows, following in _groups(_rows_after(source, after), options):
        data, suffix = data_object(rows, options.layout, _own(metadata), measures)
        name = object_name("data", len(notes), data, suffix)
        note = _Note(RepackedPart(name, len(rows), len(data)), *following)
        out.write(name, data)
        out.write(f"repack/{len(notes):09d}.json", _json(asdict(note)))
        notes.append(note)
        done += len(rows)
        progress(done)
    return _finish(out, summary, state, options, notes)


def _complete(source: SetReader) -> SetSummary:
    summary = summarise(source)
    left = 0 if source.repacked else summary.spec.blocks - summary.figures.blocks
    if left:
        raise BadInput(
            f"{left:,} of {summary.spec.blocks:,} blocks of {source.store.uri} are not drawn yet: finish "
            "the set first (`sar-eval synth` again)"
        )
    return summary


def state_of(source: SetReader, options: RepackOptions) -> str:
    """Digest of what a set holds now and how it is repacked: 16 hex digits."""
    found = hashlib.blake2b(json.dumps(asdict(options), sort_keys=True).encode(), digest_size=8)
    for part in source.parts():
        found.update(part.name.encode() + b"\0")
    for info in source.store.list(REMOVED):
        found.update(info.name.encode() + b"\0")
    return found.hexdigest()


def _begin(out: ObjectStore, state: str) -> None:
    if out.exists(SPEC):
        raise BadInput(f"{out.uri} holds a set that was drawn there: name another --out")
    if out.exists(README) and not out.exists(BEGUN):
        raise BadInput(f"{out.uri} holds a {README} of something else: name another --out")
    out.create(BEGUN, _json({"state": state}))
    found = parse_json(out.read(BEGUN), f"{out.uri}, {BEGUN}")
    if found != {"state": state}:
        raise BadInput(
            f"{out.uri} was begun with another set, other options, or before the set changed: name "
            "another --out"
        )


def _notes(out: ObjectStore) -> list[_Note]:
    """Of the objects that are finished, without a gap."""
    names = [info.name for info in out.list("repack/") if _NOTE.fullmatch(info.name)]
    found = [
        convert(parse_json(data, name), _Note, f"{out.uri}, {name}") for name, data in out.read_many(names)
    ]
    numbers = [int(match[1]) for name in names if (match := _NOTE.fullmatch(name))]
    return [
        note for place, (number, note) in enumerate(zip(numbers, found, strict=True)) if number == place
    ]


Place = tuple[int, int]  # number of a data object, and of a row in it


def _rows_after(source: SetReader, after: _Note | None) -> Iterator[tuple[Place, DataRow]]:
    start = (after.block, after.position) if after else (0, 0)
    for part, position, row in source.rows(start[0]):
        if (place := (part.number, position)) >= start:
            yield place, row


def _groups(
    rows: Iterator[tuple[Place, DataRow]], options: RepackOptions
) -> Iterator[tuple[list[DataRow], Place]]:
    """Rows of an object, and the place of the row after the last of them."""
    group, size, end = list[DataRow](), 0, (0, 0)
    for place, row in rows:
        length = len(row.image or b"") + 2 * len(row.tokens or ())
        if group and (len(group) == options.rows or size + length > options.mib * MIB):
            yield group, place
            group, size = [], 0
        group.append(row)
        size, end = size + length, (place[0], place[1] + 1)
    if group:
        yield group, end


def _own(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata of the source's objects without what `data_object` puts there itself."""
    return {
        name: value
        for name, value in metadata.items()
        if name in ("sar_eval_spec", "codebook_size", "encoder")
    }


def _finish(
    out: ObjectStore, summary: SetSummary, state: str, options: RepackOptions, notes: list[_Note]
) -> Repacked:
    """Write `repack.json`, then remove what only an interrupted call needs."""
    parts = tuple(note.part for note in notes)
    found = Repacked(summary.spec.to_json(), state, options.rows, options.layout, parts, summary.to_json())
    out.write(REPACKED, _json(asdict(found)))
    out.delete([info.name for info in out.list("repack/") if _NOTE.fullmatch(info.name)])
    return found


def _read_repacked(out: ObjectStore) -> Repacked:
    found = SetReader(out).repacked
    assert found is not None
    return found


def _json(value: object) -> bytes:
    return (json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n").encode()
