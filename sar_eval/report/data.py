"""What the page needs of a run folder, by column: no row dictionaries, no picture before it is shown.

The only file of this room that reads the run folder's tables.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sar_eval.errors import BadInput
from sar_eval.spec import RunSpec
from sar_eval.storage.part_files import PartFile
from sar_eval.storage.parts import CHECKED_PARTS, Part, PartTable
from sar_eval.storage.run_folder import RunFolder

PASS, FAIL, SCORED, NONE = range(4)  # a row's state: the order of STATES in report.js
NAMES_LISTED = 1000  # tasks, and splits, that the page's filters offer
BATCH_ROWS = 4096
Batch = dict[str, list[Any]]  # columns
_VERDICT_COLUMNS = (
    "key",
    "judge_version",
    "score",
    "passed",
    "reason",
    "evidence",
    "error",
    "image_digest",
)
TEXT_LIMIT = 1_000_000  # characters of a text (evidence, prompt, reason) that the page takes


@dataclass(slots=True)
class VerdictRows:
    """Verdicts of some rows: parallel lists, evidence as the stored JSON text."""

    numbers: list[int]
    scores: list[float | None]
    reasons: list[str | None]
    evidence: list[str | None]
    problems: list[str | None]


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
        parts: of generations.
        part, position: where the generation is stored, by row: number of its part and of its row there; -1
            where it is not.
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
    parts: list[Path] = field(default_factory=list)

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
        """The rows of keys. Parts are in suite order, so a key's row mostly follows the last one's."""
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
    table = folder.generations
    parts = list(table.parts().values())
    rows.parts = [part.path for part in parts]
    # The rows of a few are read, so that a damaged part is named; those of a sequential run are elsewhere
    # than the number of their block says.
    many = len(parts) > CHECKED_PARTS and folder.read_manifest().order is None
    whole = [many and _fill_whole(rows, number, part, spec) for number, part in enumerate(parts)]
    others = [(number, part.path) for number, part in enumerate(parts) if not whole[number]]
    for batch in _batches(rows, table, others, _generations):
        at = np.array(batch["number"], np.int64)
        rows.part[at], rows.position[at] = batch["part"], batch["position"]
        rows.seconds[at] = [
            s if s is not None and math.isfinite(s) else math.nan for s in batch["elapsed_s"]
        ]
        rows.tokens_out_of_range[at] = [tokens or 0 for tokens in batch["out_of_range_tokens"]]
        rows.stored[at] = [error is None for error in batch["error"]]
        errors = zip(batch["number"], batch["error"], strict=True)
        rows.problems.update((number, shorten(error)) for number, error in errors if error is not None)
    return rows


def _fill_whole(rows: RunRows, number: int, part: Part, spec: RunSpec) -> bool:
    """Take the rows of a whole part from its footer; False if it is none, so that its rows are read."""
    facts, start = part.facts, part.block * spec.batch_size
    expected = min(spec.batch_size, len(rows) - start)
    if facts is None or facts.errors or facts.sums.get("out_of_range_tokens") != 0:
        return False
    if not facts.rows == len(facts.seconds) == expected:
        return False
    at = slice(start, start + expected)
    rows.part[at], rows.position[at], rows.stored[at] = number, np.arange(expected), True
    rows.seconds[at] = [math.nan if seconds is None else seconds for seconds in facts.seconds]
    return True


def read_verdicts(
    spec: RunSpec, folder: RunFolder, rows: RunRows, versions: set[str]
) -> Iterator[VerdictRows]:
    """The verdicts, some thousands at a time. States and scores of `rows`, and `versions`, are filled in.

    A verdict on no image, or on another than the one that is stored, is left out.

    Raises:
        BadInput: a stored part cannot be read.
    """
    if not spec.judge:
        return
    table = folder.verdicts(spec.verdict_table)
    images = _StoredImages(folder.generations, rows)
    for stored in _batches(rows, table, [*enumerate(table.current_paths())], images.verdicts):
        judged = zip(stored["number"], stored["image_digest"], strict=True)
        valid = [digest is True or images.hold(number, digest) for number, digest in judged]
        batch = _select(stored, np.array(valid, bool) & rows.stored[np.array(stored["number"], np.int64)])
        at = batch["number"]
        versions.update(filter(None, set(batch["judge_version"])))
        scores = [value if value is None or math.isfinite(value) else None for value in batch["score"]]
        rows.scores[at] = [math.nan if score is None else score for score in scores]
        rows.states[at] = [*map(_state, batch["error"], batch["passed"], scores)]
        reasons, evidence, problems = (
            [text and shorten(text) for text in batch[name]] for name in ("reason", "evidence", "error")
        )
        yield VerdictRows(at, scores, reasons, evidence, problems)


def _generations(part: PartFile) -> Batch:
    """The columns of a part of generations; from its footer what that says of all its rows."""
    facts, names = part.facts, ["key", "elapsed_s"]
    rest = {"out_of_range_tokens": 0, "error": None}
    if facts is None or facts.errors or facts.sums.get("out_of_range_tokens") != 0:
        return dict(part.read([*names, *rest]).to_pydict())
    columns: Batch = part.read(names).to_pydict()
    return columns | {name: [value] * len(columns["key"]) for name, value in rest.items()}


def _batches(
    rows: RunRows, table: PartTable, parts: Sequence[tuple[int, Path]], read: Callable[[PartFile], Batch]
) -> Iterator[Batch]:
    """What `read` gives for each of these parts, and of each row its `number`, `part` and `position`.

    A batch is of whole parts, together at least `BATCH_ROWS` rows: a step of its own for each small part
    would cost more than its rows. Draws that the run does not expect are left out.
    """
    batch: Batch = defaultdict(list)
    for number, path in parts:
        with table.open(path) as part:
            columns = read(part)
        for name, values in columns.items():
            batch[name] += values
        batch["part"] += [number] * len(columns["key"])
        batch["position"] += range(len(columns["key"]))
        if len(batch["key"]) >= BATCH_ROWS or number == parts[-1][0]:
            batch["number"] = rows.numbers(batch["key"])
            yield _select(batch, np.array([number is not None for number in batch["number"]], bool))
            batch = defaultdict(list)


def _select(batch: Batch, wanted: np.ndarray) -> Batch:
    """The rows of a batch for which `wanted` is true."""
    if wanted.all():
        return batch
    positions = np.flatnonzero(wanted).tolist()
    return {name: [values[position] for position in positions] for name, values in batch.items()}


def read_images(
    folder: RunFolder, rows: RunRows, numbers: np.ndarray
) -> Iterator[tuple[int, bytes | None]]:
    """Row number and encoded image of some rows, read part by part.

    Raises:
        BadInput: a stored part cannot be read.
    """
    table = folder.generations
    by_part = numbers[np.argsort(rows.part[numbers], kind="stable")]
    for group in np.split(by_part, np.flatnonzero(np.diff(rows.part[by_part])) + 1):
        if len(group):
            positions = rows.position[group].tolist()
            images = table.images_at(rows.parts[rows.part[group[0]]], positions)
            yield from zip(group.tolist(), images, strict=True)


def shorten(text: str) -> str:
    """The text, or its beginning if it is longer than `TEXT_LIMIT`."""
    if len(text) <= TEXT_LIMIT:
        return text
    return f"{text[:10_000]}... (the first 10,000 of {len(text):,} characters)"


def _read_prompts(spec: RunSpec, folder: RunFolder) -> RunRows:
    if source := folder.prompt_source:
        raise BadInput(
            f"the prompts of this run stay in {source}, as they are too many for a page: no report"
        )
    ids: list[str] = []
    texts: list[str] = []
    checks: dict[int, str] = {}
    tags, splits = _Names(), _Names()
    for columns in folder.prompts().columns():
        asked = enumerate(columns["checks"], len(ids))
        checks.update((n, shorten(text)) for n, text in asked if text and '"questions"' in text)
        ids += columns["id"]
        texts += [shorten(text or "") for text in columns["text"]]
        tags.add(columns["tag"])
        splits.add(columns["split"])
    return RunRows(
        ids,
        texts,
        tags.listed(),
        splits.listed(),
        tags.array(),
        splits.array(),
        checks,
        spec.images_per_prompt,
    )


class _Names:
    """Tags or splits of prompts: those listed, in the order of their first use, and a code per prompt."""

    def __init__(self) -> None:
        self._codes = {"": 0}
        self._parts: list[np.ndarray] = []

    def add(self, names: Sequence[str | None]) -> None:
        """Add the names of some prompts."""
        for name in dict.fromkeys(names):
            if name and len(self._codes) <= NAMES_LISTED:
                self._codes.setdefault(name, len(self._codes))
        self._parts.append(np.array([self._codes.get(name or "", 0) for name in names], np.uint16))

    def listed(self) -> list[str]:
        """The names, without that of code 0."""
        return list(self._codes)[1:]

    def array(self) -> np.ndarray:
        """The codes of all prompts (see `RunRows`)."""
        return np.concatenate(self._parts) if self._parts else np.zeros(0, np.uint16)


def _state(error: str | None, passed: bool | None, score: float | None) -> int:
    if error is None and passed is not None:
        return PASS if passed else FAIL
    return NONE if error is not None or score is None else SCORED


class _StoredImages:
    """Which verdicts are on the images that are stored now."""

    def __init__(self, table: PartTable, rows: RunRows) -> None:
        self.table, self.rows = table, rows
        self._names = {path.name for path in rows.parts}
        self._sizes = np.bincount(rows.part[rows.part >= 0], minlength=len(rows.parts))
        self._digests: dict[int, list[str | None]] = {}

    def verdicts(self, part: PartFile) -> Batch:
        """The columns of a part of verdicts; from its footer what that says of all its rows.

        `image_digest` is True if the footer names the part of generations, and that is still there.
        """
        facts, names = part.facts, ["key", "judge_version", "score", "passed", "reason", "evidence"]
        known: dict[str, Any] = {}
        if facts is not None and facts.source in self._names:
            known["image_digest"] = True
        if facts is not None and facts.errors == 0:
            known["error"] = None
        names += [name for name in ("image_digest", "error") if name not in known]
        columns: Batch = part.read(names).to_pydict()
        return columns | {name: [value] * len(columns["key"]) for name, value in known.items()}

    def hold(self, number: int, digest: str | None) -> bool:
        """Whether the image of a row is the one with this digest.

        Raises:
            BadInput: the row's part is damaged.
        """
        part = int(self.rows.part[number])
        if part >= 0 and part not in self._digests:
            stored = Part(self.rows.parts[part], part, None)
            self._digests[part] = self.table.image_digests(stored, int(self._sizes[part]))
        return part >= 0 and self._digests[part][self.rows.position[number]] == digest
