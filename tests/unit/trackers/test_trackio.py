"""What the tracker trackio stores in SQLite, read back."""

import json
import pickle
import sqlite3
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.trackers.conftest import FIGURES, HOSTILE, shade

pytestmark = pytest.mark.skipif(find_spec("trackio") is None, reason="needs the extra trackio")
# In a process of its own: trackio takes TRACKIO_DIR when it is imported.
SCRIPT = """
import pickle, sys
from sar_eval.trackers.trackio import Trackio
from tests.unit.trackers.network import forbid
forbid()
print(Trackio().log(pickle.load(open(sys.argv[1], "rb"))), file=sys.stderr)
assert not {"gradio", "torch"} & set(sys.modules)
"""
FOLLOW = """
import pickle, sys
from sar_eval.trackers.trackio import Trackio
from tests.unit.trackers.network import forbid
forbid()
with Trackio().follow(pickle.load(open(sys.argv[1], "rb"))) as following:
    for step in (3, 4):
        following.log(step, {"train/reward": step / 8})
"""


def _run(script: str, shown: Any, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Log in a process whose store is in the test's folder."""
    (tmp_path / "run.pickle").write_bytes(pickle.dumps(shown))
    environment = {"TRACKIO_DIR": str(tmp_path / "store"), "PYTHONPATH": ":".join(sys.path), "HF_TOKEN": ""}
    command = [sys.executable, "-W", "error", "-c", script, tmp_path / "run.pickle"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_everything_is_read_back(tmp_path, tracked) -> None:
    done = _run(SCRIPT, replace(tracked, pictures=list(tracked.pictures)), tmp_path)
    assert done.returncode == 0, done.stderr
    [database] = (tmp_path / "store").glob("*.db")
    with sqlite3.connect(database) as store:
        [(run, step, metrics)] = store.execute("select run_name, step, metrics from metrics").fetchall()
        [(config,)] = store.execute("select config from configs").fetchall()
        artifacts = store.execute("select * from artifacts").fetchall()
    store.close()
    assert (run, step) == ("sft", 2000)
    read = json.loads(metrics)
    table = read.pop("shapes/pictures")["_value"]
    assert read == FIGURES
    assert json.loads(config)["shapes"] == tracked.config
    assert [row["verdict"] for row in table] == ["failed", "0.25"]
    assert table[0]["prompt"] == HOSTILE
    images = [
        np.array(Image.open(path).convert("RGB")) for path in (tmp_path / "store" / "media").rglob("*.png")
    ]
    assert sorted(int(image[0, 0, 0]) for image in images) == [10, 200]
    assert all(image.shape == shade(0).shape for image in images)
    assert len(artifacts) == 1
    blobs = [path.read_bytes() for path in (tmp_path / "store" / "artifacts").rglob("*") if path.is_file()]
    assert {b"<p>the report</p>", b"1"} <= set(blobs)


@pytest.mark.slow
def test_a_training_is_a_row_for_each_step(tmp_path, followed) -> None:
    done = _run(FOLLOW, followed, tmp_path)
    assert done.returncode == 0, done.stderr
    [database] = (tmp_path / "store").glob("*.db")
    with sqlite3.connect(database) as store:
        rows = store.execute("select run_name, step, metrics from metrics order by step").fetchall()
        [(config,)] = store.execute("select config from configs").fetchall()
    store.close()
    assert [(run, step, json.loads(metrics)) for run, step, metrics in rows] == [
        ("grpo", 3, {"train/reward": 0.375}),
        ("grpo", 4, {"train/reward": 0.5}),
    ]
    assert json.loads(config)["train"] == followed.config
