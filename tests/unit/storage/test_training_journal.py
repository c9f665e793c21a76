"""The files of a training journal: what is written is read back, and what is damaged is named."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sar_eval.errors import BadInput
from sar_eval.storage import training_journal as stored
from sar_eval.storage.training_journal import HoldoutRow, JournalHead, SampleRow, StepRow

PNG = b"\x89PNG\r\n\x1a\n and so on"
ROWS = [
    StepRow(1, {"reward": 0.25, "reward/shapes": 0.5}),
    StepRow(2, {"reward": math.nan}, "the loss is NaN"),
    StepRow(3, {"kl": 0.01}),
]


def test_steps_get_a_column_for_every_figure(tmp_path: Path) -> None:
    stored.write_steps(tmp_path, ROWS)
    table = pq.read_table(tmp_path / "steps.parquet")
    assert table.column_names == ["step", "skipped", "kl", "reward", "reward/shapes"]
    assert table["reward/shapes"].to_pylist() == [0.5, None, None]
    assert table.schema.field("reward/shapes").type == pa.float64()
    first, second, third = stored.read_steps(tmp_path)
    assert (first, third) == (ROWS[0], ROWS[2])
    assert math.isnan(second.values["reward"])
    assert second.skipped == "the loss is NaN"


def test_a_figure_cannot_take_the_name_of_a_column(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be called 'skipped'"):
        stored.write_steps(tmp_path, [StepRow(1, {"skipped": 1.0})])


def test_samples_are_read_back_and_pictures_are_those_of_a_run(tmp_path: Path) -> None:
    drawn = {"prompt": "a \N{BLACK STAR}", "index": 0, "seed": 2**62, "tokens": (3, 1), "image": PNG}
    scores = {"shapes": 1.0, "soft": None}
    watched = SampleRow(kind="watch", prompt_id="a/b", **drawn, scores=scores, reward=0.5)
    drawn = {"prompt": "", "index": 7, "seed": 1, "error": "too long"}
    failed = SampleRow(kind="worst", prompt_id="c", **drawn, scores={"soft": 0.25}, advantage=-1.5)
    stored.write_samples(tmp_path, 12, [watched, failed])
    table = pq.read_table(tmp_path / "samples" / "step-000012.parquet")
    assert table.schema.field("image").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    path = table["image"][0].as_py()["path"]
    assert path.endswith("_0.png")
    assert "/" not in path
    read, also = stored.read_samples(tmp_path, 12)
    assert read == watched
    assert (also.error, also.advantage, also.scores) == ("too long", -1.5, {"shapes": None, "soft": 0.25})
    assert stored.read_samples(tmp_path, 12, ["worst"]) == [also]
    assert stored.sample_kinds(tmp_path, 12) == {"watch", "worst"}
    assert stored.sample_steps(tmp_path) == [12]
    assert stored.read_samples(tmp_path, 13) == []


def test_holdout_and_head_are_read_back(tmp_path: Path) -> None:
    rows = [
        HoldoutRow(step=0, judge="shapes", value=0.5, low=0.4, high=0.6, n=48),
        HoldoutRow(step=9, judge="shapes", value=0.6, change=0.1, change_low=0.02, change_high=0.18, n=48),
    ]
    stored.write_holdout(tmp_path, rows)
    assert stored.read_holdout(tmp_path) == rows
    head = JournalHead(settings={"grpo": {"steps": 3}}, notes=("a", "b"), halt=stored.Halt(step=2, why="x"))
    stored.write_head(tmp_path, head)
    assert stored.read_head(tmp_path) == head
    assert stored.is_training(tmp_path)


def test_what_is_not_there_is_empty(tmp_path: Path) -> None:
    assert stored.read_steps(tmp_path) == []
    assert stored.read_holdout(tmp_path) == []
    assert stored.sample_steps(tmp_path) == []
    assert not stored.is_training(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read as a part of a journal"),
        (b"PAR1" + bytes(100), "cannot be read as a part of a journal"),
        ({"step": [1]}, "it is no part of a journal"),
        ({"step": [1], "format": "1"}, "has no column 'skipped'"),
        ({"step": [None], "skipped": [""], "format": "1"}, "has rows without 'step'"),
        ({"step": ["x"], "skipped": [""], "format": "1"}, "cannot be read as a part of a journal"),
        ({"step": [1], "skipped": [""], "kl": ["much"], "format": "1"}, "cannot be read"),
        ({"step": [1], "skipped": [b"\xff"], "format": "1"}, "cannot be read"),
        ({"step": [1], "skipped": [""], "format": "2"}, r"newer sar-eval \(format 2\): update this one"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, data, message: str) -> None:
    path = tmp_path / "steps.parquet"
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        metadata = {stored.METADATA: data.pop("format")} if "format" in data else None
        pq.write_table(pa.table(data).replace_schema_metadata(metadata), path)
    with pytest.raises(BadInput, match=message) as raised:
        stored.read_steps(tmp_path)
    assert str(path) in str(raised.value)


def test_every_cut_of_a_file_is_told(tmp_path: Path) -> None:
    stored.write_steps(tmp_path, ROWS)
    path = tmp_path / "steps.parquet"
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(BadInput):
            stored.read_steps(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "holdout.parquet")
    with pytest.raises(BadInput, match="no regular file"):
        stored.read_holdout(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "broken JSON"),
        ('{"format": 2}', "newer sar-eval"),
        ('{"format": 1, "notes": "x"}', "notes"),
        ("[]", "journal.json"),
    ],
)
def test_a_damaged_head_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "journal.json").write_text(text)
    with pytest.raises(BadInput, match=message):
        stored.read_head(tmp_path)


def test_what_a_dead_writer_left_goes_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    left = [tmp_path / "steps.parquet.4711.tmp", tmp_path / "samples" / "step-000003.parquet.4711.tmp"]
    others = [tmp_path / "steps.parquet.tmp", tmp_path / "mine.4711.tmp"]
    for path in (*left, *others):
        path.write_text("")
    stored.remove_temporaries(tmp_path)
    assert [path.exists() for path in (*left, *others)] == [False, False, True, True]
