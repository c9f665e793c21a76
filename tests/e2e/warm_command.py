"""The command line in processes that start at once: forked from one that has imported everything.

A new process, and each of its workers, spends seconds of CPU on imports, in which nothing happens that a
kill could spoil. Here they are done once: commands and their workers are forked. What they do is the same.
Run as a script, this is the process that they are forked from; see `WarmCommand`.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]
WORKERS_END_S = 60.0
# What the commands of these tests import, here and in their workers.
MODULES = (
    *("torch", "cv2", "pandas", "scipy.special", "pydantic", "PIL.BmpImagePlugin", "PIL.GifImagePlugin"),
    *("PIL.JpegImagePlugin", "PIL.PngImagePlugin", "sar_eval.cli.progress", "sar_eval.decoding.load"),
    *("sar_eval.decoding.loop", "sar_eval.engines.native", "sar_eval.families.cosmos"),
    *(
        "sar_eval.judges.shapes",
        "sar_eval.report.page",
        "sar_eval.report.scorers",
        "sar_eval.runtime.local",
    ),
    *("sar_eval.stages.generate", "sar_eval.stages.judge", "sar_eval.stages.resolve"),
    *("sar_eval.stages.summarize", "sar_eval.stages.track", "sar_eval.suites.shapes.detect"),
    *("sar_eval.tokenization.block", "sar_eval.tokenization.driver"),
)


class WarmCommand:
    """Runs commands, one at a time, and can kill one after so many seconds."""

    def __enter__(self) -> WarmCommand:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        words = [sys.executable, "-m", "tests.e2e.warm_command"]
        self._process = subprocess.Popen(words, text=True, cwd=ROOT, start_new_session=True, **pipes)
        return self

    def run(self, words: Sequence[object], kill_after: float | None = None) -> int | None:
        """The command's exit code; None if it was killed, with its group."""
        request = {"words": [str(word) for word in words], "kill_after": kill_after}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        reply: int | None = json.loads(self._process.stdout.readline())
        return reply

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()


def main() -> None:
    """Import everything, then fork a command for each line of standard input."""
    for name in MODULES:
        import_module(name)
    gc.freeze()  # its pages stay shared
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.set_inheritable(replies.fileno(), False)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            replies.close()
            _command(request["words"])
        replies.write(json.dumps(_wait(child, request["kill_after"])) + "\n")


def _command(words: list[str]) -> None:
    """In the child: be a new process that runs the command line."""
    from sar_eval.cli import main as sar_eval

    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: context(method and "fork")  # type: ignore
    sys.argv = ["sar-eval", *words]
    code: Any = 70
    try:
        sar_eval()
    except SystemExit as end:
        code = end.code
    finally:
        os._exit(code or 0)


def _wait(child: int, kill_after: float | None) -> int | None:
    """Exit code of a child; None if its time was up first, and it was killed."""
    end = time.monotonic() + (600.0 if kill_after is None else kill_after)
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    _wait_for_workers(child)
    return None


def _wait_for_workers(session: int) -> None:
    """Workers end by themselves when their command is gone; until then a forked one holds its lock open.

    Raises:
        TimeoutError: they do not.
    """
    end = time.monotonic() + WORKERS_END_S
    while _is_alive(session):
        if time.monotonic() > end:
            raise TimeoutError(f"workers of the killed command {session} live on")
        time.sleep(0.01)


def _is_alive(session: int) -> bool:
    """Whether a process of this session has a thread that runs.

    Its first thread may have ended, and the process look like a zombie, while others hold its files open.
    """
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, *_, found = (path / "stat").read_text().rpartition(")")[2].split()[:4]
            threads = len(list((path / "task").iterdir()))
        except OSError:  # it has just ended
            continue
        if int(found) == session and (state != "Z" or threads > 1):
            return True
    return False


if __name__ == "__main__":
    main()
