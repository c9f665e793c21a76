"""The kept pictures of a set, wherever it is: what is committed, less what `synth dedup` removed.

A set that `synth repack` made has `repack.json` instead of blocks and done-records: it lists the objects,
and is written last, so that a set which has it is complete.
"""

from __future__ import annotations

import heapq
import io
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from sar_eval.documents import convert, parse_json
from sar_eval.errors import BadInput
from sar_eval.storage.image_set import REPACKED, SPEC, ImageSet
from sar_eval.storage.objects import ObjectMissing, ObjectStore, open_store
from sar_eval.storage.set_objects import object_errors, read_columns, read_data_object
from sar_eval.storage.set_rows import DataRow
from sar_eval.storage.webdataset_tar import read_tar_with_facts
from sar_eval.types import Json

REMOVED = "dedup/"  # objects with the keys of removed draws, ascending
REMOVAL = re.compile(rf"{REMOVED}[a-z]+-[0-9a-f]{{16}}\.parquet")  # what `synth dedup` calls them
Key = tuple[int, int]  # row of the prompt, index of the draw


@dataclass(frozen=True, slots=True)
class DataPart:
    """A data object: number (of its block, unless the set is repacked), name, bytes and rows."""

    number: int
    name: str
    size: int
    rows: int


@dataclass(frozen=True, slots=True)
class RepackedPart:
    """A data object of a repacked set."""

    name: str
    rows: int
    size: int


@dataclass(frozen=True, slots=True)
class Repacked:
    """What `repack.json` says.

    Attributes:
        spec: of the set that was repacked.
        source: digest of what it held then (see `SetReader.state`).
        rows, layout: how many rows an object has at most, and its layout.
        parts: the objects, in order.
        summary: figures and funnel of the set that was repacked, as its `funnel.json` has them.
    """

    spec: dict[str, Any]
    source: str
    rows: int
    layout: str
    parts: tuple[RepackedPart, ...]
    summary: dict[str, Any] = field(default_factory=dict)


def is_set(place: str | Path) -> bool:
    """Whether `train` should read this as a set: any URI, and a folder that has a set's first file."""
    return "://" in str(place) or any((Path(place) / name).is_file() for name in (SPEC, REPACKED))


class SetReader:
    """Reads the data objects of a set in order, each as a whole."""

    def __init__(self, store: ObjectStore) -> None:
        """Look at what there is.

        Raises:
            BadInput: there is no set.
        """
        self.store = store
        self.image_set = ImageSet(store)
        self.repacked = self._read_repacked()
        self.spec: Json = self.repacked.spec if self.repacked else self.image_set.spec()

    def _read_repacked(self) -> Repacked | None:
        if not self.store.exists(REPACKED):
            return None
        where = f"{self.store.uri}, {REPACKED}"
        return convert(parse_json(self.store.read(REPACKED), where), Repacked, where)

    @property
    def layout(self) -> str:
        """Of its data objects."""
        return self.repacked.layout if self.repacked else str(self.spec.get("layout", ""))

    def parts(self, first: int = 0) -> Iterator[DataPart]:
        """Data objects in order, from a number on; blocks of which nothing was kept have none."""
        if self.repacked:
            for number, part in enumerate(self.repacked.parts[first:], first):
                yield DataPart(number, part.name, part.size, part.rows)
            return
        for record in self.image_set.records():
            if record.data and record.block >= first:
                kept = record.fates.get("kept", 0)
                yield DataPart(record.block, record.data, record.data_bytes, kept)

    def removed(self) -> Iterator[Key]:
        """Keys of removed draws, ascending; some may come twice."""
        names = [info.name for info in self.store.list(REMOVED) if REMOVAL.fullmatch(info.name)]
        return heapq.merge(*(self._keys(name) for name in names))

    def _keys(self, name: str) -> Iterator[Key]:
        with (
            object_errors(self.store.where(name)),
            self.store.open(name) as opened,
            pq.ParquetFile(opened) as file,
        ):
            for batch in file.iter_batches(columns=["row", "index"], use_threads=False):
                yield from zip(batch["row"].to_pylist(), batch["index"].to_pylist(), strict=True)

    def rows(self, first: int = 0) -> Iterator[tuple[DataPart, int, DataRow]]:
        """Each kept row with its data object and its place in that, from an object on.

        Raises:
            BadInput: an object is missing or damaged.
        """
        removals = _Removals(self.removed())
        for part in self.parts(first):
            suffix = PurePosixPath(part.name).suffix
            with self.open_part(part) as file:
                for position, row in enumerate(read_data_object(file, suffix, self.store.where(part.name))):
                    if not removals.has((row.row, row.index)):
                        yield part, position, row

    def tables(self, columns: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
        """Some columns of each data object, with its name for messages.

        Raises:
            BadInput: an object is missing or damaged, or lacks a column.
        """
        removals = _Removals(self.removed())
        for part in self.parts():
            where = self.store.where(part.name)
            table = self._table(part, columns, where)
            keys = zip(table["row"].to_pylist(), table["index"].to_pylist(), strict=True)
            kept = pa.array([not removals.has(key) for key in keys], pa.bool_())
            yield where, table.select(columns).filter(kept)

    def _table(self, part: DataPart, columns: Sequence[str], where: str) -> pa.Table:
        names = [*columns, *(name for name in ("row", "index") if name not in columns)]
        with self.open_part(part) as file:
            if part.name.endswith(".tar"):
                return tar_table(read_data_object(file, ".tar", where), names)
            return read_columns(file, names, where, _keep)

    def metadata(self) -> dict[str, str]:
        """What the first data object says of itself, which all of them do; empty without objects.

        Raises:
            BadInput: it is missing or damaged.
        """
        part = next(self.parts(), None)
        if part is None:
            return {}
        with self.open_part(part) as file:
            return _metadata(file, self.store.where(part.name))

    def _found(self, part: DataPart) -> BinaryIO:
        try:
            return self.store.open(part.name)
        except ObjectMissing as error:
            raise BadInput(f"{error}: `sar-eval synth verify` looks at all objects") from error

    @contextmanager
    def open_part(self, part: DataPart) -> Iterator[BinaryIO]:
        """A data object, if it has its size: a tar may be cut off where nothing shows.

        Raises:
            BadInput: it is missing, or has another size.
        """
        with self._found(part) as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            if size != part.size:
                raise BadInput(
                    f"{self.store.where(part.name)} has {size} bytes, not {part.size}: "
                    "`sar-eval synth verify` looks at all objects"
                )
            yield file


def _metadata(file: BinaryIO, where: str) -> dict[str, str]:
    """What a data object says of itself."""
    with object_errors(where):
        if where.endswith(".tar"):
            return dict(next(read_tar_with_facts(file, where))[0].made_with)
        raw = pq.read_schema(file).metadata or {}
        return {key.decode(): value.decode() for key, value in raw.items()}


def spec_of_blocks(image_set: ImageSet) -> str:
    """Digest of the spec that the committed blocks were drawn with; "" if none of them has data.

    Raises:
        BadInput: a record or the object is broken.
    """
    name = next((record.data for record in image_set.records() if record.data), "")
    if not name:
        return ""
    with image_set.store.open(name) as file:
        return _metadata(file, image_set.store.where(name)).get("sar_eval_spec", "")


class _Removals:
    """Whether keys are among removed ones, if both are asked and given in ascending order."""

    def __init__(self, removed: Iterator[Key]) -> None:
        self._removed = removed
        self._next = next(removed, None)

    def has(self, key: Key) -> bool:
        while self._next is not None and self._next < key:
            self._next = next(self._removed, None)
        return self._next == key


def tar_table(rows: Iterable[DataRow], names: Sequence[str]) -> pa.Table:
    """Some fields of rows, as columns."""
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for row in rows:
        for name in names:
            value = getattr(row, name)
            as_struct = name == "image" and value is not None
            columns[name].append({"bytes": value, "path": None} if as_struct else value)
    return pa.table(columns)


def _keep(missing: Collection[str]) -> str:
    needed = [kind for name, kind in (("tokens", "tokens"), ("image", "pixels")) if name in missing]
    return f": make the set with --keep {needed[0]} or both" if needed else ""


def open_set(place: str | Path) -> SetReader:
    """The set at a folder or URI.

    Raises:
        BadInput: there is none.
    """
    return SetReader(open_store(place))
