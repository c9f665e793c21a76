"""A SLURM of one machine: `sbatch`, `scontrol` and `squeue` for the PATH, and what runs the tasks.

The commands check and record what they are told; the controller, in the test's process, starts tasks as
SLURM does: the spooled copy of the script, in a session of its own, its output appended to the log, with
the environment that scripts read. It can warn (USR1 to the batch shell alone), preempt, and kill them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

MAX_ARRAY_SIZE = 1001
KNOWN = {"job-name", "output", "signal", "open-mode", "requeue", "array", "parsable"}
KNOWN |= {"partition", "gres", "time", "comment"}


def main(folder: Path, command: str, words: list[str]) -> int:
    """One call of a command; its exit code."""
    with (folder / "calls.log").open("a") as log:
        log.write(f"{shlex.join([command, *words])}\n")
    if (folder / "down").exists():
        return _refuse(command, "Unable to contact slurm controller (connect failure)")
    return {"sbatch": _sbatch, "scontrol": _scontrol, "squeue": _squeue}[command](folder, words)


def _refuse(command: str, why: str) -> int:
    sys.stderr.write(f"{command}: error: {why}\n")
    return 1


def _sbatch(folder: Path, words: list[str]) -> int:
    flags = [word for word in words if word.startswith("--")]
    path, *arguments = [word for word in words if not word.startswith("--")]
    text = Path(path).read_text()
    options = _options(flags) | _options(
        [shlex.split(line)[1] for line in text.splitlines() if line.startswith("#SBATCH ")]
    )
    if not text.startswith("#!") or (unknown := sorted(options.keys() - KNOWN)):
        return _refuse(
            "sbatch", f"unrecognized option '--{unknown[0]}'" if text[:2] == "#!" else "no script"
        )
    indices, _, limit = options["array"].partition("%")
    tasks = [n for part in indices.split(",") for n in _span(part)]
    if max(tasks) >= MAX_ARRAY_SIZE or "parsable" not in options:
        return _refuse("sbatch", "Batch job submission failed: Invalid job array specification")
    number = 100 + 10 * len(list(folder.glob("jobs/*")))
    job = folder / "jobs" / str(number)
    job.mkdir(parents=True)
    (job / "script").write_text(text)
    record = {"tasks": tasks, "limit": int(limit or 0), "arguments": arguments, "options": options}
    (job / "job.json.tmp").write_text(json.dumps(record))
    (job / "job.json.tmp").replace(job / "job.json")
    sys.stdout.write(f"{number}\n")
    return 0


def _options(words: list[str]) -> dict[str, str]:
    pairs = [word.removeprefix("--").partition("=") for word in words]
    return {name: value for name, _, value in pairs}


def _span(text: str) -> range:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    assert match, text
    return range(int(match[1]), int(match[2] or match[1]) + 1)


def _scontrol(folder: Path, words: list[str]) -> int:
    verb, name = words
    job, _, task = name.partition("_")
    assert verb == "requeue", words
    if not (folder / "jobs" / job / "job.json").exists():
        return _refuse("scontrol", f"Invalid job id specified for job {name}")
    (folder / "jobs" / job / f"requeue-{task}").touch()
    return 0


def _squeue(folder: Path, words: list[str]) -> int:
    assert {"--me", "--noheader", "--array", "--format=%F %K"} <= set(words), words
    for job in sorted(folder.glob("jobs/*")):
        ended = {int(path.name.split("-")[1]) for path in job.glob("ended-*")}
        tasks = json.loads((job / "job.json").read_text())["tasks"]
        sys.stdout.writelines(f"{job.name} {task}\n" for task in tasks if task not in ended)
    return 0


@dataclass
class Task:
    """One task of an array, running, waiting or ended."""

    job: Path
    index: int
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    codes: list[int] = field(default_factory=list)  # of each of its lives
    ended: bool = False

    @property
    def running(self) -> bool:
        return self.process is not None


class SlurmStandIn:
    """The controller, and the folder of its commands (`bin`), to be put first in the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.tasks: list[Task] = []
        self.bin.mkdir(parents=True)
        for name in ("sbatch", "scontrol", "squeue"):
            words = [sys.executable, "-E", "-S", __file__, str(folder), name]
            (self.bin / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            (self.bin / name).chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """The calls of the commands so far."""
        return (self.folder / "calls.log").read_text().splitlines()

    @property
    def running(self) -> list[Task]:
        return [task for task in self.tasks if task.running]

    def run(self, disturb: Callable[[], None] = lambda: None, timeout: float = 60.0) -> None:
        """Run all that is submitted until nothing is left; `disturb` is called between."""
        end = time.monotonic() + timeout
        try:
            while self.step():
                assert time.monotonic() < end, "tasks did not end in time"
                disturb()
                time.sleep(0.01)
        finally:
            for task in self.running:
                self._kill(task)

    def step(self) -> bool:
        """Look for new jobs, for ends and for calls of `scontrol`; start what may start."""
        for job in sorted(self.folder.glob("jobs/*/job.json")):
            if not any(task.job == job.parent for task in self.tasks):
                self.tasks += [Task(job.parent, n) for n in json.loads(job.read_text())["tasks"]]
        for task in self.running:
            self._look(task)
        for task in self.tasks:
            limit = json.loads((task.job / "job.json").read_text())["limit"] or len(self.tasks)
            at_once = sum(other.job == task.job for other in self.running)
            if not task.ended and not task.running and at_once < limit:
                self._start(task)
        return not all(task.ended for task in self.tasks)

    def warn(self, task: Task) -> None:
        """The warning before the end of the time, to the batch shell alone."""
        assert task.process is not None
        os.kill(task.process.pid, signal.SIGUSR1)

    def preempt(self, task: Task) -> None:
        """End a task at once and queue it again: preemption without grace, or a node that is lost."""
        self._kill(task)
        task.restarts += 1

    def kill(self, task: Task) -> None:
        """End a task at once for good, as for too much memory."""
        self._kill(task)
        self._end(task)

    def _start(self, task: Task) -> None:
        record = json.loads((task.job / "job.json").read_text())
        log = {"%A": task.job.name, "%a": str(task.index), "%%": "%"}
        output = re.sub("%A|%a|%%", lambda found: log[found[0]], record["options"]["output"])
        own = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "SLURM_JOB_ID": str(int(task.job.name) + 1000 * task.index),
            "SLURM_ARRAY_JOB_ID": task.job.name,
            "SLURM_ARRAY_TASK_ID": str(task.index),
            "SLURM_RESTART_COUNT": str(task.restarts),
        }
        with Path(output).open("ab") as file:
            task.process = subprocess.Popen(
                ["/bin/bash", str(task.job / "script"), *record["arguments"]],
                env=os.environ | own,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def _look(self, task: Task) -> None:
        assert task.process is not None
        requeued, code = task.job / f"requeue-{task.index}", task.process.poll()
        if requeued.exists():  # SLURM does not wait until the script has ended
            self._kill(task)
            requeued.unlink()
            task.restarts += 1
        elif code is not None:
            self._kill(task)
            self._end(task)

    def _kill(self, task: Task) -> None:
        """End all processes of a task, in whatever group they are, as a control group does."""
        assert task.process is not None
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                if int(stat.read_text().rpartition(")")[2].split()[3]) == task.process.pid:
                    os.kill(int(stat.parent.name), signal.SIGKILL)
        task.codes.append(task.process.wait())
        task.process = None

    def _end(self, task: Task) -> None:
        task.ended = True
        (task.job / f"ended-{task.index}").touch()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
