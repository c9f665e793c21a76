"""A set drawn on a Ray cluster whose drivers, actors, workers and machines are killed: as a local one.

`SAR_EVAL_KILLS=100` makes it the proof of `docs/synthesis.md`; the default is a look.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.e2e.test_synth_kills import PACE_MS, TEXTS, command
from tests.ray_cluster import QUIET, VICTIMS, ray_cluster
from tests.synth_sets import contents, request, synthesise, write_prompts

KILLS = int(os.environ.get("SAR_EVAL_KILLS", "2"))
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@pytest.mark.slow
@pytest.mark.timeout(300 + 60 * KILLS)
def test_whoever_is_killed_the_set_is_as_a_local_one(tmp_path: Path) -> None:
    prompts, dice = write_prompts(tmp_path / "p.jsonl", TEXTS), random.Random(18)
    synthesise(request(prompts, str(tmp_path / "calm"), top=2, engine_options={"pace_ms": PACE_MS}), 2)
    calm, out, kills, sets = contents(tmp_path / "calm"), tmp_path / "set", 0, 0
    with ray_cluster() as cluster:
        cluster.add_machine()
        words = [*command(prompts, out, workers=2), "--runtime", "ray", "--ray-address", cluster.address]
        while kills < KILLS or sets == 0:
            with subprocess.Popen(words, env=os.environ | QUIET) as driver:
                time.sleep(dice.uniform(2, 9))
                if driver.poll() is None and kills < KILLS:
                    # From the machine on, so that a look meets what only a cluster has.
                    kills += cluster.kill(VICTIMS[-1 - kills % len(VICTIMS)], driver, dice)
                code = driver.wait(240)
            assert code in (0, -signal.SIGKILL)
            if code == 0:
                assert contents(out) == calm
                shutil.rmtree(out)
                sets += 1
