"""A Ray cluster for tests: its machines are raylets on this one, each with a CPU."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # else a token is written into the home folder
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns that this will be so
    "RAY_enable_metrics_collection": "0",
}
VICTIMS = ("driver", "actor", "worker", "machine")
MEMORY = 80_000_000  # bytes of a machine's object store, the least that Ray takes


@dataclass
class RayCluster:
    """Head and further machines."""

    cluster: Any

    @property
    def address(self) -> str:
        """Of the head, as `--ray-address` takes it."""
        return str(self.cluster.address)

    def add_machine(self) -> Any:
        """A further machine."""
        return self.cluster.add_node(num_cpus=1, object_store_memory=MEMORY)

    def kill_machine(self, machine: Any) -> None:
        """Kill a machine's raylet, as if it lost its power; what it started ends by itself."""
        os.kill(raylet(machine), signal.SIGKILL)
        self.cluster.remove_node(machine, allow_graceful=False)

    def kill(self, victim: str, driver: subprocess.Popen[Any], dice: random.Random) -> bool:
        """Kill one of `VICTIMS`, as soon as there is one; returns whether there was one."""
        has_it = victim in {"driver", "machine"}
        while not (workers := self.workers()) and not has_it and driver.poll() is None:
            time.sleep(0.1)  # a driver on a busy machine takes its time to get workers
        if victim == "driver":
            driver.kill()
        elif victim == "machine":
            self.kill_machine(self.cluster.list_all_nodes()[-1])
            self.add_machine()
        elif workers:
            os.kill(dice.choice(workers)[victim == "worker"], signal.SIGKILL)
        return has_it or bool(workers)

    def workers(self) -> list[tuple[int, int]]:
        """Process ids of all actors and of the workers that they look after."""
        found = []
        for machine in self.cluster.list_all_nodes():
            for actor in _children(raylet(machine)):
                found += [(actor, worker) for worker in _children(actor) if _is_worker(worker)]
        return found


def raylet(machine: Any) -> int:
    """Process id of a machine's raylet."""
    return int(machine.all_processes["raylet"][0].process.pid)


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in _text(task).split()]
    return found


def _is_worker(pid: int) -> bool:
    return "spawn_main" in _text(Path(f"/proc/{pid}/cmdline"))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return ""


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """A cluster with one machine; everything of it ends with the block."""
    before = dict(os.environ)
    os.environ.update(QUIET)
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(True, False, {"num_cpus": 1, "object_store_memory": MEMORY})
    session = cluster.head_node.get_session_dir_path()
    try:
        yield RayCluster(cluster)
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(session, ignore_errors=True)
        for name in QUIET:
            os.environ.pop(name)
        os.environ.update({name: before[name] for name in QUIET if name in before})
