"""Runs on a Ray cluster, whose drivers, actors, workers and machines are killed: as a local run."""

import os
import random
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.ray_cluster import QUIET, VICTIMS, ray_cluster

KILLS = int(os.environ.get("SAR_EVAL_KILLS", "1"))  # the driver; more for the proof
DRAW = ("--ckpt", "demo:sft", "-n", "2", "--batch-size", "2", "--json")
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


def _start(words: tuple[str, ...], out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sar_eval", *words, *DRAW, "--out", str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, cwd=out.parent, env=os.environ | QUIET, **pipes)


def _pictures(folder: Path) -> dict[str, tuple[object, ...]]:
    """Tokens, image and seed by key."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted((folder / "generations").rglob("part-*.parquet")):
        for row in pq.read_table(path).to_pylist():
            assert row["key"] not in found, f"{row['key']} is stored twice"
            assert row["error"] is None
            found[row["key"]] = (row["tokens"], row["image"], row["seed"])
    return found


def _begun(out: Path, driver: subprocess.Popen[str], parts: int) -> bool:
    """Wait until so many blocks are stored; False if the run has ended."""
    while driver.poll() is None:
        if len(list((out / "generations").rglob("part-*.parquet"))) >= parts:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_whoever_is_killed_the_run_is_as_a_local_one(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"a photo of {n} red rings\n" for n in range(2, 14)))
    local = _start(("generate", "prompts.txt", "--workers", "1"), tmp_path / "local")
    assert (local.communicate(), local.returncode)[1] == 0
    chance, kills, runs = random.Random(18), 0, 0
    with ray_cluster() as cluster:
        cluster.add_machine()
        words = ("generate", "prompts.txt", "--runtime", "ray", "--ray-address", cluster.address)
        while kills < KILLS:
            out, runs = tmp_path / f"ray-{runs}", runs + 1
            driver = _start(words, out)
            while driver.returncode != 0:
                if kills < KILLS and _begun(out, driver, chance.randrange(1, 10)):
                    time.sleep(chance.uniform(0, 0.2))
                    kills += cluster.kill(VICTIMS[kills % len(VICTIMS)], driver, chance)
                    time.sleep(chance.uniform(0, 1))
                if kills >= KILLS or driver.poll() is not None:
                    told = driver.communicate()
                    assert driver.returncode in {0, -signal.SIGKILL}, told
                if driver.returncode:
                    driver = _start(words, out)
            assert _pictures(out) == _pictures(tmp_path / "local"), f"run {runs} after {kills} kills"
            assert not list(out.rglob("*.tmp"))
