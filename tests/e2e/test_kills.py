"""`kill -9` at random moments, over all stages: the result is that of a run nobody disturbed.

`SAR_EVAL_KILLS=100` makes it the proof; the default is a look.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.warm_command import WarmCommand

KILLS = int(os.environ.get("SAR_EVAL_KILLS", "12"))
NEW = max(1, KILLS // 12)  # of them of processes that start as from a shell
RUN = (
    *("run", "shapes", "--ckpt", "demo:sft", "--resolution", "32", "-n", "2", "--batch-size", "4"),
    *("--workers", "2", "-q", "--suite"),
)
Run = Callable[[list[str], float | None], int | None]  # exit code; None if it was killed after so long


def _result(folder: Path) -> dict[str, object]:
    """All that must not depend on how the run went: rows of images and verdicts by key, and the scores."""
    found: dict[str, object] = {}
    for table in ("generations", "verdicts/shapes"):
        for path in sorted((folder / table).glob("part-*.parquet")):
            for row in pq.read_table(path).to_pylist():
                assert (table, row["key"]) not in found, f"{row['key']} is stored twice"
                found[table, row["key"]] = {**row, "elapsed_s": None}
    summary = json.loads((folder / "summary.json").read_text())
    return found | {"metrics": summary["metrics"], "complete": summary["complete"]}


def _new_process(words: list[str], kill_after: float | None) -> int | None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sar_eval", *words], start_new_session=True, stdout=subprocess.DEVNULL
    )
    try:
        return process.wait(600 if kill_after is None else kill_after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


@pytest.mark.slow
@pytest.mark.timeout(600 + 30 * KILLS)
def test_kills_change_nothing(suite: Path, tmp_path: Path) -> None:
    """Most are of processes that have their imports behind them: those kills hit what draws and stores."""
    expected = _kill(_new_process, NEW, suite, tmp_path / "new")
    assert expected["complete"]
    with WarmCommand() as warm:
        assert _kill(warm.run, KILLS - NEW, suite, tmp_path / "warm") == expected


def _kill(run: Run, number: int, suite: Path, root: Path) -> dict[str, object]:
    """Kill runs until they were killed so often; the result that all of them came to."""
    words = [*RUN, str(suite), "--out"]
    began = time.monotonic()
    assert run([*words, str(root / "whole")], None) == 0
    duration, expected = time.monotonic() - began, _result(root / "whole")
    chance, kills, runs = random.Random(14), 0, 0
    while kills < number:
        out, runs = root / f"run-{runs}", runs + 1
        began, before = time.monotonic(), kills
        while (code := run([*words, str(out)], chance.uniform(0.2, 1.1) * duration)) is None:
            kills += 1
        assert code == 0
        if kills == before:  # the machine is not as busy as it was: without this, few would be killed
            duration = time.monotonic() - began
        assert _result(out) == expected, f"run {runs} after {kills} kills"
        assert not list(out.rglob("*.tmp"))
    return expected
