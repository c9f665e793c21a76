"""A baseline file: what comparing with a run needs, and nothing more. One Parquet file, no pictures.

One row for each draw of each measure; the footer has the run's facts and the measures' rules. It is small
(official GenEval: less than 60 kB), so that it can be committed and a CI job can be gated by it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sar_eval.comparisons import RunFacts
from sar_eval.documents import convert, parse_json, shorten
from sar_eval.errors import BadInput
from sar_eval.measures import Bounds, Combine, Measure, Stratum
from sar_eval.storage.files import write_bytes

FORMAT = 2  # changes when an older sar-eval could misread a file
METADATA = b"sar_eval.baseline"
NAMES = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        pa.field("measure", NAMES, nullable=False),
        pa.field("task", NAMES, nullable=False),
        pa.field("prompt_id", NAMES, nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("sum", pa.float64(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
    ]
)
WAY_ON = "make it again by `sar-eval baseline save RUN FILE.parquet`"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """How the rows of a measure are combined (see `Measure`); format 1 had no shares and bounds."""

    name: str
    scale: int = 1
    combine: Combine = "sum"
    count: int | None = None
    is_effect: bool = False
    has_interval: bool = True
    shares: Mapping[str, float] = field(default_factory=dict)
    bounds: Bounds | None = (0.0, 1.0)

    def measure(self, strata: Sequence[Stratum]) -> Measure:
        """The measure of these rows.

        Raises:
            ValueError: they have no share, or shares or bounds are no such numbers.
        """
        return Measure(**{f.name: getattr(self, f.name) for f in fields(self)}, strata=strata)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Footer:
    format: int
    facts: RunFacts
    measures: tuple[_Rule, ...]


def write_baseline(path: Path, facts: RunFacts, measures: Sequence[Measure]) -> int:
    """Write the file, and return its bytes.

    Raises:
        StorageFailed: it cannot be written.
    """
    rules = tuple(
        _Rule(name=m.name, scale=m.scale, combine=m.combine, count=m.count, is_effect=m.is_effect,
              has_interval=m.has_interval, shares=dict(m.shares), bounds=m.bounds)
        for m in measures
    )  # fmt: skip
    about = asdict(_Footer(format=FORMAT, facts=facts, measures=rules))
    about["facts"]["protocol"] = facts.protocol.to_json()
    footer = json.dumps(about, sort_keys=True)
    table = pa.concat_tables([SCHEMA.empty_table(), *_tables(measures)]).unify_dictionaries()
    sink = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata({METADATA: footer.encode()}),
        sink,
        compression="zstd",
        compression_level=9,
    )
    write_bytes(path, sink.getvalue())
    return len(sink.getvalue())


def _tables(measures: Sequence[Measure]) -> Iterator[pa.Table]:
    for measure in measures:
        for stratum in measure.strata:
            n = len(stratum.indices)
            prompts = np.repeat(np.arange(len(stratum.prompts)), stratum.rows_of).astype(np.int32)
            columns = [
                _repeated(measure.name, n),
                _repeated(stratum.task, n),
                pa.DictionaryArray.from_arrays(prompts, pa.array(list(stratum.prompts), pa.string())),
                pa.array(stratum.indices, pa.int32()),
                pa.array(stratum.sums),
                pa.array(stratum.weights),
            ]
            yield pa.Table.from_arrays(columns, schema=SCHEMA)


def _repeated(name: str, number: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(np.zeros(number, np.int32), pa.array([name], pa.string()))


def read_baseline(path: Path) -> tuple[RunFacts, tuple[Measure, ...]]:
    """The facts and measures in a baseline file.

    Raises:
        BadInput: it is no baseline, of a newer version, or holds what no run gives: scores that are no
            numbers, a draw twice, weights that are not positive, rows of a measure that is not declared.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for, a device read for ever
        raise BadInput(f"{path} is no regular file: name a baseline (.parquet)")
    try:
        table = pq.read_table(io.BytesIO(path.read_bytes()), partitioning=None)
    except FileNotFoundError as error:
        raise BadInput(f"there is no baseline {path}") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInput(
            f"{path} is no baseline: it cannot be read as Parquet ({error}); {WAY_ON}"
        ) from error
    footer = _read_footer(path, table)
    _check_footer(path, footer)
    if missing := [name for name in SCHEMA.names if name not in table.column_names]:
        raise BadInput(f"{path} has no column {missing[0]!r}: {WAY_ON}")
    columns = _Columns(path, table)
    columns.check()
    strata = columns.strata()
    if unknown := [name for name in strata if name not in {rule.name for rule in footer.measures}]:
        raise BadInput(f"{path} has rows of a measure {unknown[0]!r} that it does not declare: {WAY_ON}")
    try:
        return footer.facts, tuple(rule.measure(strata.get(rule.name, ())) for rule in footer.measures)
    except ValueError as error:
        raise BadInput(f"{path}: {error}; {WAY_ON}") from error


def is_baseline(path: Path) -> bool:
    """Whether a file is Parquet and says that it is a baseline; prompts and other tables do not."""
    try:
        return path.is_file() and METADATA in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError, ValueError):
        return False


def _read_footer(path: Path, table: pa.Table) -> _Footer:
    text = (table.schema.metadata or {}).get(METADATA)
    if text is None:
        raise BadInput(f"{path} is a Parquet file, but no baseline: {WAY_ON}")
    data = parse_json(text, f"{path}, {METADATA.decode()}")
    written = data.get("format") if isinstance(data, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise BadInput(f"{path} was written by a newer sar-eval (format {written}): update this one")
    return convert(data, _Footer, f"{path}, {METADATA.decode()}", WAY_ON)


def _check_footer(path: Path, footer: _Footer) -> None:
    """Refuse numbers that no run has; they decide how much may be missing."""
    facts, wrong = footer.facts, None
    if footer.format < 1:
        wrong = f"the format is {footer.format}"
    elif facts.prompts < 1 or facts.images_per_prompt < 1 or facts.expected < 1:
        wrong = f"it is of {facts.prompts} prompts and {facts.expected} images"
    elif facts.expected > facts.prompts * facts.images_per_prompt:
        wrong = f"{facts.expected} images are more than {facts.images_per_prompt} of each prompt"
    elif not 0 <= facts.failed <= facts.expected:
        wrong = f"{facts.failed} of {facts.expected} images have no score"
    elif rule := next((rule for rule in footer.measures if rule.scale < 1), None):
        wrong = f"the scale of measure {shorten(rule.name)} is {rule.scale}"
    if wrong:
        raise BadInput(f"{path}: {wrong}, which no run has; {WAY_ON}")


class _Columns:
    """The columns of the file as arrays."""

    def __init__(self, path: Path, table: pa.Table) -> None:
        self.path = path
        try:
            plain = table.select(SCHEMA.names).cast(SCHEMA).unify_dictionaries()
        except (pa.ArrowException, ValueError) as error:
            raise BadInput(f"{path} has columns of other kinds ({error}): {WAY_ON}") from error
        self.names: dict[str, list[str]] = {}
        self.codes: dict[str, NDArray[np.int64]] = {}
        for name in ("measure", "task", "prompt_id"):
            column = plain.column(name).combine_chunks()
            self.names[name] = column.dictionary.to_pylist()
            self.codes[name] = column.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        self.index = plain.column("index").to_numpy()
        self.sums, self.weights = (plain.column(name).to_numpy() for name in ("sum", "weight"))
        self._gather()

    def _gather(self) -> None:
        """Bring the rows of each measure, task and prompt together, if somebody has sorted them."""
        keys = self._keys()[:3]
        if len(self.index) and not all(_is_grouped(np.stack(keys[: depth + 1])) for depth in range(3)):
            order = self._order()
            self.codes = {name: codes[order] for name, codes in self.codes.items()}
            self.index, self.sums, self.weights = self.index[order], self.sums[order], self.weights[order]

    def check(self) -> None:
        """Refuse what no run gives."""
        for what, wrong in self._faults():
            if rows := np.flatnonzero(wrong)[:1].tolist():
                raise BadInput(f"{self.path}, row {rows[0]} ({self._name(rows[0])}): {what}; {WAY_ON}")

    def _faults(self) -> Iterator[tuple[str, NDArray[Any]]]:
        yield "the score is no number", ~np.isfinite(self.sums)
        yield "the weight is not positive", ~(np.isfinite(self.weights) & (self.weights > 0))
        yield "the index is negative", self.index < 0
        order = self._order()
        same = np.all([np.diff(column[order]) == 0 for column in self._keys()], axis=0)
        doubled = np.zeros(len(order), bool)
        doubled[order[1:]] = same
        yield "the same draw is there twice", doubled

    def _keys(self) -> list[NDArray[Any]]:
        return [self.codes["measure"], self.codes["task"], self.codes["prompt_id"], self.index]

    def _order(self) -> NDArray[np.int64]:
        return np.lexsort(self._keys()[::-1])

    def _name(self, row: int) -> str:
        names = [self.names[name][self.codes[name][row]] for name in ("measure", "prompt_id")]
        return f"{names[0]}, {names[1]}/{self.index[row]}"

    def strata(self) -> dict[str, list[Stratum]]:
        """The strata of each measure, in the order of the file."""
        measure, task = self.codes["measure"], self.codes["task"]
        groups = np.flatnonzero(np.append(True, np.diff(measure) | np.diff(task))[: len(measure)])
        found: dict[str, list[Stratum]] = {}
        for start, end in pairwise([*groups.tolist(), len(measure)]):
            name, task_name = self.names["measure"][measure[start]], self.names["task"][task[start]]
            found.setdefault(name, []).append(self._stratum(task_name, slice(start, end)))
        return found

    def _stratum(self, task: str, rows: slice) -> Stratum:
        prompts = self.codes["prompt_id"][rows]
        starts = np.flatnonzero(np.diff(prompts, prepend=-1))
        ids = [self.names["prompt_id"][code] for code in prompts[starts].tolist()]
        ends = np.append(starts, len(prompts))
        return Stratum(task, ids, ends, self.index[rows], self.sums[rows], self.weights[rows])


def _is_grouped(keys: NDArray[Any]) -> bool:
    """Whether equal columns stand together."""
    runs = 1 + int(np.any(np.diff(keys, axis=1) != 0, axis=0).sum())
    return bool(runs == np.unique(keys, axis=1).shape[1])
