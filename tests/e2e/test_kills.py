"""`kill -9` at a hundred random moments, over all stages: the result is that of a run nobody disturbed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

KILLS = 100
RUN = ("run", "shapes", "--ckpt", "demo:sft", "-n", "2", "--batch-size", "4", "--workers", "2", "-q")


def _result(folder: Path) -> dict[str, object]:
    """Tokens, image, seed and verdict by key, and the scores."""
    found: dict[str, object] = {}
    for table, columns in (("generations", ["tokens", "image", "seed"]), ("verdicts/shapes", ["score"])):
        for path in sorted((folder / table).glob("part-*.parquet")):
            for row in pq.read_table(path).to_pylist():
                assert (table, row["key"]) not in found, f"{row['key']} is stored twice"
                found[table, row["key"]] = [row[name] for name in columns]
    summary = json.loads((folder / "summary.json").read_text())
    return found | {"metrics": summary["metrics"], "complete": summary["complete"]}


def _start(suite: Path, out: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "sar_eval", *RUN, "--suite", str(suite), "--out", str(out)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, text=True, start_new_session=True, **pipes)


def _killed(process: subprocess.Popen[str], seconds: float) -> bool:
    """Kill the run with its group after so long; False if it ended before."""
    try:
        _, told = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    assert process.returncode == 0, told
    return False


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_change_nothing(suite: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    assert not _killed(_start(suite, tmp_path / "whole"), 600)
    duration, expected = time.monotonic() - began, _result(tmp_path / "whole")
    assert expected["complete"]
    chance, kills, runs = random.Random(14), 0, 0
    while kills < KILLS:
        out, runs = tmp_path / f"run-{runs}", runs + 1
        began, before = time.monotonic(), kills
        while _killed(_start(suite, out), chance.uniform(0.2, 1.1) * duration):
            kills += 1
        if kills == before:  # the machine is not as busy as it was: without this, few would be killed
            duration = time.monotonic() - began
        assert _result(out) == expected, f"run {runs} after {kills} kills"
        assert not list(out.rglob("*.tmp"))
