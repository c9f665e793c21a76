"""Joining a Ray cluster, what its machines have, and whether it is still there."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sar_eval.errors import BadInput, Incomplete, MissingExtra

LOOK_S = 10.0  # how often it is looked for whether the cluster is there
HEAD_LOST_S = 40.0  # its head may restart so long; after a minute Ray would end this process, with code 1
ANSWER_S = 10.0  # how long the head of a cluster may take to answer
LAST_WORDS = 300  # characters of an error of Ray's that are shown, from its end


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
    return [node["Resources"] for node in _machines(ray)]


def _machines(ray: Any) -> list[dict[str, Any]]:
    """What Ray knows of each machine that lives."""
    return [node for node in ray.nodes() if node["Alive"]]


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
        # Else the last words of a lost machine come on standard output, amid `--json`.
        ray._private.worker._worker_logs_enabled = False
    except (ConnectionError, RuntimeError, ValueError) as error:  # not there; another version; no address
        raise BadInput(
            f"cannot join the Ray cluster at {address or 'RAY_ADDRESS or on this machine'}: "
            f"{in_a_line(error)}"
        ) from error


@contextmanager
def _keeping_signals() -> Iterator[None]:
    """Keep our answer to SIGTERM: Ray's would end the process without a word."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def places(machines: Sequence[dict[str, float]], cpus: int, gpus: int) -> int:
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


def in_a_line(error: BaseException) -> str:
    """An error of Ray's: its name, and the end of what may be many lines."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[-LAST_WORDS:]}"


class ClusterWatch:
    """Looks for the cluster now and then: cut off from it, one would wait for its workers in vain."""

    def __init__(self) -> None:
        import ray

        context = ray.get_runtime_context()
        self.here, (host, _, port) = context.get_node_id(), context.gcs_address.rpartition(":")
        self.head = host, int(port)
        self.answered = self.looked = time.monotonic()

    def look(self) -> None:
        """See that the head answers and knows this machine.

        Raises:
            Incomplete: it does not.
        """
        if time.monotonic() - self.looked < LOOK_S:
            return
        why = self._why_lost()
        self.looked = time.monotonic()
        if why:
            raise Incomplete(
                f"this machine has lost the Ray cluster: {why}. Finished blocks are stored: run the same "
                "command again to go on"
            )

    def _why_lost(self) -> str:
        import ray

        try:
            socket.create_connection(self.head, LOOK_S).close()
        except OSError as error:
            silent = time.monotonic() - self.answered
            return f"its head does not answer ({error.strerror or error})" if silent > HEAD_LOST_S else ""
        self.answered = time.monotonic()
        lives = any(machine["NodeID"] == self.here for machine in _machines(ray))
        return "" if lives else "Ray's process here has ended"
