"""Prompts for mass synthesis, by row: any range of a file of any length, without the others.

Parquet files are read by row group, JSON Lines and plain lines (UTF-8) by an index of offsets. Other forms
that `suites.prompts` reads, the suites of benchmarks among them, are held as a whole, up to its limits.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from sar_eval.encodings import MARKS, OTHERS
from sar_eval.errors import BadInput, SpecMismatch
from sar_eval.options import check_name
from sar_eval.recipe import load_recipe, recipe_names
from sar_eval.storage.input_file import InputFile, input_file
from sar_eval.storage.line_index import BOM, LineIndex
from sar_eval.storage.prompt_source import FileFacts, pack_index, scan, unpack_index
from sar_eval.storage.row_groups import RowGroups, UnreadableRow
from sar_eval.suites.locate import missing_suite_hint
from sar_eval.suites.prompts import make_prompt
from sar_eval.suites.sources import Assumptions, Row, read_prompt_rows, wanted_columns
from sar_eval.synthesis.line_rows import LINE, LineRows
from sar_eval.types import Draw, Json, Prompt, draw_seed, suite_digest

LOOKED_AT = 1000  # prompts whose assumptions are told at the start
HEAD = 1 << 16  # bytes that show what a text file is
ROW = Path(LINE)
INDEX = "the index of the prompt file"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row of the prompt file without a usable prompt: all its draws fail, for this reason."""

    row: int
    why: str

    @property
    def id(self) -> str:
        """In place of its prompt's: its number, as of a prompt without an id."""
        return f"{self.row:05d}"


class PromptSource(Protocol):
    """Prompts by row, from 0. Each process opens its own, for one thread at a time."""

    uri: str

    def __len__(self) -> int: ...

    def prompts(self, start: int, stop: int) -> list[Prompt | BadRow]:
        """The rows from `start` up to `stop`, or to the end.

        Raises:
            BadInput: the file is damaged.
            SpecMismatch: it was written meanwhile.
        """
        ...

    def identity(self) -> dict[str, Json]:
        """What decides the prompts: `size` in bytes, `digest` and `rows`."""
        ...

    def index(self) -> bytes:
        """For `open_prompts` at later starts, which then read no whole file."""
        ...

    def notes(self) -> list[str]:
        """What was assumed about the file, for the user."""
        ...


def open_prompts(uri: str, index: bytes | None = None) -> PromptSource:
    """Open a prompt file, or the suite of a benchmark.

    Args:
        uri: of the file; or the name of a benchmark.
        index: what `PromptSource.index` gave at an earlier start. Without it, lines are indexed anew.

    Raises:
        BadInput: there is no such file, it has no prompts, or the index is damaged.
        SpecMismatch: the file is not the one that the index was made of.
    """
    place = _place(uri)
    is_folder = "://" not in place and Path(place).is_dir()
    source = ListedPrompts(uri, Path(place)) if is_folder else _open_file(uri, input_file(place), index)
    if isinstance(source, ListedPrompts) and index is not None:
        _check_same(source.facts(), _unpacked(index)[0], uri)
    if not len(source):
        raise BadInput(f"{uri} has no prompts")
    return source


def check_usable(source: PromptSource) -> None:
    """Refuse a file of whose first rows none is a prompt: that is a wrong file, not a bad row.

    Raises:
        BadInput: naming what is wrong with the first one.
    """
    found = source.prompts(0, LOOKED_AT)
    bad = [row for row in found if isinstance(row, BadRow)]
    if bad and len(bad) == len(found):
        first = (
            "its only row is no prompt"
            if len(bad) == 1
            else f"none of its first {len(bad):,} rows is a prompt"
        )
        raise BadInput(f"{source.uri}: {first}; row {bad[0].row}: {bad[0].why}")


def draws_of_row(row: int, prompt: Prompt, seed: int, indices: Iterable[int]) -> tuple[Draw, ...]:
    """Draws of a prompt, called ROW/INDEX: a file that nobody holds may have an id twice.

    Args:
        row: of the prompt in its file.
        prompt: as it is there; its own id decides the seeds, as everywhere.
        seed: of the set.
        indices: of the draws.
    """
    called = replace(prompt, id=str(row))
    return tuple(Draw(called, index, draw_seed(seed, prompt.id, index)) for index in indices)


def _place(uri: str) -> str:
    """Where the file is that is meant: a benchmark's name, where no file is called so, is its suite."""
    check_name(uri, "the prompt file")
    if not uri:
        raise BadInput("the prompt file has no name: give a file, or the name of a benchmark")
    if "://" in uri or Path(uri).exists() or uri not in recipe_names():
        return uri
    suite = load_recipe(uri).suite
    if suite is None:
        raise BadInput(f"the benchmark {uri} has no prompts of its own: name a prompt file")
    if hint := missing_suite_hint(suite):
        raise BadInput(hint)
    return str(suite)


def _open_file(uri: str, file: InputFile, index: bytes | None) -> FilePrompts | ListedPrompts:
    suffix = _form(file)
    is_table = suffix == ".parquet"
    if not is_table and not _has_plain_lines(file, suffix):
        with file.local_copy() as path:
            return ListedPrompts(uri, path, file)
    known = None if index is None else _known(uri, file, index)
    facts, lines = known or ((None, None) if is_table else _indexed(file))
    with ExitStack() as opened:
        data = opened.enter_context(file.open())
        rows = LineRows(data, lines, suffix) if lines and not is_table else _table_rows(data, uri)
        return FilePrompts(uri, file, rows, facts, lines, opened.pop_all())


def _form(file: InputFile) -> str:
    return Path(file.uri).suffix.lower()


def _table_rows(data: BinaryIO, uri: str) -> RowGroups:
    rows = RowGroups(data, name=uri)
    if len(rows):
        rows.columns = wanted_columns(rows.shape(), uri)
    return rows


def _has_plain_lines(file: InputFile, suffix: str) -> bool:
    """Whether a file's lines can be read one by one: no array, no object over lines, no other encoding."""
    if suffix not in (".jsonl", ".txt"):
        return False
    with file.open() as opened:
        head = opened.read(HEAD)
    text = head.removeprefix(BOM).lstrip()
    if any(text.lower().startswith(start.lower()) for start in OTHERS):
        return False
    if any(head.startswith(mark) for mark in MARKS if mark != BOM):
        return False
    return suffix == ".txt" or not (text.startswith(b"[") or text.split(b"\n", 1)[0].strip() == b"{")


def _known(uri: str, file: InputFile, index: bytes) -> tuple[FileFacts, LineIndex]:
    """The facts of an earlier start, if they are still true: the file is read only if it was written."""
    facts, lines = _unpacked(index)
    if (file.size, _form(file)) != (facts.size, facts.form) or (
        (file.stamp != facts.stamp or not facts.stamp) and scan(file, lines=False).digest != facts.digest
    ):
        raise _changed(uri, facts)
    return facts, lines


def _unpacked(index: bytes) -> tuple[FileFacts, LineIndex]:
    try:
        return unpack_index(index, INDEX)
    except BadInput as error:
        raise BadInput(
            f"{error}; `sar-eval synth verify SET --repair` removes it, and the command that began the set "
            "makes it anew"
        ) from error


def _check_same(found: FileFacts, facts: FileFacts, uri: str) -> None:
    if (found.size, found.digest, found.form) != (facts.size, facts.digest, facts.form):
        raise _changed(uri, facts)


def _changed(uri: str, facts: FileFacts) -> SpecMismatch:
    return SpecMismatch(
        f"{uri} is not the prompt file that the set was begun with ({facts.rows:,} prompts in "
        f"{facts.size:,} bytes, digest {facts.digest}): restore it, or make another set with --out"
    )


def _indexed(file: InputFile) -> tuple[FileFacts, LineIndex]:
    found = scan(file, lines=True)
    return FileFacts(file.size, found.digest, found.lines.rows, _form(file), file.stamp), found.lines


class Rows(Protocol):
    """Rows of a file, as columns by name."""

    def __len__(self) -> int: ...

    def rows(self, start: int, stop: int) -> Iterator[Row | UnreadableRow]:
        """Rows of a range."""
        ...


class FilePrompts:
    """Prompts of a file of which only the rows that are asked for are read."""

    def __init__(
        self,
        uri: str,
        file: InputFile,
        rows: Rows,
        facts: FileFacts | None,
        lines: LineIndex | None,
        opened: ExitStack,
    ) -> None:
        """Take a file's rows.

        Args:
            uri: as it was given.
            file: where the rows are.
            rows: of the file.
            facts: None to read the whole file when they are asked for.
            lines: the index, of a file of lines.
            opened: is closed when nobody holds this any more.
        """
        self.uri, self._file, self._rows, self._facts, self._lines = uri, file, rows, facts, lines
        weakref.finalize(self, opened.close)

    def __len__(self) -> int:
        return len(self._rows)

    def prompts(self, start: int, stop: int) -> list[Prompt | BadRow]:
        """The rows from `start` up to `stop`, or to the end.

        Raises:
            BadInput: the file is damaged.
            SpecMismatch: it was written meanwhile.
        """
        if not self._file.is_as_it_was():
            raise SpecMismatch(f"{self.uri} was written while it was read: restore it, then start again")
        rows = enumerate(self._rows.rows(start, stop), start)
        return list(_prompts(rows, Assumptions()))

    def facts(self) -> FileFacts:
        """What the file is; where that is not known, it is read as a whole."""
        if self._facts is None:
            digest = scan(self._file, lines=False).digest
            self._facts = FileFacts(self._file.size, digest, len(self), _form(self._file), self._file.stamp)
        return self._facts

    def identity(self) -> dict[str, Json]:
        """What decides the prompts: `size` in bytes, `digest` and `rows`."""
        return _identity(self.facts())

    def index(self) -> bytes:
        """For `open_prompts` at later starts."""
        return pack_index(self.facts(), self._lines)

    def notes(self) -> list[str]:
        """What was assumed about the first prompts."""
        assumed = Assumptions()
        list(_prompts(enumerate(self._rows.rows(0, LOOKED_AT)), assumed))
        return list(assumed.notes(Path(self.uri)))


class ListedPrompts:
    """Prompts of a file whose rows cannot be found without reading it: CSV, JSON, a folder of texts."""

    def __init__(self, uri: str, path: Path, file: InputFile | None = None) -> None:
        """Read them all.

        Raises:
            BadInput: the file or folder cannot be read, or has too many prompts.
        """
        self.uri, self._file, self._notes = uri, file, list[str]()
        assumed = Assumptions()
        try:
            rows = (row for _, row in read_prompt_rows(path, self._notes))
            self._prompts = list(_prompts(enumerate(rows), assumed))
        except BadInput as error:
            raise type(error)(str(error).replace(str(path), uri)) from error
        self._notes = [note.replace(str(path), uri) for note in (*self._notes, *assumed.notes(path))]

    def __len__(self) -> int:
        return len(self._prompts)

    def prompts(self, start: int, stop: int) -> list[Prompt | BadRow]:
        """The rows from `start` up to `stop`, or to the end."""
        return self._prompts[start:stop]

    def facts(self) -> FileFacts:
        """What the file is; the digest of a folder is that of its prompts."""
        if self._file is not None:
            digest = scan(self._file, lines=False).digest
            return FileFacts(self._file.size, digest, len(self), _form(self._file), self._file.stamp)
        usable = [prompt for prompt in self._prompts if isinstance(prompt, Prompt)]
        return FileFacts(sum(len(p.text.encode()) for p in usable), suite_digest(usable), len(self), "", "")

    def identity(self) -> dict[str, Json]:
        """What decides the prompts: `size` in bytes, `digest` and `rows`."""
        return _identity(self.facts())

    def index(self) -> bytes:
        """For `open_prompts` at later starts: they read the file, and refuse another one."""
        return pack_index(self.facts())

    def notes(self) -> list[str]:
        """What was assumed about the file."""
        return self._notes


def _identity(facts: FileFacts) -> dict[str, Json]:
    return {"size": facts.size, "digest": facts.digest, "rows": facts.rows}


def _prompts(
    rows: Iterable[tuple[int, Row | UnreadableRow]], assumed: Assumptions
) -> Iterator[Prompt | BadRow]:
    for number, row in rows:
        if isinstance(row, UnreadableRow):
            yield BadRow(number, row.why)
            continue
        try:
            yield make_prompt(row, number, ROW, ROW, assumed)
        except BadInput as error:
            yield BadRow(number, str(error).removeprefix(f"{ROW}: "))
