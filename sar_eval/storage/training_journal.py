"""The journal of a reinforcement-learning run on disk: what happened at each step, and what it looked like.

`journal.json` has settings, notes and why the run stopped; `steps.parquet` a row of figures for each step;
`holdout.parquet` the results on the hold-out suite; `samples/step-000100.parquet` pictures of step 100.
Each file is written as a whole and then gets its name, so that a crash leaves the old or the new one.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sar_eval.documents import convert, read_json
from sar_eval.errors import BadInput
from sar_eval.storage.files import remove_own_temporaries, storage_errors, write_bytes, write_json
from sar_eval.storage.schemas import IMAGE, image_suffix
from sar_eval.types import Json, safe_id

FORMAT = 1  # changes when an older sar-eval could misread a journal
METADATA = b"sar_eval.training_journal"
JOURNAL, STEPS, HOLDOUT, SAMPLES = "journal.json", "steps.parquet", "holdout.parquet", "samples"
OWN_FILES = re.compile(r"journal\.json|steps\.parquet|holdout\.parquet|training\.html")
SAMPLE_FILE = re.compile(r"step-(\d{6,})\.parquet")
SCORE = "score/"  # begins the name of a reward's column in a file of samples
WAY_ON = "remove it, or name another folder"

Kind = Literal["watch", "best", "worst"]
_STEP = pa.field("step", pa.int32(), nullable=False)
# A column of floats for each figure is added by name: see `write_steps`.
STEP_SCHEMA = pa.schema([_STEP, pa.field("skipped", pa.string(), nullable=False)])
HOLDOUT_SCHEMA = pa.schema(
    [
        _STEP,
        pa.field("judge", pa.string(), nullable=False),
        *(pa.field(name, pa.float64()) for name in ("value", "low", "high")),
        *(pa.field(name, pa.float64()) for name in ("change", "change_low", "change_high")),
        pa.field("n", pa.int32(), nullable=False),
    ]
)
# A column of floats for each reward, `score/NAME`, is added by name: see `write_samples`.
SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("tokens", pa.list_(pa.int32())),
        pa.field("image", IMAGE),
        pa.field("reward", pa.float64()),
        pa.field("advantage", pa.float64()),
        pa.field("error", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class StepRow:
    """The figures of one step, by name.

    Attributes:
        step: counted from 1.
        values: those that the step has; others are null in the file.
        skipped: why the step changed no weight; "" if it did.
    """

    step: int
    values: Mapping[str, float]
    skipped: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldoutRow:
    """What a hold-out judge says of one step, with 95 % intervals; the change is to step 0, paired.

    `n` counts the prompts. At step 0, and where nothing could be judged, there is no change.
    """

    step: int
    judge: str
    value: float | None
    low: float | None = None
    high: float | None = None
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """One picture of a step: of a prompt watched with a fixed seed, or the step's best or worst.

    Attributes:
        tokens: visual codes in raster order.
        image: encoded PNG, JPEG or WebP; None if the draw failed, and `error` says why.
        scores: of each reward by name; None where it gave none.
        reward: their weighted sum, as the advantages were made of it.
        advantage: None for a picture that was not trained on, as those watched.
    """

    kind: Kind
    prompt_id: str
    prompt: str
    index: int
    seed: int
    tokens: tuple[int, ...] = ()
    image: bytes | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    reward: float | None = None
    advantage: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """Why a run ended before its last step."""

    step: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalHead:
    """The contents of `journal.json`.

    Attributes:
        settings: of the run, for its page; JSON-shaped.
        notes: what every reader of the run must know first, in sentences.
        halt: None if nothing stopped it.
    """

    format: int = FORMAT
    settings: Mapping[str, Json] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    halt: Halt | None = None


def is_training(folder: Path) -> bool:
    """Whether a folder has a journal."""
    return (folder / JOURNAL).is_file()


def write_head(folder: Path, head: JournalHead) -> None:
    """Write `journal.json`.

    Raises:
        StorageFailed: it cannot be written.
    """
    write_json(folder / JOURNAL, asdict(head))


def read_head(folder: Path) -> JournalHead:
    """Read `journal.json`.

    Raises:
        BadInput: it is missing, damaged or of a newer version.
    """
    path = folder / JOURNAL
    data = read_json(path)
    written = data.get("format") if isinstance(data, dict) else None
    _refuse_newer(path, written if isinstance(written, int) else 0)
    return convert(data, JournalHead, str(path), WAY_ON)


def write_steps(folder: Path, rows: Sequence[StepRow]) -> None:
    """Write `steps.parquet`: a column for every figure that any step has, by name.

    Raises:
        StorageFailed: it cannot be written.
        ValueError: a figure is called as a column that every file has.
    """
    names = sorted({name for row in rows for name in row.values})
    schema = _with_floats(STEP_SCHEMA, names)
    columns = [[row.step for row in rows], [row.skipped for row in rows]]
    columns += [[row.values.get(name) for row in rows] for name in names]
    # Of arrays: with thousands of steps, ten times as fast as of lists.
    arrays = [pa.array(column, part.type) for column, part in zip(columns, schema, strict=True)]
    _write(folder / STEPS, pa.Table.from_arrays(arrays, schema=schema))


def read_steps(folder: Path) -> list[StepRow]:
    """The rows of `steps.parquet`, in order; none if there is no such file.

    Raises:
        BadInput: it is damaged, of a newer version, or has columns of other kinds.
    """
    table = _read(folder / STEPS, STEP_SCHEMA)
    if table is None:
        return []
    names = [name for name in table.column_names if name not in STEP_SCHEMA.names]
    rows = []
    for row in table.to_pylist():
        values = {name: row[name] for name in names if row[name] is not None}
        rows.append(StepRow(row["step"], values, row["skipped"]))
    return sorted(rows, key=lambda row: row.step)


def write_holdout(folder: Path, rows: Sequence[HoldoutRow]) -> None:
    """Write `holdout.parquet`.

    Raises:
        StorageFailed: it cannot be written.
    """
    _write(folder / HOLDOUT, pa.Table.from_pylist([asdict(row) for row in rows], schema=HOLDOUT_SCHEMA))


def read_holdout(folder: Path) -> list[HoldoutRow]:
    """The rows of `holdout.parquet`; none if there is no such file.

    Raises:
        BadInput: see `read_steps`.
    """
    table = _read(folder / HOLDOUT, HOLDOUT_SCHEMA)
    if table is None:
        return []
    return [HoldoutRow(**row) for row in table.select(HOLDOUT_SCHEMA.names).to_pylist()]


def write_samples(folder: Path, step: int, rows: Sequence[SampleRow]) -> None:
    """Write the pictures of a step, with a column `score/NAME` for each reward.

    Raises:
        StorageFailed: the file cannot be written.
    """
    rewards = sorted({name for row in rows for name in row.scores})
    schema = _with_floats(SAMPLE_SCHEMA, [f"{SCORE}{name}" for name in rewards])
    path = samples_path(folder, step)
    _write(path, pa.Table.from_pylist([_sample_dict(row, rewards) for row in rows], schema=schema))


def read_samples(folder: Path, step: int, kinds: Collection[Kind] | None = None) -> list[SampleRow]:
    """The pictures of a step; none if it has no file. Only those of some kinds, if they are named.

    Raises:
        BadInput: see `read_steps`.
    """
    table = _read(samples_path(folder, step), SAMPLE_SCHEMA)
    if table is None:
        return []
    if kinds is not None:
        table = table.filter(pc.is_in(table["kind"], value_set=pa.array(list(kinds), pa.string())))
    return [_sample_from_dict(row) for row in table.to_pylist()]


def sample_kinds(folder: Path, step: int) -> frozenset[str]:
    """Which kinds of pictures a step has; the pictures are not read.

    Raises:
        BadInput: see `read_steps`.
    """
    table = _read(samples_path(folder, step), SAMPLE_SCHEMA, ["kind"])
    return frozenset() if table is None else frozenset(table["kind"].to_pylist())


def samples_path(folder: Path, step: int) -> Path:
    """The file of a step's pictures."""
    return folder / SAMPLES / f"step-{step:06d}.parquet"


def sample_steps(folder: Path) -> list[int]:
    """The steps that have pictures, ascending."""
    if not (folder / SAMPLES).is_dir():
        return []
    found = (SAMPLE_FILE.fullmatch(path.name) for path in (folder / SAMPLES).iterdir())
    return sorted(int(match[1]) for match in found if match)


def remove_samples(folder: Path, steps: Iterable[int]) -> None:
    """Remove the pictures of some steps.

    Raises:
        StorageFailed: a file cannot be removed.
    """
    for step in steps:
        path = samples_path(folder, step)
        with storage_errors(path):
            path.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what a process that died while it wrote a journal has left beside its files."""
    remove_own_temporaries(folder, OWN_FILES)
    remove_own_temporaries(folder / SAMPLES, SAMPLE_FILE)


def _with_floats(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    if taken := [name for name in names if not name or name in schema.names]:
        raise ValueError(f"a figure cannot be called {taken[0]!r}")
    return pa.schema([*schema, *(pa.field(name, pa.float64()) for name in names)])


def _sample_dict(row: SampleRow, rewards: Sequence[str]) -> dict[str, Any]:
    values = {part.name: getattr(row, part.name) for part in fields(row) if part.name != "scores"}
    if row.image is not None:
        name = f"{row.kind}_{safe_id(row.prompt_id)}_{row.index}.{image_suffix(row.image)}"
        values["image"] = {"bytes": row.image, "path": name}
    return values | {f"{SCORE}{name}": row.scores.get(name) for name in rewards}


def _sample_from_dict(row: dict[str, Any]) -> SampleRow:
    scores = {name.removeprefix(SCORE): value for name, value in row.items() if name.startswith(SCORE)}
    values = {name: row[name] for name in SAMPLE_SCHEMA.names}
    values["tokens"] = tuple(row["tokens"] or ())
    values["image"] = (row["image"] or {}).get("bytes")
    return SampleRow(**values, scores=scores)


def _write(path: Path, table: pa.Table) -> None:
    """Write a table; the same rows give the same bytes."""
    sink = io.BytesIO()
    table = table.replace_schema_metadata({METADATA: str(FORMAT)})
    pq.write_table(table, sink, compression="zstd", use_dictionary=False)  # hardly any value is there twice
    write_bytes(path, sink.getvalue())


def _read(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table | None:
    """A table of ours with at least the columns of a schema, others being floats; None without the file."""
    if not path.exists():
        return None
    if not path.is_file():  # a pipe would be waited for, a device read for ever
        raise BadInput(f"{path} is no regular file: {WAY_ON}")
    try:
        with pq.ParquetFile(path) as file:
            _refuse_newer(path, _format(file.schema_arrow))
            table = file.read(columns=None if columns is None else list(columns))
            table = table.cast(_expected(table.schema, schema))
        table.validate(full=True)  # text that is no UTF-8
    except (pa.ArrowException, OSError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise BadInput(f"{path} cannot be read as a part of a journal: {first}; {WAY_ON}") from error
    missing = [name for name in columns or schema.names if name not in table.column_names]
    if missing:
        raise BadInput(f"{path} has no column {missing[0]!r}: {WAY_ON}")
    return _refuse_nulls(path, table, schema)


def _format(schema: pa.Schema) -> int:
    text = (schema.metadata or {}).get(METADATA, b"")
    if not text.isdigit():
        raise ValueError("it is no part of a journal")
    return int(text)


def _expected(found: pa.Schema, schema: pa.Schema) -> pa.Schema:
    own = {part.name: part.type for part in schema}
    return pa.schema([pa.field(name, own.get(name, pa.float64())) for name in found.names])


def _refuse_nulls(path: Path, table: pa.Table, schema: pa.Schema) -> pa.Table:
    for part in schema:
        if not part.nullable and part.name in table.column_names and table[part.name].null_count:
            raise BadInput(f"{path} has rows without {part.name!r}: {WAY_ON}")
    return table


def _refuse_newer(path: Path, written: int) -> None:
    if written > FORMAT:
        raise BadInput(f"{path} was written by a newer sar-eval (format {written}): update this one")
