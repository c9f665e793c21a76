"""Workers on the machines of a Ray cluster: each is a process like a local one, which an actor looks after.

Ray places actors, finds out when one is gone, and carries messages of a few hundred bytes; what blocks
make goes from the worker to its store. Which block is done by whom, and what a death means, stays with our
queue: Ray's own retries are off. A block that ends its worker process leaves the actor to say so, so a
lost actor is the fault of its machine (preempted, restarted, out of memory), and no block is blamed.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sar_eval
from sar_eval.errors import BadInput, SarEvalError
from sar_eval.protocols import WORKERS_PER_DEVICE
from sar_eval.runtime.local import CLOSE_TIMEOUT_S, STOP_TIMEOUT_S
from sar_eval.runtime.queue import BlockQueue, Message, Worker, run_queue
from sar_eval.runtime.ray_actor import Driver, WorkerActor
from sar_eval.runtime.ray_cluster import ClusterWatch, connect, in_a_line, places
from sar_eval.runtime.runtimes import BlockResult, Task
from sar_eval.runtime.slots import WorkerSlot

CHECK_S = 0.5  # how often an interrupt is looked for while nobody has anything to say
KILL_S = 3.0  # what an actor needs beyond its worker's own time to end
# Variables of the driver that its workers need wherever they run: our own, accounts, how cards compute.
# They go as an argument, not in Ray's runtime environment, which every dashboard shows.
FORWARDED = ("SAR_EVAL_", "HF_", "AWS_", "GOOGLE_", "CUBLAS_", "NVIDIA_TF32_OVERRIDE")


@dataclass(frozen=True, slots=True)
class RayRuntime:
    """Workers on the machines of a Ray cluster.

    Attributes:
        address: HOST:PORT of the cluster's head; None for RAY_ADDRESS, else the cluster that this machine
            belongs to, else one that is started on this machine for this command.
        workers: how many at most; None for as many as fit into the cluster now. Those that find no place
            wait for one, which an autoscaler takes for demand.
        threads: CPU threads, and so CPUs, of a worker.
        gpus_each: GPUs of a worker, all on one machine, where the cluster has any.
        on_cpu: do without GPUs all the same.
    """

    address: str | None = None
    workers: int | None = None
    threads: int = 1
    gpus_each: int = 1
    on_cpu: bool = False

    def run(self, task: Task, blocks: Iterable[int]) -> Generator[BlockResult, None, None]:
        """Run every block once; see `Runtime.run`.

        Raises:
            BadInput: there is no such cluster, or no machine of it is large enough for a worker.
            MissingExtra: Ray is not installed.
        """
        queue = BlockQueue(blocks)
        if not queue.ahead(1):
            return
        machines = connect(self.address)
        gpus = 0 if self.on_cpu or not any(machine.get("GPU") for machine in machines) else self.gpus_each
        need = {"num_cpus": self.threads, "num_gpus": gpus}
        fitting = places(machines, self.threads, gpus)
        number = self.workers or fitting
        slot = WorkerSlot(0, "cuda" if gpus else "cpu", self.threads, forwarded_environment())
        slots = [WorkerSlot(i, slot.device, slot.threads, slot.environment) for i in range(number)]
        yield from run_queue(queue, slots[: queue.ahead(number)], ActorCrew(task, need))


def forwarded_environment() -> dict[str, str]:
    """Variables of this process that workers elsewhere need, too."""
    own = {name: value for name, value in os.environ.items() if name.startswith(FORWARDED)}
    return own | {WORKERS_PER_DEVICE: "1"}  # Ray gives whole cards


@dataclass(slots=True, eq=False)
class ActorWorker(Worker):
    """An actor, and the reference of the message that it will give next."""

    actor: Any = field(kw_only=True)
    message: Any = field(kw_only=True)


class ActorCrew:
    """Starts actors that run a task, and speaks to them (see `runtime.queue.Crew`)."""

    def __init__(self, task: Task, need: Mapping[str, float]) -> None:
        """`need`: CPUs and GPUs of a worker, as Ray's options."""
        import ray

        own = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 2}
        self.make = ray.remote(WorkerActor).options(**need, **own)
        self.task = pickle.dumps(task)
        self.driver = Driver(sar_eval.__version__, socket.gethostname(), str(Path.cwd()), tuple(sys.path))
        self.ending: list[Any] = []
        self.watch = ClusterWatch()

    def start(self, slot: WorkerSlot) -> ActorWorker:
        """Ask for an actor, which may have to wait for its place."""
        actor: Any = self.make.remote(self.driver, slot)
        return ActorWorker(slot, actor=actor, message=actor.begin.remote(self.task))

    def receive(self, workers: Sequence[ActorWorker]) -> Iterator[tuple[ActorWorker, Message]]:
        """One message, or the loss, of each actor that has one; waits for a first one, or for a moment."""
        import ray

        by_reference = {worker.message: worker for worker in workers}
        references = list(by_reference)
        self.watch.look()
        if ray.wait(references, timeout=CHECK_S)[0]:
            for reference in ray.wait(references, num_returns=len(references), timeout=0)[0]:
                yield by_reference[reference], _message(by_reference[reference])

    def send(self, worker: ActorWorker, blocks: Sequence[int]) -> None:
        """Give a worker its next blocks, and ask for its next message."""
        worker.message = worker.actor.exchange.remote(list(blocks))

    def end(self, worker: ActorWorker) -> None:
        """Let a worker without blocks release its device; Ray ends an actor that nobody knows any more."""
        self.ending.append(worker.actor.end.remote())

    def stop(self, workers: Sequence[ActorWorker]) -> None:
        """End workers; one that has not begun may not even have a place, so it is not asked."""
        import ray

        stopping = [worker.actor.stop.remote() for worker in workers if worker.ready]
        if stopping:
            ray.wait(stopping, num_returns=len(stopping), timeout=STOP_TIMEOUT_S + KILL_S)
        for worker in workers:
            ray.kill(worker.actor)
        if self.ending:
            ray.wait(self.ending, num_returns=len(self.ending), timeout=CLOSE_TIMEOUT_S + KILL_S)


def _message(worker: ActorWorker) -> Message:
    """What a worker said, or that it is lost."""
    import ray

    try:
        message: Message = ray.get(worker.message)
    except ray.exceptions.RayTaskError as error:
        return "fatal", SarEvalError(f"a worker failed on its machine: {in_a_line(error.cause)}")
    except ray.exceptions.RayError as error:
        ray.kill(worker.actor)  # one that cannot be reached for the moment must not go on by itself
        if getattr(error, "actor_init_failed", False):
            return "fatal", BadInput(_not_installed(error))
        return "lost", f"the worker was lost with its machine: {in_a_line(error)}"
    if message[0] == "died":
        ray.kill(worker.actor)  # make room for the one that replaces it
    return message


def _not_installed(error: BaseException) -> str:
    """An actor does nothing when it is made: if that fails, its code is not there."""
    return f"a machine of the Ray cluster cannot run sar-eval {sar_eval.__version__}: {in_a_line(error)}"
