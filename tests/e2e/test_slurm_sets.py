"""Sets and runs as array jobs, on a SLURM of one machine that warns, preempts and kills their tasks."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.slurm_stand_in import SlurmStandIn, Task
from tests.synth_sets import ENGINE, contents

ROOT = Path(__file__).parents[2]
DISTURBANCES = int(os.environ.get("SAR_EVAL_KILLS", "2"))  # a hundred and more prove something
TASKS = 2


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmStandIn:
    made = SlurmStandIn(tmp_path / "slurm")
    monkeypatch.setenv("PATH", str(made.bin), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return made


def _synth(folder: Path, out: str, *words: str, blocks: int = 24) -> subprocess.CompletedProcess[str]:
    prompts = folder / "prompts.jsonl"
    rows = [{"id": f"p{n}", "prompt": f"a red ring {n}"} for n in range(2 * blocks)]
    if not prompts.exists():  # written again it has another time, which a set keeps
        prompts.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    engine = ("--engine", ENGINE, "--engine-option", "pace_ms=50")
    drawing = ("--ckpt", "demo:sft", *engine, "--best-of", "2", "--keep", "both")
    where = ("--block-prompts", "2", "--workers", "1", "--devices", "cpu", "--out", str(folder / out))
    return subprocess.run(
        [sys.executable, "-m", "sar_eval", "synth", str(prompts), *drawing, *where, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


class Disturbance:
    """Ends tasks at random moments, in one of the ways in which SLURM does."""

    def __init__(self, cluster: SlurmStandIn, number: int, seed: int) -> None:
        self.cluster, self.left, self.chance = cluster, number, random.Random(seed)
        self.ways: list[str] = []
        self._at = 0.0

    def __call__(self) -> None:
        running = self.cluster.running
        if not running or not self.left or time.monotonic() < self._at:
            return
        if self._at:
            self._disturb(self.chance.choice(running))
        self._at = time.monotonic() + self.chance.uniform(0.5, 6.0)

    def _disturb(self, task: Task) -> None:
        way = self.chance.choice(["warn", "preempt", "preempt", "kill"])
        getattr(self.cluster, way)(task)
        self.ways.append(way)
        self.left -= 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_disturbed_array_makes_the_set_of_one_undisturbed_machine(
    tmp_path: Path, cluster: SlurmStandIn
) -> None:
    blocks = 24 + 4 * DISTURBANCES
    done = _synth(tmp_path, "whole", blocks=blocks)
    assert done.returncode == 0, done.stderr
    disturb = Disturbance(cluster, DISTURBANCES, seed=7)
    on_slurm = ("--runtime", "slurm", "--tasks", str(TASKS), "--sbatch-option", "time=10")
    for _ in range(2 + DISTURBANCES):
        done = _synth(tmp_path, "set", *on_slurm, blocks=blocks)
        assert done.returncode == 0, done.stderr
        if "nothing to submit" in done.stdout:
            break
        cluster.run(disturb, timeout=600.0)
    logs = "".join(path.read_text() for path in (tmp_path / "set.slurm" / "logs").iterdir())
    assert contents(tmp_path / "set") == contents(tmp_path / "whole"), (disturb.ways, logs)
    assert not disturb.left
    assert list((tmp_path / "set" / "claims").glob("0*")) == []
