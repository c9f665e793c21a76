"""SLURM: one array job over the shares of a piece of work, as a script that people can read and mend.

The script is written beside the work and submitted by `sbatch`. A task runs one share and is told of its
time limit two minutes before it by USR1: it finishes the blocks in work, and is queued again. A task that
SLURM itself ends (preemption, a lost node) is queued again by `--requeue`. Nothing is kept in memory
between tasks: what is done lies in the store.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from sar_eval.documents import check_text, convert, read_json
from sar_eval.errors import BadInput, Incomplete, StorageFailed

CHUNK = 1000  # tasks of one array: SLURM's MaxArraySize is 1001 unless a site says otherwise
GRACE_S = 120  # from the warning to the end of a task's time
SPREAD_S = 60  # over which many tasks start, so that they do not all load and list at once
SPREAD_FROM = 8  # tasks; fewer start together
COMMAND_TIMEOUT_S = 120.0  # a busy controller may take a minute to answer
SCRIPT, RECORD = "array.sbatch", "submitted.json"
OURS = ("array", "requeue", "no-requeue", "open-mode", "wrap", "parsable", "test-only", "wait")
_OPTION = re.compile(r"[a-z][a-z0-9-]*")
_JOB = re.compile(r"(\d+)(;\S+)?")
# What of a user's jobs still runs or will: one array task a line, as "JOB INDEX".
_QUEUED = (
    "--me",
    "--noheader",
    "--array",
    "--states=PENDING,RUNNING,SUSPENDED,CONFIGURING",
    "--format=%F %K",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayJob:
    """One array job: share I of N is task I - 1.

    Attributes:
        name: of the job.
        words: of the command that each task runs.
        own: what differs by task, appended to the command as shell text; `$share` is I, and `$shares` N.
        shares: N.
        folder: of script and logs, on a file system that all nodes see.
        workdir: where tasks run, as the paths among `words` are relative to it.
        stop_signal: what the command understands as "finish what is begun and end with exit code 3".
        at_once: tasks that run at the same time, at most; None for as many as SLURM lets.
        options: further options of `sbatch`, as {"partition": "gpu", "gres": "gpu:1"}; those without a
            value have "".
        setup: shell text before the command, such as `module load cuda`.
    """

    name: str
    words: Sequence[str]
    own: str
    shares: int
    folder: Path
    workdir: Path
    stop_signal: str
    at_once: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    setup: str = ""

    @property
    def script_path(self) -> Path:
        """Of the script."""
        return self.folder / SCRIPT


@dataclass(frozen=True, slots=True)
class Submission:
    """A submitted array: SLURM's number for it, the share of its task 0, its shares, and N."""

    job: str
    first: int
    shares: list[int]
    of: int


@dataclass(frozen=True, slots=True)
class _Chunk:
    first: int
    shares: list[int]
    arguments: list[str]


def parse_sbatch_options(words: Iterable[str]) -> dict[str, str]:
    """`--sbatch-option` words, `NAME=VALUE` or `NAME`.

    Raises:
        BadInput: a word of another form, or an option that the script sets itself.
    """
    options: dict[str, str] = {}
    for word in words:
        name, _, value = word.strip().removeprefix("--").partition("=")
        if not _OPTION.fullmatch(name) or not value.isprintable():
            raise BadInput(f"--sbatch-option {word!r}: NAME=VALUE, as partition=gpu or gres=gpu:1")
        if name in OURS or (name == "signal" and not value.startswith("B:USR1@")):
            raise BadInput(
                f"--sbatch-option {name}: the array script sets this itself; --tasks and --at-once are "
                f"flags of sar-eval, and signal may be B:USR1@SECONDS (default {GRACE_S})"
            )
        check_text(value, "--sbatch-option")
        options[name] = value
    return options


def script(job: ArrayJob) -> str:
    """The array script."""
    options = {
        "job-name": job.name,
        "output": f"{str(job.folder).replace('%', '%%')}/logs/%A_%a.log",
        "signal": f"B:USR1@{GRACE_S}",
        **job.options,
        "open-mode": "append",
        "requeue": "",
    }
    return _SCRIPT.format(
        options="\n".join(_sbatch_line(*option) for option in options.items()),
        shares=job.shares,
        workdir=shlex.quote(str(job.workdir)),
        spread=SPREAD_S if job.shares >= SPREAD_FROM else 0,
        setup=f"{job.setup.strip()}\n\n" if job.setup.strip() else "",
        command=f"{shlex.join(job.words)} {job.own}",
        stop_signal=job.stop_signal,
        supervisor=shlex.join([sys.executable, "-m", "sar_eval.runtime.array_task"]),
    )


def _sbatch_line(name: str, value: str) -> str:
    return f"#SBATCH --{name}={shlex.quote(value)}" if value else f"#SBATCH --{name}"


_SCRIPT = """\
#!/bin/bash
{options}
#
# One share of the work a task. Written by sar-eval, which submits it by `sbatch --array=... FILE FIRST`:
# task T of the array does share FIRST + T. Any other scheduler can run the command at the end as well.
first=${{1:-1}}
shares={shares}
share=$((first + SLURM_ARRAY_TASK_ID))
cd {workdir} || exit 2

# Not all tasks load the checkpoint and list the store at once.
[ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ] || sleep $((share * {spread} / shares))

{setup}# Passes the warning before the end of the time (USR1) on as {stop_signal}: what is begun is
# finished, and the task queued again. What SLURM itself ends (preemption, a lost node) it queues
# again by --requeue.
exec {supervisor} {stop_signal} \\
    {command}
"""


def write_script(job: ArrayJob) -> Path:
    """Write the script, and make the folder of its logs.

    Raises:
        StorageFailed: the folder cannot be written.
    """
    try:
        (job.folder / "logs").mkdir(parents=True, exist_ok=True)
        job.script_path.write_text(script(job), encoding="utf-8")
    except OSError as error:
        raise StorageFailed(f"cannot write {job.script_path}: {error.strerror or error}") from error
    return job.script_path


def sbatch_lines(job: ArrayJob, shares: Sequence[int]) -> list[list[str]]:
    """The words of each `sbatch` command that submits those shares, for people to read or run."""
    return [chunk.arguments for chunk in _chunks(job, shares)]


def submit(job: ArrayJob, shares: Sequence[int]) -> list[Submission]:
    """Submit the shares, in arrays of at most `CHUNK` tasks, and record them in the folder.

    Args:
        job: its script is written here.
        shares: numbers from 1, rising; those that are left to do.

    Raises:
        BadInput: there is no `sbatch` here, or it refuses the first array.
        Incomplete: it refuses a later one; those before it are submitted.
        StorageFailed: the folder cannot be written.
    """
    write_script(job)
    made: list[Submission] = []
    for chunk in _chunks(job, shares):
        try:
            answer = _run(chunk.arguments)
        except BadInput as error:
            if not made:
                raise
            raise Incomplete(
                f"{sum(len(s.shares) for s in made)} of {len(shares)} tasks are submitted, then {error}. "
                "The same command again submits the others"
            ) from error
        made.append(Submission(_job_number(answer), chunk.first, chunk.shares, job.shares))
        _record(job.folder, made)
    return made


def queued_shares(folder: Path, shares: int) -> set[int]:
    """Shares of earlier submissions of the same cut that still run or wait in SLURM's queue.

    Raises:
        BadInput: SLURM does not answer, or the folder's record was changed by hand.
    """
    earlier = {s.job: s for s in read_record(folder) if s.of == shares}
    if not earlier:
        return set()
    found = set()
    for line in _run(["squeue", *_QUEUED]).splitlines():
        job, _, index = line.strip().partition(" ")
        if job in earlier and index.isdecimal():
            found.add(earlier[job].first + int(index))
    return found


def read_record(folder: Path) -> list[Submission]:
    """What was submitted from a folder, the oldest first; empty if nothing was.

    Raises:
        BadInput: the record was changed by hand.
    """
    path = folder / RECORD
    return convert(read_json(path), list[Submission], str(path)) if path.exists() else []


def _record(folder: Path, new: Sequence[Submission]) -> None:
    known = {s.job: s for s in [*read_record(folder), *new]}
    rows = [{"job": s.job, "first": s.first, "shares": s.shares, "of": s.of} for s in known.values()]
    temporary = folder / f"{RECORD}.tmp"
    temporary.write_text(json.dumps(rows) + "\n")
    temporary.replace(folder / RECORD)


def _chunks(job: ArrayJob, shares: Sequence[int]) -> list[_Chunk]:
    groups = [(n * CHUNK + 1, list(g)) for n, g in groupby(sorted(shares), lambda s: (s - 1) // CHUNK)]
    at_once = job.at_once and max(1, job.at_once // max(1, len(groups)))
    made = []
    for first, own in groups:
        array = ranges([share - first for share in own]) + (f"%{at_once}" if at_once else "")
        words = ["sbatch", "--parsable", f"--array={array}", str(job.script_path), str(first)]
        made.append(_Chunk(first, own, words))
    return made


def ranges(numbers: Iterable[int]) -> str:
    """Rising numbers as SLURM writes them: 0-3,7,9-10."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _run(words: Sequence[str]) -> str:
    """Standard output of one of SLURM's commands."""
    if shutil.which(words[0]) is None:
        raise BadInput(
            f"there is no {words[0]} here: start this on a login node of a SLURM cluster, or see with "
            "--dry-run what another scheduler would have to run"
        )
    try:
        ended = subprocess.run(
            words, capture_output=True, text=True, errors="replace", check=False, timeout=COMMAND_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadInput(f"{words[0]} did not answer: {error}") from error
    if ended.returncode:
        reason = " ".join(ended.stderr.split())[-500:]
        raise BadInput(f"{words[0]} ended with exit code {ended.returncode}: {reason}")
    return ended.stdout


def _job_number(answer: str) -> str:
    found = _JOB.search(answer)
    if found is None:
        raise BadInput(f"sbatch --parsable answered {answer[:80]!r}, which is no number of a job")
    return found[1]
