"""The worker's end of a reward: makes the judge and judges what `rewards.process` sends."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

from sar_eval import discover
from sar_eval.errors import DeviceLost, SarEvalError
from sar_eval.types import Generation, Json, Prompt, Verdict, checked_verdict

POLL_S = 0.5  # how often either end looks whether the other is still there
LARGEST_SCORE = 1e30  # sums, weights and squares of scores stay numbers

Item = tuple[Prompt, Generation]


@dataclass(frozen=True, slots=True)
class JudgeCall:
    """How a worker makes its judge.

    Attributes:
        judge: its name, or `path.py:JUDGE`.
        device: "cpu", "cuda" (the rank's own card) or "cuda:1", as the trainer counts its cards.
        options: of the judge.
        timeout_s: the longest wait for the next verdict, in seconds.
        sharing: how many workers share the device's memory.
    """

    judge: str
    device: str = "cpu"
    options: Mapping[str, Json] = field(default_factory=dict)
    timeout_s: float = 300.0
    sharing: int = 1


def main(number: int, parent: int) -> None:
    """Make the judge, say so, and judge what arrives until None does.

    Args:
        number: file descriptor of the pipe to the trainer.
        parent: process id of the trainer.
    """
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    # A child of the judge's that kept the pipe would hide this worker's death from the trainer.
    os.set_inheritable(number, False)
    connection = Connection(number)
    os.register_at_fork(after_in_child=connection.close)
    with suppress(EOFError, OSError):  # the trainer is gone, or the judge has closed the pipe
        _run(connection)


def _end_with(parent: int) -> None:
    """End with all children when the trainer is no more, even killed."""
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os.killpg(0, signal.SIGKILL)


def _run(connection: Connection) -> None:
    call: JudgeCall = connection.recv()
    try:
        with _made(call) as judge:
            connection.send(("ready", str(judge.version)))
            while (items := connection.recv()) is not None:
                connection.send(_judge(connection, judge, items))
    except SarEvalError as error:
        connection.send(("failed", str(error)))


@contextmanager
def _made(call: JudgeCall) -> Iterator[Any]:
    """The judge, entered.

    Raises:
        BadInput, UnknownName: there is no such judge, it does not take its options, or it cannot start.
    """
    make = discover.load("judges", call.judge)
    with discover.guarded(f"judge {call.judge!r} cannot be made with the options {dict(call.options)}"):
        made = make(device=call.device.partition(":")[0], **call.options)
    with ExitStack() as stack:
        with discover.guarded(f"judge {call.judge!r} cannot start"):
            judge = stack.enter_context(made)
            _ = judge.version, judge.judge
        if call.device == "cpu" and (torch := sys.modules.get("torch")):
            torch.set_num_threads(1)
        yield judge


def _judge(connection: Connection, judge: Any, items: Sequence[Item]) -> tuple[str, str]:
    """Send the verdicts as they come, each with its item's position; returns how that ended, and why."""
    try:
        for position, verdict in _verdicts(judge, items):
            connection.send(("verdict", (position, verdict)))
    except DeviceLost as error:
        return "lost", str(error)  # another process may find the device well
    except SarEvalError as error:
        return "done", str(error)
    # A judge may raise anything; the trainer goes on. What it must not end with: a traceback of ours.
    except (Exception, KeyboardInterrupt, GeneratorExit) as error:  # noqa: BLE001
        return "done", " ".join(f"{type(error).__name__}: {error}".split())
    return "done", ""


def _verdicts(judge: Any, items: Sequence[Item]) -> Iterator[tuple[int, Verdict]]:
    """The judge's verdicts with the positions of their items; those that it forgot become errors.

    Items of one key (a prompt twice in a step) are the same draw, and get their verdicts in order.

    Raises:
        ValueError: a verdict for what was not asked, or a second one.
        TypeError: something else than a verdict.
    """
    waiting: dict[str, deque[int]] = defaultdict(deque)
    for position, (_, generation) in enumerate(items):
        waiting[generation.key].append(position)
    given: dict[str, int] = {}  # the last position of each key
    for verdict in judge.judge(items):
        if not isinstance(verdict, Verdict):
            raise TypeError(f"the judge gave a {type(verdict).__name__} in place of a verdict")
        key = str(verdict.key)
        if waiting.get(key):
            given[key] = waiting[key].popleft()
            yield given[key], _plain(verdict)
        elif key in given:
            why = f"the judge gave a second verdict for {key!r}"
            yield given[key], _missing(judge, key, why)  # neither counts
            raise ValueError(why)
        else:
            raise ValueError(f"the judge gave a verdict for {key!r}, which it was not asked for")
    for position in (position for positions in waiting.values() for position in positions):
        yield position, _missing(judge, items[position][1].key, "the judge gave no verdict")


def _missing(judge: Any, key: str, why: str) -> Verdict:
    return Verdict(key, type(judge).__name__, str(judge.version), error=why)


def _plain(verdict: Verdict) -> Verdict:
    """The verdict in plain values (the trainer may lack a plugin's classes), with a number or an error."""
    try:
        score = None if verdict.score is None else float(verdict.score)
        passed = None if verdict.passed is None else bool(verdict.passed)
        evidence = json.loads(json.dumps(verdict.evidence))
    except (TypeError, ValueError, RecursionError) as error:
        why = f"the judge's verdict is not plain: {error}"
        return Verdict(str(verdict.key), str(verdict.judge), str(verdict.judge_version), error=why)
    return _bounded(
        Verdict(
            key=str(verdict.key),
            judge=str(verdict.judge),
            judge_version=str(verdict.judge_version),
            score=score,
            passed=passed,
            reason=str(verdict.reason),
            evidence=evidence,
            error=None if verdict.error is None else str(verdict.error),
        )
    )


def _bounded(verdict: Verdict) -> Verdict:
    """The verdict with a score that can be reckoned with, or an error."""
    checked = checked_verdict(verdict)
    if checked.score is None or abs(checked.score) <= LARGEST_SCORE:
        return checked
    why = f"the judge's score is {checked.score:g}, beyond {LARGEST_SCORE:g}"
    return replace(checked, score=None, passed=None, error=why)
