"""What the tracker wandb writes offline, read from its transaction log and files."""

import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from sar_eval.errors import BadInput
from tests.unit.trackers.conftest import FIGURES, HOSTILE

KEY = "0123456789abcdef0123456789abcdef01234567"
SCRIPT = """
import pickle, sys
from sar_eval.trackers.wandb import Wandb
from tests.unit.trackers.network import forbid
forbid()
print(Wandb(mode="offline", folder=sys.argv[2], run_id="train1").log(pickle.load(open(sys.argv[1], "rb"))))
"""
FOLLOW = """
import pickle, sys
from sar_eval.trackers.wandb import Wandb
from tests.unit.trackers.network import forbid
forbid()
tracker = Wandb(mode="offline", folder=sys.argv[2], run_id="train1")
with tracker.follow(pickle.load(open(sys.argv[1], "rb"))) as following:
    for step in (3, 4):
        following.log(step, {"train/reward": step / 8})
print(following.where)
"""
BLOCK, HEADER = 32 * 1024, 7  # bytes of LevelDB's log format, which a .wandb file has after its own header


def _records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file; their checksums are not checked."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, record = path.read_bytes(), HEADER, b""
    while position + HEADER <= len(data):
        if (left := BLOCK - position % BLOCK) < HEADER:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        record += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4):  # full, last
            found = Record()
            found.ParseFromString(record)
            record = b""
            yield found


def _history(records: list[Any]) -> dict[str, Any]:
    """The one logged row."""
    [row] = _rows(records)
    return row


def _rows(records: list[Any]) -> list[dict[str, Any]]:
    """All logged rows."""
    return [_row(record.history) for record in records if record.HasField("history")]


def _row(row: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in row.item:
        *path, last = item.nested_key or [item.key]
        at = found
        for name in path:
            at = at.setdefault(name, {})
        at[last] = json.loads(item.value_json)
    return found


def _write(script: str, shown: Any, tmp_path: Path) -> tuple[Path, list[Any]]:
    """Run a script in a process of its own: the folder that wandb wrote, and the records in it."""
    (tmp_path / "run.pickle").write_bytes(pickle.dumps(shown))
    home = tmp_path / "home"
    home.mkdir()
    command = [sys.executable, "-c", script, tmp_path / "run.pickle", tmp_path]
    environment = {**os.environ, "WANDB_API_KEY": KEY, "HOME": str(home), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    [folder] = (tmp_path / "wandb").glob("offline-run-*-train1")
    assert done.stdout.strip() == str(folder)
    return folder, list(_records(folder / "run-train1.wandb"))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("wandb") is None, reason="needs the extra wandb")
def test_a_training_is_a_row_for_each_step(tmp_path, followed) -> None:
    _, records = _write(FOLLOW, followed, tmp_path)
    rows = [(row["training_step"], row["train/reward"]) for row in _rows(records)]
    assert rows == [(3, 0.375), (4, 0.5)]
    axes = {r.metric.glob_name: r.metric.step_metric for r in records if r.HasField("metric")}
    assert axes["train/*"] == axes["holdout/*"] == "training_step"
    [run] = [record.run for record in records if record.HasField("run")]
    config = {entry.key: json.loads(entry.value_json) for entry in run.config.update}
    assert config["train"] == followed.config


@pytest.mark.slow
@pytest.mark.skipif(find_spec("wandb") is None, reason="needs the extra wandb")
def test_everything_is_read_back_and_no_key_is_stored(tmp_path, tracked) -> None:
    folder, records = _write(SCRIPT, replace(tracked, pictures=list(tracked.pictures)), tmp_path)
    row = _history(records)
    assert {name: row[name] for name in FIGURES} == FIGURES
    assert row["training_step"] == 2000
    assert row["shapes/pictures"]["captions"] == [f"failed: {HOSTILE}", "0.25: a star"]
    pictures = [folder / "files" / name for name in row["shapes/pictures"]["filenames"]]
    assert all(path.is_file() for path in pictures)
    table = json.loads((folder / "files" / row["shapes/verdicts"]["path"]).read_text())
    assert table["columns"] == ["key", "task", "verdict", "score", "reason", "prompt", "image"]
    assert table["data"][0][:6] == ["a-1/0", "counting", "failed", 0.0, "one is missing", HOSTILE]
    axes = {r.metric.glob_name: r.metric.step_metric for r in records if r.HasField("metric")}
    assert axes["shapes/*"] == "training_step"
    [run] = [record.run for record in records if record.HasField("run")]
    config = {entry.key: json.loads(entry.value_json) for entry in run.config.update}
    assert config["shapes"] == tracked.config
    assert (run.project, run.display_name) == ("my project", "sft")
    [report] = [r.artifact for r in records if r.HasField("artifact") and r.artifact.type == "report"]
    assert {entry.path for entry in report.manifest.contents} == {"report.html", "report_assets/index.js"}

    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "run.pickle"]
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []


def test_another_mode_is_refused() -> None:
    from sar_eval.trackers.wandb import Wandb

    with pytest.raises(BadInput, match="online or offline"):
        Wandb(mode="dryrun")
