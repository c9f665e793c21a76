"""Baseline files: small, exact, and refused where no run could have written them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sar_eval.comparisons import RunFacts
from sar_eval.errors import BadInput
from sar_eval.measures import Measure
from sar_eval.stats.intervals import metric_of
from sar_eval.storage.baselines import METADATA, read_baseline, write_baseline
from sar_eval.suites.geneval.scoring import measures_of_tasks
from sar_eval.types import DrawProtocol
from tests.score_lists import measure

FACTS = RunFacts(
    name="run",
    benchmark="geneval",
    fold="geneval",
    fold_version="1",
    suite_digest="0",
    prompts=4,
    images_per_prompt=2,
    checkpoint="demo:sft",
    checkpoint_digest="1",
    protocol=DrawProtocol("shapes", 64),
    engine="native",
    engine_version="2",
    dtype="float32",
    seed=0,
    judge="geneval",
    judge_version="1",
    judge_digest="2",
    judge_options={"threshold": 0.3},
    spec_digest="3",
    expected=8,
    failed=0,
    sar_eval="0.4.0",
)
TASKS = [[[1.0, 0.0], [0.5, 1.0]], [[1.0, 1.0], [0.0, 0.0]]]
SIZES = (80, 99, 80, 94, 100, 100)  # prompts of GenEval's tasks


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "b.parquet"
    write_baseline(path, FACTS, measures_of_tasks(measure(TASKS).strata))
    return path


def test_what_was_written_is_read(path: Path) -> None:
    facts, measures = read_baseline(path)
    assert facts == FACTS
    assert [metric_of(m) for m in measures] == [
        metric_of(m) for m in measures_of_tasks(measure(TASKS).strata)
    ]


def test_official_geneval_is_small_enough_to_be_committed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tasks = [(rng.random((n, 4)) < 0.6).astype(float).tolist() for n in SIZES]
    size = write_baseline(tmp_path / "b.parquet", FACTS, measures_of_tasks(measure(tasks).strata))
    assert size == (tmp_path / "b.parquet").stat().st_size < 60_000


def test_every_rule_of_a_measure_is_kept(tmp_path: Path) -> None:
    odd = [
        measure(TASKS, "reference/overall", combine="mean", count=7, scale=100),
        measure(TASKS, "quirk/a", is_effect=True, has_interval=False),
        Measure("empty", ()),
    ]
    write_baseline(tmp_path / "b.parquet", FACTS, odd)
    read = read_baseline(tmp_path / "b.parquet")[1]
    assert [replace(m, strata=()) for m in read] == pytest.approx([replace(m, strata=()) for m in odd]) or [
        (m.name, m.scale, m.combine, m.count, m.is_effect, m.has_interval) for m in read
    ] == [(m.name, m.scale, m.combine, m.count, m.is_effect, m.has_interval) for m in odd]
    assert [metric_of(m) for m in read] == [metric_of(m) for m in odd]


def _change(path: Path, column: str, value: object, row: int = 1) -> None:
    """Write the file again by hand, with one value changed."""
    table = pq.read_table(path)
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    columns[column][row] = value
    pq.write_table(pa.table(columns).replace_schema_metadata(table.schema.metadata), path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("sum", float("nan"), r"row 1 \(overall, p0/1\): the score is no number"),
        ("sum", float("inf"), "the score is no number"),
        ("weight", 0.0, "the weight is not positive"),
        ("weight", -1.0, "the weight is not positive"),
        ("weight", float("nan"), "the weight is not positive"),
        ("index", -1, "the index is negative"),
        ("index", 0, "the same draw is there twice"),
        ("prompt_id", None, "columns of other kinds"),
        ("sum", None, "columns of other kinds"),
        ("measure", "other", "a measure 'other' that it does not declare"),
    ],
)
def test_what_no_run_gives_is_refused(path: Path, column: str, value: object, message: str) -> None:
    _change(path, column, value)
    with pytest.raises(BadInput, match=message):
        read_baseline(path)


def _footer(path: Path, change: dict) -> None:
    table = pq.read_table(path)
    footer = json.loads(table.schema.metadata[METADATA]) | change
    pq.write_table(table.replace_schema_metadata({METADATA: json.dumps(footer)}), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 3}, "written by a newer sar-eval"),
        ({"facts": {}}, "facts"),
        ({"measures": 3}, "measures"),
        ({"measures": [{"name": "overall", "combine": "median"}]}, "combine"),
        ({"measures": [{"name": "overall", "scale": "x"}]}, "scale"),
    ],
)
def test_a_footer_of_another_kind_is_refused(path: Path, change: dict, message: str) -> None:
    _footer(path, change)
    with pytest.raises(BadInput, match=message):
        read_baseline(path)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "cannot be read as Parquet"),
        (b"PAR1 not", "cannot be read as Parquet"),
        (None, "a Parquet file, but no baseline"),
        ("columns", "has no column 'task'"),
    ],
)
def test_files_that_are_no_baseline(path: Path, contents: object, message: str) -> None:
    if isinstance(contents, bytes):
        path.write_bytes(contents)
    else:
        table = pq.read_table(path)
        table = table.drop_columns(["task"]) if contents else table.replace_schema_metadata(None)
        pq.write_table(table, path)
    with pytest.raises(BadInput, match=message):
        read_baseline(path)


def test_a_cut_file_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadInput, match="cannot be read as Parquet"):
        read_baseline(path)


def test_rows_in_any_order_are_the_same_baseline(path: Path) -> None:
    before = [metric_of(m) for m in read_baseline(path)[1]]
    table = pq.read_table(path)
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    pq.write_table(shuffled, path)
    assert [m.value for m in map(metric_of, read_baseline(path)[1])] == pytest.approx(
        [m.value for m in before]
    )
