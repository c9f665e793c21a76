"""kill -9 at random moments of a driver or a worker: the finished set has the bytes of an undisturbed one.

`SAR_EVAL_KILLS=100` makes it the proof of `docs/synthesis.md`; the default is a look.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.synth_sets import ENGINE, contents, request, synthesise, write_prompts

KILLS = int(os.environ.get("SAR_EVAL_KILLS", "3"))
PACE_MS = 25
TEXTS = [f"thing number {number}" for number in range(40)]


def command(prompts: Path, out: Path, workers: int) -> list[str]:
    """Draws the texts twice each, in blocks of four, slowly enough to be met."""
    return [
        *(sys.executable, "-m", "sar_eval", "synth", str(prompts), "--ckpt", "demo:sft", "--out", str(out)),
        *("--engine", ENGINE, "--engine-option", f"pace_ms={PACE_MS}", "--best-of", "2", "--top", "2"),
        *("--block-prompts", "4", "--workers", str(workers), "--devices", "cpu", "--quiet"),
    ]


def _children(pid: int) -> list[int]:
    """Workers of a driver."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        pids = [int(word) for word in listed.read_text().split()]
        commands = {child: Path(f"/proc/{child}/cmdline").read_text() for child in pids}
    except OSError:  # it has just ended
        return []
    return [child for child, command in commands.items() if "spawn_main" in command]


def _kill_somebody(process: subprocess.Popen[bytes], dice: random.Random) -> None:
    victims = [process.pid, *_children(process.pid)]
    try:
        os.kill(dice.choice(victims), signal.SIGKILL)
    except ProcessLookupError:  # it was faster
        return


@pytest.mark.slow
@pytest.mark.timeout(120 + 30 * KILLS)
def test_killed_at_random_moments(tmp_path: Path) -> None:
    dice = random.Random(18)  # moments; what happens in them is up to the machine
    prompts = write_prompts(tmp_path / "p.jsonl", TEXTS)
    synthesise(request(prompts, str(tmp_path / "calm"), top=2, engine_options={"pace_ms": PACE_MS}), 2)
    calm, out, kills, sets = contents(tmp_path / "calm"), tmp_path / "set", 0, 0
    while kills < KILLS or sets == 0:
        with subprocess.Popen(command(prompts, out, workers=2)) as process:
            # From the start of the driver to after its end, so that any moment of it may be met.
            time.sleep(dice.uniform(0.5, 6.0))
            if process.poll() is None and kills < KILLS:
                _kill_somebody(process, dice)
                kills += 1
            code = process.wait(120)
        assert code in (0, -signal.SIGKILL)
        if code == 0:
            assert contents(out) == calm
            shutil.rmtree(out)
            sets += 1
    assert kills >= KILLS
