"""Workers on a real Ray cluster, its machines raylets of this one: deaths of workers, actors, machines."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.runtime.ray import RayRuntime
from sar_eval.runtime.ray_cluster import connect
from sar_eval.runtime.runtimes import BlockResult
from sar_eval.runtime.slots import WorkerSlot
from tests.ray_cluster import RayCluster, ray_cluster

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@dataclass(frozen=True)
class Cubes:
    """Cubes of block numbers; for block 3 the worker does what `fault` says, so many times."""

    folder: Path
    fault: str = ""
    times: int = 0

    @contextmanager
    def open(self, slot: WorkerSlot) -> Iterator[Callable[[int], int]]:
        (self.folder / f"worker-{os.getpid()}").touch()
        yield self._do

    def _do(self, block: int) -> int:
        if block == 3 and len(list(self.folder.glob("fault-*"))) < self.times:
            (self.folder / f"fault-{time.monotonic_ns()}").touch()
            self._misbehave()
        return block**3

    def _misbehave(self) -> None:
        child = subprocess.Popen(["sleep", "600"]).pid
        (self.folder / f"child-{child}").touch()
        if self.fault == "bad input":
            raise BadInput("no such picture")
        os.kill(os.getpid() if self.fault == "worker" else os.getppid(), signal.SIGKILL)
        time.sleep(600)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as cluster:
        connect(cluster.address)
        yield cluster


def _nobody_is_left(folder: Path, seconds: float = 10.0) -> bool:
    """Whether all workers and their children have ended."""
    pids = [path.name.partition("-")[2] for path in (*folder.glob("worker-*"), *folder.glob("child-*"))]
    assert pids
    end = time.monotonic() + seconds
    while alive := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        if time.monotonic() > end:
            return not alive
        time.sleep(0.05)
    return True


def _run(cluster: RayCluster, task: Cubes, workers: int = 1) -> dict[int, BlockResult]:
    found = list(RayRuntime(cluster.address, workers).run(task, range(6)))
    assert len(found) == 6
    return {result.block: result for result in found}


@pytest.mark.slow
def test_a_block_that_kills_its_workers_is_given_up(cluster: RayCluster, tmp_path: Path) -> None:
    results = _run(cluster, Cubes(tmp_path, "worker", 3))
    assert results[3].error == "given up after 3 tries: the worker was ended by SIGKILL"
    assert [r.result for b, r in sorted(results.items()) if b != 3] == [0, 1, 8, 64, 125]
    assert _nobody_is_left(tmp_path)


@pytest.mark.slow
def test_a_lost_actor_is_replaced_and_no_block_is_blamed(cluster: RayCluster, tmp_path: Path) -> None:
    results = _run(cluster, Cubes(tmp_path, "actor", 3))
    assert {block: r.result for block, r in results.items()} == {i: i**3 for i in range(6)}
    assert len(list(tmp_path.glob("fault-*"))) == 3
    assert _nobody_is_left(tmp_path)


@pytest.mark.slow
def test_what_more_tries_cannot_mend_ends_the_run(cluster: RayCluster, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such picture"):
        _run(cluster, Cubes(tmp_path, "bad input", 1))
    assert _nobody_is_left(tmp_path)
    with pytest.raises(BadInput, match=r"needs 64 CPUs, and no machine of the Ray cluster has as many"):
        list(RayRuntime(cluster.address, threads=64).run(Cubes(tmp_path), range(6)))


@dataclass(frozen=True)
class Slow(Cubes):
    """Blocks that take a while, so that a machine can be lost in the midst of one."""

    def _do(self, block: int) -> int:
        time.sleep(0.3)
        return super()._do(block)


@pytest.mark.slow
def test_blocks_of_a_lost_machine_are_done_by_another(
    cluster: RayCluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lost, before = cluster.add_machine(), signal.getsignal(signal.SIGTERM)
    results = RayRuntime(cluster.address).run(Slow(tmp_path), range(12))
    found = [next(results)]
    while len(list(tmp_path.glob("worker-*"))) < 2:
        found.append(next(results))
    cluster.kill_machine(lost)
    found += results
    assert {r.block: r.result for r in found} == {i: i**3 for i in range(12)}
    assert len(found) == 12
    assert _nobody_is_left(tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before
    assert capfd.readouterr().out == ""  # which is for `--json`
