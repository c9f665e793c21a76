"""Workers on the machines of a Ray cluster: each is a process like a local one, which an actor looks after.

Ray places actors, finds out when one is gone, and carries messages of a few hundred bytes; what blocks
make goes from the worker to its store. Which block is done by whom, and what a death means, stays with our
queue: Ray's own retries are off. A block that ends its worker process leaves the actor to say so, so a
lost actor is the fault of its machine (preempted, restarted, out of memory), and no block is blamed.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sar_eval
from sar_eval.errors import BadInput, MissingExtra, SarEvalError
from sar_eval.protocols import WORKERS_PER_DEVICE
from sar_eval.runtime.local import CLOSE_TIMEOUT_S, STOP_TIMEOUT_S, ProcessCrew, ProcessWorker
from sar_eval.runtime.queue import BlockQueue, Message, Worker, run_queue
from sar_eval.runtime.runtimes import BlockResult, Task
from sar_eval.runtime.slots import WorkerSlot

CHECK_S = 0.5  # how often an interrupt is looked for while nobody has anything to say
ANSWER_S = 10.0  # how long the head of a cluster may take to answer
LAST_WORDS = 300  # characters of an error of Ray's that are shown, from its end
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
        number = self.workers or _places(machines, self.threads, gpus)
        slot = WorkerSlot(0, "cuda" if gpus else "cpu", self.threads, forwarded_environment())
        slots = [WorkerSlot(i, slot.device, slot.threads, slot.environment) for i in range(number)]
        yield from run_queue(queue, slots[: queue.ahead(number)], ActorCrew(task, need))


def connect(address: str | None) -> list[dict[str, float]]:
    """Join the cluster, once a process; returns the resources of each of its machines.

    Raises:
        BadInput: it cannot be joined.
        MissingExtra: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("--runtime ray needs Ray: pip install 'sar-eval[ray]'") from error
    if not ray.is_initialized():
        if address is not None:
            _see_that_it_answers(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started for us
        with _keeping_signals():
            _initialize(ray, address)
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _see_that_it_answers(address: str) -> None:
    """Ray itself would try for minutes, and say what of its parts did not answer.

    Raises:
        BadInput: the address is of another form, or nobody is there.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        raise BadInput(
            f"--ray-address is {address!r}: give HOST:PORT, and run the command on a machine of the "
            "cluster (`ray job submit --address URL -- sar-eval ...` does so from elsewhere)"
        )
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except OSError as error:
        raise BadInput(f"no Ray cluster answers at {address}: {error.strerror or error}") from error


def _initialize(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "configure_logging": False, "include_dashboard": False}
    try:
        ray.init(address=address, namespace="sar-eval", **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:  # not there; another version; no address
        raise BadInput(
            f"cannot join the Ray cluster at {address or 'RAY_ADDRESS or on this machine'}: "
            f"{_in_a_line(error)}"
        ) from error


@contextmanager
def _keeping_signals() -> Iterator[None]:
    """Keep our answer to SIGTERM: Ray's would end the process without a word."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) or before is signal.SIG_IGN:
            signal.signal(signal.SIGTERM, before)


def _places(machines: Sequence[dict[str, float]], cpus: int, gpus: int) -> int:
    """How many workers fit into the cluster when nobody else uses it.

    Raises:
        BadInput: not even one.
    """
    found = 0
    for machine in machines:
        by_cpu = machine.get("CPU", 0) // cpus
        found += int(min(by_cpu, machine.get("GPU", 0) // gpus) if gpus else by_cpu)
    if not found:
        cards = f" and {gpus} GPUs" if gpus else ""
        raise BadInput(
            f"a worker needs {cpus} CPUs{cards}, and no machine of the Ray cluster has as many: "
            "lower --threads, or add a larger one"
        )
    return found


def forwarded_environment() -> dict[str, str]:
    """Variables of this process that workers elsewhere need, too."""
    own = {name: value for name, value in os.environ.items() if name.startswith(FORWARDED)}
    return own | {WORKERS_PER_DEVICE: "1"}  # Ray gives whole cards


def _in_a_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[-LAST_WORDS:]}"


@dataclass(slots=True, eq=False)
class ActorWorker(Worker):
    """An actor, and the reference of the message that it will give next."""

    actor: Any = field(kw_only=True)
    message: Any = field(kw_only=True)


class ActorCrew:
    """Starts actors that run a task, and speaks to them (see `runtime.queue.Crew`)."""

    def __init__(self, task: Task, need: dict[str, float]) -> None:
        """`need`: CPUs and GPUs of a worker, as Ray's options."""
        import ray

        own = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 2}
        self.make = ray.remote(WorkerActor).options(**need, **own)
        self.task = pickle.dumps(task)
        self.driver = Driver(sar_eval.__version__, socket.gethostname(), str(Path.cwd()), tuple(sys.path))
        self.ending: list[Any] = []

    def start(self, slot: WorkerSlot) -> ActorWorker:
        """Ask for an actor, which may have to wait for its place."""
        actor = self.make.remote(self.driver, slot)
        return ActorWorker(slot, actor=actor, message=actor.begin.remote(self.task))

    def receive(self, workers: Sequence[ActorWorker]) -> Iterator[tuple[ActorWorker, Message]]:
        """One message, or the loss, of each actor that has one; waits for a first one, or for a moment."""
        import ray

        by_reference = {worker.message: worker for worker in workers}
        references = list(by_reference)
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
        return "fatal", SarEvalError(f"a worker could not start: {_in_a_line(error.cause)}")
    except ray.exceptions.RayError as error:
        ray.kill(worker.actor)  # one that cannot be reached for the moment must not go on by itself
        if getattr(error, "actor_init_failed", False):
            return "fatal", BadInput(_not_installed(error))
        return "lost", f"worker {worker.slot.index} was lost with its machine: {_in_a_line(error)}"
    if message[0] == "died":
        ray.kill(worker.actor)  # make room for the one that replaces it
    return message


def _not_installed(error: BaseException) -> str:
    """An actor does nothing when it is made: if that fails, its code is not there."""
    last = " ".join(str(error).split())[-LAST_WORDS:]
    return f"a machine of the Ray cluster cannot run sar-eval {sar_eval.__version__}: {last}"


@dataclass(frozen=True, slots=True)
class Driver:
    """What a worker elsewhere takes over from the process that started it, as a child would."""

    version: str
    host: str
    folder: str
    path: tuple[str, ...]

    def adopt(self) -> None:
        """Work in the driver's folder, where it is there, and import what the driver can.

        Raises:
            BadInput: this machine has another version of sar-eval.
        """
        if self.version != sar_eval.__version__:
            raise BadInput(f"sar-eval is {sar_eval.__version__} here, and {self.version} on {self.host}")
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        sys.path += [entry for entry in self.path if entry and entry not in sys.path]


class WorkerActor:
    """Lives in a process of Ray's: keeps one worker process beside it, and passes on what is said.

    The worker is not the actor's own process: so its variables are set before its first import, nothing of
    Ray's computes beside it, its last words are known when it is killed, and what it leaves is killed.
    """

    def __init__(self, driver: Driver, slot: WorkerSlot) -> None:
        self.driver, self.slot = driver, slot
        self.crew: ProcessCrew | None = None
        self.worker: ProcessWorker | None = None

    def begin(self, task: bytes) -> Message:
        """Start the worker process; returns its first message."""
        try:
            self.driver.adopt()
            self.crew = ProcessCrew(pickle.loads(task))  # noqa: S301 - from our own driver
        except SarEvalError as error:
            return self._naming_host("fatal", error)
        with _without_main():
            self.worker = self.crew.start(self.slot)
        return self.exchange([])

    def exchange(self, blocks: Sequence[int]) -> Message:
        """Give the worker its next blocks, and wait for its next message."""
        crew, worker = self._open()
        crew.send(worker, blocks)
        [(_, (kind, content))] = crew.receive([worker])
        return self._naming_host(kind, content)

    def end(self) -> None:
        """Wait until the worker, which holds no block, has released its device and ended."""
        crew, worker = self._open()
        crew.end(worker)

    def stop(self) -> None:
        """End the worker whatever it does."""
        crew, worker = self._open()
        crew.stop([worker])

    def _open(self) -> tuple[ProcessCrew, ProcessWorker]:
        if self.crew is None or self.worker is None:
            raise RuntimeError("this worker was not begun")
        return self.crew, self.worker

    def _naming_host(self, kind: str, content: Any) -> Message:
        """A message, with the machine's name where an error may be this machine's alone."""
        host = socket.gethostname()
        if isinstance(content, SarEvalError) and host != self.driver.host:
            return kind, type(content)(f"{content} (on {host})")
        return kind, content


@contextmanager
def _without_main() -> Iterator[None]:
    """A child imports its parent's main module; that is Ray's here, and would load Ray again."""
    main = vars(sys.modules["__main__"])
    file = main.pop("__file__", None)
    try:
        yield
    finally:
        if file is not None:
            main["__file__"] = file
