"""Picture files of a folder, with captions in `NAME.txt` beside `NAME.jpg` or in a table of captions."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.images.files import MAX_BYTES, SUFFIXES
from sar_eval.storage.local_objects import LocalStore
from sar_eval.storage.objects import READERS, ObjectInfo, ObjectMissing, ObjectStore
from sar_eval.storage.token_folder import Rejected, Unit
from sar_eval.tables import read_rows
from sar_eval.tokenization.options import TokenizeOptions
from sar_eval.tokenization.reasons import Refused
from sar_eval.tokenization.sources.source import MAX_TEXT, Found, SourcePicture, check_named, safe_key

# Tables of captions: what `datasets` calls them, and what people do.
TABLES = tuple(
    f"{name}.{suffix}" for name in ("metadata", "captions") for suffix in ("jsonl", "csv", "tsv")
)
TABLE_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
FILE_COLUMNS = ("file_name", "file", "filename", "image", "path")
CAPTION_COLUMNS = ("caption", "captions", "text", "prompt")
SIDECAR = ".txt"
# Of pictures that are not read, and counted as such.
OTHER_PICTURES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe", ".jxl", ".pbm", ".pgm"),
    *(".pjpeg", ".pnm", ".ppm", ".psd", ".svg", ".tga", ".tif", ".tiff"),
)


@dataclass(frozen=True, slots=True)
class PictureSource:
    """Files of one place; see `Source`.

    Attributes:
        table: name of its table of captions; "" without one.
        notes: what is assumed of this table is appended while it is read.
        only: the file that was named: a table, whose rows are wanted, or a picture; "" for all pictures.
    """

    number: int
    name: str
    store: ObjectStore
    files: Mapping[str, ObjectInfo]
    table: str
    options: TokenizeOptions
    notes: list[str]
    only: str = ""

    def units(self) -> Iterator[Unit]:
        """One for each picture, by name; with a table those of its rows, then those that it has not."""
        units = self._listed() if self.table else self._beside()
        return (unit for unit in units if self.only in ("", self.table, unit.path))

    def without_listing(self) -> PictureSource:
        """See `Source`."""
        return replace(self, files={}, notes=[])

    def read(self, units: Sequence[Unit]) -> Iterator[Found]:
        """Pictures in order; `READERS` files are on their way at a time."""
        waiting: deque[Future[Found]] = deque()
        with ThreadPoolExecutor(READERS, thread_name_prefix="picture") as pool:
            for unit in units:
                waiting.append(pool.submit(self._picture, unit))
                if len(waiting) > READERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _picture(self, unit: Unit) -> Found:
        key = safe_key(self.name, unit.path)
        try:
            self._check(unit)
            captions = unit.captions if unit.captions is not None else self._sidecar(unit)
            return SourcePicture(key, self.store.read(unit.path), captions)
        except Refused as refused:
            return Rejected(key, refused.reason, refused.detail)
        except ObjectMissing as error:
            return Rejected(key, "missing", str(error))

    def _check(self, unit: Unit) -> None:
        """What the listing says already; raises Refused."""
        if unit.size < 0:
            raise Refused("missing", f"named by {self.table}")
        if not is_picture(unit.path):
            suffix = PurePosixPath(unit.path).suffix or "a name without suffix"
            raise Refused("unreadable", f"{suffix}: only {', '.join(SUFFIXES)} are read")
        if self.table and not unit.captions:
            raise Refused("no_caption", f"{self.table} has none")
        if unit.sidecar_size > MAX_TEXT:
            raise Refused("no_caption", f"{unit.sidecar} has more than {MAX_TEXT:,} bytes")
        if unit.size > MAX_BYTES:
            raise Refused("unreadable", f"{unit.size:,} bytes: more than {MAX_BYTES:,} are not read")

    def _sidecar(self, unit: Unit) -> Sequence[str]:
        """The text beside a picture; raises Refused if it is none."""
        if unit.sidecar is None:
            return ()
        try:
            return (self.store.read(unit.sidecar).decode("utf-8-sig"),)
        except UnicodeDecodeError as error:
            raise Refused("no_caption", f"{unit.sidecar} is no UTF-8 (byte {error.start})") from error

    def _beside(self) -> Iterator[Unit]:
        if self.options.caption_columns:
            raise BadInput(
                f"--caption-column: {self.store.uri} has no table of captions ({', '.join(TABLES[:2])}); "
                f"captions beside pictures are NAME{SIDECAR}"
            )
        for name in self._pictures():
            sidecar = self.files.get(str(PurePosixPath(name).with_suffix(SIDECAR)))
            unit = Unit(self.number, name, self.files[name].size, rows=1)
            yield replace(unit, sidecar=sidecar.name, sidecar_size=sidecar.size) if sidecar else unit

    def _pictures(self) -> Iterator[str]:
        """Files that are called pictures, those of formats that are not read too: they are counted."""
        return (name for name in self.files if name.lower().endswith((*SUFFIXES, *OTHER_PICTURES)))

    def _listed(self) -> Iterator[Unit]:
        """Several rows of one picture are its captions, together."""
        folder = PurePosixPath(self.table).parent
        found: dict[str, list[str]] = {}
        columns: set[str] = set()
        for number, row in self._table_rows():
            columns.update(row)
            where = f"{self.store.where(self.table)}:{number}"
            name = str(folder / _file_name(row, where))
            found.setdefault(name, []).extend(self._texts(row, where))
        check_named(self.options.caption_columns, columns, self.store.where(self.table))
        for name, texts in found.items():
            info = self.files.get(name)
            yield Unit(self.number, name, info.size if info else -1, rows=1, captions=tuple(texts))
        for name in self._pictures():
            if name not in found and self.only != self.table:
                yield Unit(self.number, name, self.files[name].size, rows=1, captions=())

    def _table_rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Rows of the table; of one that is in a bucket a copy is read, and messages name the table."""
        if isinstance(self.store, LocalStore):
            yield from read_rows(self.store.folder / self.table, notes=self.notes)
            return
        with tempfile.TemporaryDirectory() as folder:
            path, notes = Path(folder) / PurePosixPath(self.table).name, list[str]()
            path.write_bytes(self.store.read(self.table))
            try:
                yield from read_rows(path, notes=notes)
            except BadInput as error:
                raise BadInput(self._named(str(error), path)) from error
            finally:
                self.notes.extend(self._named(note, path) for note in notes)

    def _named(self, text: str, copy: Path) -> str:
        return text.replace(str(copy), self.store.where(self.table))

    def _texts(self, row: Mapping[str, Any], where: str) -> Iterator[str]:
        names = self.options.caption_columns or [name for name in CAPTION_COLUMNS if name in row][:1]
        for name in names:
            if name not in row and self.table.endswith("sonl"):  # cells of CSV are left out where empty
                raise BadInput(
                    f"{where}: no column {name!r}; the columns are {', '.join(map(shorten, row))}"
                )
            cell = row.get(name)
            yield from (
                text for text in (cell if isinstance(cell, list) else [cell]) if isinstance(text, str)
            )


def is_picture(name: str) -> bool:
    """Whether a file has the suffix of a picture that is read."""
    return name.lower().endswith(SUFFIXES)


def _file_name(row: Mapping[str, Any], where: str) -> str:
    name = next((row[column] for column in FILE_COLUMNS if column in row), None)
    if not isinstance(name, str) or not name:
        raise BadInput(
            f"{where}: no column of a file ({', '.join(FILE_COLUMNS)}); the columns are "
            f"{', '.join(map(shorten, row))}"
        )
    return name
