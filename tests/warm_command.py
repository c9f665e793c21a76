"""The command line in processes that start at once: forked from one that has imported everything.

A new process, and each of its workers, spends seconds of CPU on imports, in which nothing happens that a
kill could spoil. Here they are done once: commands and their workers are forked. What they do is the same.
Run as a script, this is the process that they are forked from; see `WarmCommand`. Environments that Python
or an import reads need a new process; see `is_for_a_new_process`.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
WORKERS_END_S = 60.0
KILLED = -int(signal.SIGKILL)
# Variables that are read while Python or a module that is imported here starts.
READ_AT_START = ("PYTHON", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "TORCH", "CUDA", "LD_", "LC_", "LANG", "TZ")
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
        words = [sys.executable, "-m", "tests.warm_command"]
        self._process = subprocess.Popen(words, text=True, cwd=ROOT, start_new_session=True, **pipes)
        return self

    def run(self, words: Sequence[object], kill_after: float | None = None) -> int | None:
        """The command's exit code; None if it was killed, with its group."""
        code = self._ask(words, kill_after, os.environ, Path.cwd(), [os.devnull, ""])
        return None if code == KILLED else code

    def completed(
        self,
        words: Sequence[object],
        timeout: float,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` with captured text.

        Raises:
            subprocess.TimeoutExpired: it takes longer than `timeout` seconds, and was killed.
        """
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, name) for name in ("stdout", "stderr")]
            began, environment = time.monotonic(), os.environ if env is None else env
            code = self._ask(words, timeout, environment, Path(cwd or "").absolute(), list(map(str, files)))
            out, err = (file.read_text() for file in files)
        if code == KILLED and time.monotonic() - began >= timeout:
            raise subprocess.TimeoutExpired(list(map(str, words)), timeout, out, err)
        return subprocess.CompletedProcess(list(map(str, words)), code, out, err)

    def _ask(
        self,
        words: Sequence[object],
        kill_after: float | None,
        environment: Mapping[str, str],
        folder: Path,
        files: Sequence[str],
    ) -> int:
        request = {
            "words": [str(word) for word in words],
            "kill_after": kill_after,
            "environment": dict(environment),
            "folder": str(folder),
            "files": files,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            reply: int = json.loads(self._process.stdout.readline())
        except BaseException:  # such as a test's time limit
            self._start_again()
            raise
        return reply

    def _start_again(self) -> None:
        """Kill the command that nobody waits for: its reply would be taken for the next one's."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._process.pid).children():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was not yet written to it
                assert pipe is not None
                pipe.close()
        self.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()


def is_for_a_new_process(environment: Mapping[str, str] | None) -> bool:
    """Whether a command with this environment differs from ours in what is read before it begins."""
    if environment is None:
        return False
    names = {*environment, *os.environ}
    return any(
        environment.get(name) != os.environ.get(name) for name in names if name.startswith(READ_AT_START)
    )


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
            _command(request)
        replies.write(json.dumps(_wait(child, request["kill_after"])) + "\n")


def _command(request: Mapping[str, Any]) -> None:
    """In the child: be a new process that runs the command line."""
    from sar_eval import __main__ as program

    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, name in zip((1, 2), request["files"], strict=True):
        if name:
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: context(method and "fork")  # type: ignore
    os.register_at_fork(after_in_child=_default_signals)
    sys.modules["__main__"] = program  # its name and package are in the usage that a bad flag prints
    sys.argv = [str(program.__file__), *request["words"]]
    code = 70
    try:
        code = _exit_code(program.main)
    finally:
        with contextlib.suppress(OSError, ValueError):  # closed by whom the test made it so
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _exit_code(sar_eval: Callable[[], None]) -> int:
    """What Python makes of the end of a program, with what runs at its exit."""
    code: object = 0
    try:
        sar_eval()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001 - as Python itself does
        traceback.print_exc()
        code = 1
    if not isinstance(code, int):
        sys.stderr.write(f"{code}\n")
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    return code


def _default_signals() -> None:
    """Workers are started anew where commands are: they have no handlers of the command."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    if callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _wait(child: int, kill_after: float | None) -> int:
    """Exit code of a child, `KILLED` if its time was up first."""
    end = time.monotonic() + (600.0 if kill_after is None else kill_after)
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    _wait_for_workers(child)
    return KILLED


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
