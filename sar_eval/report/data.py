"""What the page needs of a run folder, read by column: no row dictionaries, and no picture before it is shown.

The only file of this room that reads the run folder's tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from sar_eval.errors import BadInput
from sar_eval.spec import RunSpec
from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import SAFE_ID

PASS, FAIL, SCORED, NONE = range(4)  # a row's state: the order of STATES in report.js
NAMES_LISTED = 1000  # tasks, and splits, that the page's filters offer
TEXT_LIMIT = 1_000_000  # characters of a text (evidence, prompt, reason) that the page takes


@dataclass(slots=True)
class VerdictRows:
    """Verdicts of some rows: parallel lists, evidence as the stored JSON text."""

    numbers: list[int]
    scores: list[float | None]
    reasons: list[str]
    problems: list[str | None]
    evidence: list[str]


@dataclass
class RunRows:
    """Every expected draw of a run as columns, in suite order: row n is image n % k of prompt n // k.

    Attributes:
        ids, texts: of the prompts.
        tasks, splits: names that occur, most of `NAMES_LISTED` of each.
        task_codes, split_codes: per prompt, 0 for none (or one that is not listed), else 1 + its position.
        checks: JSON text of the checks of prompts with questions, by prompt number.
        k: images per prompt.
        states: `PASS`, `FAIL`, `SCORED` or `NONE`, by row.
        scores: by row; NaN without a score.
        stored: rows with an image.
        seconds, tokens_out_of_range: of the generation, by row; NaN and 0 without.
        part, position: where the generation is stored, by row; -1 where it is not.
        problems: why there is no image, by row number.
    """

    ids: list[str]
    texts: list[str]
    tasks: list[str]
    splits: list[str]
    task_codes: np.ndarray
    split_codes: np.ndarray
    checks: dict[int, str]
    k: int
    problems: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        total = len(self)
        self.states = np.full(total, NONE, np.uint8)
        self.scores = np.full(total, np.nan, np.float32)
        self.seconds = np.full(total, np.nan, np.float32)
        self.tokens_out_of_range = np.zeros(total, np.int64)
        self.stored = np.zeros(total, bool)
        self.part = np.full(total, -1, np.int32)
        self.position = np.full(total, -1, np.int32)
        self._next = 0

    def __len__(self) -> int:
        return len(self.ids) * self.k

    def key(self, number: int) -> str:
        """Prompt id, slash, index."""
        return f"{self.ids[number // self.k]}/{number % self.k}"

    @cached_property
    def _prompt_numbers(self) -> dict[str, int]:
        return {prompt_id: number for number, prompt_id in enumerate(self.ids)}

    def number(self, key: str) -> int | None:
        """The row of a key, or None if the run expects no such draw."""
        prompt_id, _, index = key.rpartition("/")
        number = self._prompt_numbers.get(prompt_id)
        canonical = index.isascii() and index.isdigit() and str(int(index)) == index
        if number is None or not canonical or int(index) >= self.k:
            return None
        return number * self.k + int(index)

    def numbers(self, keys: Iterable[str]) -> list[int | None]:
        """The rows of keys. Parts are in suite order, so that each key's row mostly follows the last one's."""
        found: list[int | None] = []
        ids, k, total, following = self.ids, self.k, len(self), self._next
        for key in keys:
            number: int | None = following
            if following >= total or f"{ids[following // k]}/{following % k}" != key:
                number = self.number(key)
            following = following if number is None else number + 1
            found.append(number)
        self._next = following
        return found


def read_rows(spec: RunSpec, folder: RunFolder) -> RunRows:
    """Prompts and generations of a run, without their pictures.

    Raises:
        BadInput: a stored part cannot be read, or a prompt's id is not safe as a file name.
    """
    rows = _read_prompts(spec, folder)
    names = ["key", "elapsed_s", "out_of_range_tokens", "error"]
    for part, columns in enumerate(folder.generations.columns(names)):
        numbers = rows.numbers(columns["key"])
        known = [position for position, number in enumerate(numbers) if number is not None]
        at = np.array([numbers[position] for position in known], np.int64)
        rows.part[at], rows.position[at] = part, known
        rows.seconds[at] = [_finite(columns["elapsed_s"][p]) for p in known]
        rows.tokens_out_of_range[at] = [columns["out_of_range_tokens"][p] or 0 for p in known]
        errors = [columns["error"][p] for p in known]
        rows.stored[at] = [error is None for error in errors]
        rows.problems.update((int(n), shorten(e)) for n, e in zip(at, errors, strict=True) if e is not None)
    return rows


def read_verdicts(spec: RunSpec, folder: RunFolder, rows: RunRows, versions: set[str]) -> Iterator[VerdictRows]:
    """The verdicts part by part. States and scores of `rows`, and `versions` of the judge, are filled in.

    Raises:
        BadInput: a stored part cannot be read.
    """
    if not spec.judge:
        return
    names = ["key", "judge_version", "score", "passed", "reason", "evidence", "error"]
    for columns in folder.verdicts(spec.judge).columns(names):
        versions.update(filter(None, columns["judge_version"]))
        numbers = rows.numbers(columns["key"])
        if None in numbers:  # of draws that the run does not expect
            known = [position for position, number in enumerate(numbers) if number is not None]
            columns = {name: [values[p] for p in known] for name, values in columns.items()}
        at = [number for number in numbers if number is not None]
        scores = [value if value is None or math.isfinite(value) else None for value in columns["score"]]
        rows.scores[at] = [math.nan if score is None else score for score in scores]
        rows.states[at] = [*map(_state, columns["error"], columns["passed"], scores)]
        reasons = [shorten(reason or "") for reason in columns["reason"]]
        evidence = [shorten(text or "") for text in columns["evidence"]]
        yield VerdictRows(at, scores, reasons, columns["error"], evidence)


def read_images(folder: RunFolder, rows: RunRows, numbers: np.ndarray) -> Iterator[tuple[int, bytes | None]]:
    """Row number and encoded image of some rows, read part by part.

    Raises:
        BadInput: a stored part cannot be read.
    """
    table = folder.generations
    paths = table.paths()
    by_part = numbers[np.argsort(rows.part[numbers], kind="stable")]
    for group in np.split(by_part, np.flatnonzero(np.diff(rows.part[by_part])) + 1):
        if len(group):
            positions = rows.position[group].tolist()
            images = table.images_at(paths[rows.part[group[0]]], positions)
            yield from zip(group.tolist(), images, strict=True)


def shorten(text: str) -> str:
    """The text, or its beginning if it is longer than `TEXT_LIMIT`."""
    if len(text) <= TEXT_LIMIT:
        return text
    return f"{text[:10_000]}... (the first 10,000 of {len(text):,} characters)"


def _read_prompts(spec: RunSpec, folder: RunFolder) -> RunRows:
    columns = folder.prompt_columns()
    for prompt_id in columns["id"]:
        if not SAFE_ID.fullmatch(prompt_id or ""):
            raise BadInput(f"{folder.path / 'prompts.parquet'}: id {prompt_id!r} is not safe as a file name")
    tasks, task_codes = _codes(columns["tag"])
    splits, split_codes = _codes(columns["split"])
    checks = {n: shorten(text) for n, text in enumerate(columns["checks"]) if text and '"questions"' in text}
    texts = [shorten(text or "") for text in columns["text"]]
    return RunRows(
        columns["id"], texts, tasks, splits, task_codes, split_codes, checks, spec.images_per_prompt
    )


def _codes(names: Sequence[str | None]) -> tuple[list[str], np.ndarray]:
    """Names in the order of their first use, and the code of each prompt's name (see `RunRows`)."""
    listed = [name for name in dict.fromkeys(names) if name][:NAMES_LISTED]
    code = {name: number for number, name in enumerate(listed, 1)}
    return listed, np.array([code.get(name or "", 0) for name in names], np.uint16)


def _state(error: str | None, passed: bool | None, score: float | None) -> int:
    if error is None and passed is not None:
        return PASS if passed else FAIL
    return NONE if error is not None or score is None else SCORED


def _finite(value: Any) -> float:
    return value if value is not None and math.isfinite(value) else math.nan
