"""The page's data: calls of one JavaScript function, inside the page or in files beside it.

A page opened from disk may not fetch anything, but its own script may add script elements. So each file is
a list of calls `reportData(stamp, file, kind, first, payload)`, and the page takes no other. Payloads are
lists, numbers and text, and objects with keys of our own only: a literal in JavaScript gives a key
`__proto__` another meaning than JSON. What judges write is JSON inside a text, which the page parses.
"""

from __future__ import annotations

import base64
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import msgspec
import numpy as np

from sar_eval.report.data import SCORED, RunRows, VerdictRows
from sar_eval.report.pictures import Picture
from sar_eval.storage.files import storage_errors
from sar_eval.types import Json, draw_seed

ROWS_PER_FILE = 500
ROWS_HELD = 10_000  # verdicts held before they are written: memory does not depend on the order of parts
Call = tuple[str, int, Json]  # kind, first row (or prompt), payload
_ENCODER = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))
# As jinja's `tojson` does: no text can end a script element or open a comment in it.
_ESCAPES = [("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("'", "\\u0027")]


@dataclass(slots=True)
class PageData:
    """The calls, held for the page up to `limit` characters in all; beyond that, written to files.

    Attributes:
        folder: for the files.
        limit: characters of data, pictures included, that are embedded; negative for none.
        stamp: the same in page and files: files of another report are not taken.
        beside: whether the data is in files.
        names: of the files written.
    """

    folder: Path
    limit: int
    stamp: str = field(default_factory=lambda: f"{time.time_ns():x}")
    beside: bool = False
    names: set[str] = field(default_factory=set)
    _held: list[tuple[str, str]] = field(default_factory=list)
    _size: int = 0

    def __post_init__(self) -> None:
        if self.limit < 0:
            self.put_beside()

    def add(self, file: str, *calls: Call) -> None:
        """Add calls to the end of a file.

        Raises:
            StorageFailed: the file cannot be written.
        """
        texts = [encode([self.stamp, file, *call]) for call in calls]
        if self.beside:
            self._append(file, texts)
            return
        self._size += sum(map(len, texts))
        self._held += [(file, text) for text in texts]
        if self._size > self.limit:
            self.put_beside()

    def put_beside(self) -> None:
        """Write to files, from now on and what is held so far."""
        self.beside = True
        for file, call in self._held:
            self._append(file, [call])
        self._held.clear()

    def embed(self) -> None:
        """Embed all calls, from now on and what is held so far."""
        self.limit = sys.maxsize

    def room(self) -> int:
        """Characters that may still be embedded."""
        return 0 if self.beside else self.limit - self._size

    def embedded(self) -> str:
        """What the page has inside: its stamp and all calls, or the folder where they are."""
        calls = ",".join(call for _, call in self._held)
        folder = encode(quote(self.folder.name) if self.beside else "")
        return f'{{"stamp":{encode(self.stamp)},"folder":{folder},"calls":[{calls}]}}'

    def _append(self, file: str, calls: list[str]) -> None:
        name = f"{file}.js"
        with storage_errors(self.folder / name):
            self.folder.mkdir(parents=True, exist_ok=True)
            # Not synced: a page is of use only with its own files, and is written after all of them.
            with (self.folder / name).open("a" if name in self.names else "w", encoding="ascii") as opened:
                opened.writelines(f"reportData(...{call});\n" for call in calls)
        self.names.add(name)


def encode(value: Json) -> str:
    """A value as ASCII JSON that is the same as a JavaScript literal and harmless inside HTML."""
    text = msgspec.json.encode(value).decode()  # several times as fast, but not always ASCII
    if not text.isascii():
        text = _ENCODER.encode(value)
    for character, escape in _ESCAPES:
        text = text.replace(character, escape)
    return text


class RowCalls:
    """A run's rows on their way to the page's data, in files of `ROWS_PER_FILE`; `finish` ends it.

    On a page of several runs the names of each one's files have a prefix.
    """

    def __init__(self, data: PageData, rows: RunRows, run_seed: int, prefix: str = "") -> None:
        self.data, self.rows, self.run_seed, self.prefix = data, rows, run_seed, prefix
        self._lines: dict[int, list[Json]] = defaultdict(list)  # verdicts by file
        self._evidence: dict[int, list[Json]] = defaultdict(list)
        self._held = 0
        self._begun: set[int] = set()  # files that have their prompts and generations

    def add(self, verdicts: VerdictRows) -> None:
        """Add the verdicts of a part."""
        columns = zip(verdicts.numbers, verdicts.scores, verdicts.reasons, verdicts.problems, strict=True)
        for line in columns:
            self._lines[line[0] // ROWS_PER_FILE].append(line)
        for number, evidence in zip(verdicts.numbers, verdicts.evidence, strict=True):
            if evidence:
                self._evidence[number // ROWS_PER_FILE].append((number, evidence))
        self._held += len(verdicts.numbers)
        if self._held >= ROWS_HELD:
            self._flush()

    def finish(self) -> None:
        """Add what is held, and the rows without a verdict."""
        self._flush()
        for file in range(-(-len(self.rows) // ROWS_PER_FILE)):
            if file not in self._begun:
                self._add_file(file)

    def _flush(self) -> None:
        for file in sorted(self._lines):
            self._add_file(file)
        self._lines.clear()
        self._evidence.clear()
        self._held = 0

    def _add_file(self, file: int) -> None:
        start = file * ROWS_PER_FILE
        lines, details = [], []
        if file not in self._begun:
            self._begun.add(file)
            span = range(start, min(start + ROWS_PER_FILE, len(self.rows)))
            lines, details = _row_calls(self.rows, span), _detail_calls(self.rows, span, self.run_seed)
        if found := self._lines.get(file):
            lines.append(("verdicts", start, found))
        if evidence := self._evidence.get(file):
            details.append(("evidence", start, evidence))
        self.data.add(f"{self.prefix}rows-{file:06d}", *lines)
        if details:
            self.data.add(f"{self.prefix}details-{file:06d}", *details)


def _row_calls(rows: RunRows, span: range) -> list[Call]:
    """What cards show of prompts and generations."""
    first, last = span.start // rows.k, span[-1] // rows.k
    prompts = [*zip(rows.ids[first : last + 1], rows.texts[first : last + 1], strict=True)]
    calls: list[Call] = [("prompts", first, prompts)]
    without = np.flatnonzero(~rows.stored[span.start : span.stop]) + span.start
    if problems := [(n, rows.problems[n]) for n in without.tolist() if n in rows.problems]:
        calls.append(("problems", span.start, problems))
    return calls


def _detail_calls(rows: RunRows, span: range, run_seed: int) -> list[Call]:
    """What the large view shows besides."""
    # Seeds as text: JavaScript would round their 63 bits.
    seeds = [str(draw_seed(run_seed, rows.ids[n // rows.k], n % rows.k)) for n in span]
    seconds = rows.seconds[span.start : span.stop].tolist()
    tokens = rows.tokens_out_of_range[span.start : span.stop].tolist()
    shown = [None if math.isnan(value) else round(value, 4) for value in seconds]
    calls: list[Call] = [("details", span.start, [*zip(seeds, shown, tokens, strict=True)])]
    prompts = range(span.start // rows.k, span[-1] // rows.k + 1)
    if checks := [(prompt, rows.checks[prompt]) for prompt in prompts if prompt in rows.checks]:
        calls.append(("checks", span.start, checks))
    return calls


def add_index(
    data: PageData,
    rows: RunRows,
    pictures: dict[int, Picture],
    is_judged: bool,
    *,
    prefix: str = "",
    with_scores: bool = False,
    scorers: Sequence[Json] = (),
) -> None:
    """What filters need of every row, and the pictures: always loaded with the page.

    `with_scores` adds those of judges that only score, for a page that sorts by them; `scorers` are what
    scorers say beside the verdicts (see `scorers.ScorerColumn`).
    """
    # One byte a row: its state, whether it was generated, and whether it has an image.
    bits = rows.states | (rows.part >= 0).astype(np.uint8) << 6 | rows.stored.astype(np.uint8) << 7
    index = {
        "rows": len(rows),
        "imagesPerPrompt": rows.k,
        "rowsPerFile": ROWS_PER_FILE,
        "isJudged": is_judged,
        "taskNames": rows.tasks,
        "splitNames": rows.splits,
        "states": _base64(bits),
        "tasks": _base64(rows.task_codes.astype("<u2")) if rows.tasks else "",
        "splits": _base64(rows.split_codes.astype("<u2")) if rows.splits else "",
        "scores": _base64(rows.scores.astype("<f4"))
        if with_scores and (rows.states == SCORED).any()
        else "",
        "scorers": [*scorers],
        "pictures": [picture.to_json(number) for number, picture in sorted(pictures.items())],
    }
    data.add(f"{prefix}index", ("index", 0, index))


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()
