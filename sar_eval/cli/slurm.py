"""`--runtime slurm`: the shares of a set or of a run as one array job, whose script lies beside it."""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sar_eval.cli.terminal import say
from sar_eval.errors import BadInput
from sar_eval.options import WhereToRun, option

if TYPE_CHECKING:
    from sar_eval.runtime.slurm import ArrayJob
    from sar_eval.spec import RunSpec
    from sar_eval.storage.image_set import ImageSet
    from sar_eval.synthesis.spec import SetSpec

RUNTIME = "slurm"
PANEL = "SLURM"
MAX_TASKS = 100_000
MOST_NAMED = 20  # shares
PASSED_ON = ("workers", "threads", "devices")  # options of `WhereToRun` that hold for a task, too


@dataclass(frozen=True, slots=True, kw_only=True)
class OnSlurm:
    """How the work is cut into the tasks of an array job."""

    tasks: int | None = option(
        "Tasks of --runtime slurm, each with one share of the work.",
        "run",
        panel=PANEL,
        low=1,
        high=MAX_TASKS,
    )
    at_once: int | None = option(
        "Tasks that run at the same time, at most.", "run", panel=PANEL, low=1, high=MAX_TASKS
    )
    sbatch_option: list[str] | None = option(
        "An option of sbatch for the tasks, as partition=gpu or gres=gpu:1; may be repeated.",
        "run",
        panel=PANEL,
        metavar="NAME=VALUE",
    )
    setup: Path | None = option(
        "Shell lines that each task runs first, as `module load cuda`.", "run", panel=PANEL, metavar="FILE"
    )
    dry_run: bool = option(
        "Print the array script and the sbatch commands, and submit nothing.",
        "run",
        default=False,
        panel=PANEL,
    )


def is_asked(where: WhereToRun, slurm: OnSlurm) -> bool:
    """Whether SLURM is to run this; asked before anything is begun.

    Raises:
        BadInput: options of the one without the other, or of no use.
    """
    from sar_eval.options import asked
    from sar_eval.runtime.slurm import parse_sbatch_options

    if where.runtime == RUNTIME:
        if slurm.tasks is None:
            raise BadInput("--runtime slurm needs --tasks: in how many shares the work is cut")
        if where.shard is not None:
            raise BadInput("--shard is for one task: with --runtime slurm, sar-eval gives each its own")
        parse_sbatch_options(slurm.sbatch_option or ())
        _read_setup(slurm.setup)
        return True
    given = {name: value for name, value in asked(slurm).items() if value is not False}
    if given:
        raise BadInput(f"--{next(iter(given)).replace('_', '-')} is for --runtime slurm")
    return False


def submit_set(image_set: ImageSet, spec: SetSpec, where: WhereToRun, slurm: OnSlurm) -> None:
    """Submit the shares of a set that are incomplete and not in SLURM's queue already.

    Args:
        image_set: that was begun.
        spec: of the set.
        where, slurm: what was asked for.

    Raises:
        BadInput, Incomplete, StorageFailed: see `runtime.slurm.submit`.
    """
    from sar_eval.synthesis.shares import incomplete_shares

    uri, shares = image_set.store.uri, min(slurm.tasks or 1, spec.blocks)
    left = incomplete_shares(image_set.finished(), spec.blocks, shares)
    flags = [f"--{name}={value}" for name in PASSED_ON if (value := getattr(where, name)) is not None]
    code = [f"--code={name}" for name in spec.code]  # this command has named it
    words = [*_program(), "synth", "work", uri, *flags, *code]
    job = _job(uri, words, '--share "$share/$shares"', shares, "USR1", slurm)
    _submit(job, left, slurm)
    say(f"`sar-eval synth status {shlex.quote(uri)} --shares {shares}` says how far they are")


def submit_run(context: typer.Context, spec: RunSpec, where: WhereToRun, slurm: OnSlurm) -> None:
    """Submit a command, once a shard; shards that are finished or queued are left out.

    Args:
        context: of the command, whose words the tasks repeat.
        spec: that it resolved to.
        where, slurm: what was asked for.

    Raises:
        BadInput, Incomplete, StorageFailed: see `runtime.slurm.submit`.
    """
    from sar_eval.spec import run_folder
    from sar_eval.stages.shards import is_finished
    from sar_eval.storage.run_folder import RunFolder

    out = where.out or run_folder(spec, Path("runs"))
    shares = slurm.tasks or 1
    folders = [Path(f"{out}-{index}-of-{shares}") for index in range(1, shares + 1)]
    left = [number for number, path in enumerate(folders, 1) if not is_finished(RunFolder(path))]
    words = [*_program(), *_words_again(context)]
    own = f'--shard "$share/$shares" --out {shlex.quote(f"{out}-")}"$share-of-$shares"'
    _submit(_job(str(out), words, own, shares, "TERM", slurm), left, slurm)
    parts, whole = f"{shlex.quote(f'{out}-')}*-of-{shares}", shlex.quote(str(out))
    say(f"when they are done: sar-eval join {parts} --out {whole}")


def _submit(job: ArrayJob, left: Sequence[int], slurm: OnSlurm) -> None:
    from sar_eval.runtime.slurm import queued_shares, sbatch_lines, script, submit

    if slurm.dry_run:
        say(script(job))
        for line in sbatch_lines(job, left):
            say(f"# {shlex.join(line)}")
        return
    queued = queued_shares(job.folder, job.shares)
    missing = [share for share in left if share not in queued]
    if skipped := len(left) - len(missing):
        say(f"{skipped} shares are in SLURM's queue already", err=True)
    if not missing:
        say(f"nothing to submit: of {job.shares} shares, {job.shares - len(left)} are complete")
        return
    for made in submit(job, missing):
        say(f"submitted job {made.job}: {_named(made.shares)} of {job.shares}; logs in {job.folder}/logs")


def _named(shares: Sequence[int]) -> str:
    from sar_eval.runtime.slurm import ranges

    return f"share{'s' if len(shares) > 1 else ''} {ranges(shares)}"


def _job(
    target: str, words: Sequence[str], own: str, shares: int, stop_signal: str, slurm: OnSlurm
) -> ArrayJob:
    from sar_eval.runtime.slurm import ArrayJob, parse_sbatch_options

    folder = job_folder(target)
    return ArrayJob(
        name=f"sar-eval-{folder.name.removesuffix('.slurm')}",
        words=words,
        own=own,
        shares=shares,
        folder=folder,
        workdir=Path.cwd(),
        stop_signal=stop_signal,
        at_once=slurm.at_once,
        options=parse_sbatch_options(slurm.sbatch_option or ()),
        setup=_read_setup(slurm.setup),
    )


def job_folder(target: str) -> Path:
    """Where script and logs lie: beside a folder; of what lies in a bucket, here, named after it."""
    if "://" not in target:
        return Path(f"{target.rstrip('/')}.slurm").absolute()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", target.rstrip("/").rpartition("/")[2]).strip("-.") or "set"
    return Path(f"{name}-{hashlib.blake2b(target.encode(), digest_size=4).hexdigest()}.slurm").absolute()


def _read_setup(path: Path | None) -> str:
    from sar_eval.documents import read_bytes

    if path is None:
        return ""
    try:
        return read_bytes(path, 100_000).decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"--setup {path} is not UTF-8") from error


def _program() -> list[str]:
    """This Python and package, wherever a task's PATH leads."""
    return [sys.executable, "-m", "sar_eval"]


def _words_again(context: typer.Context) -> Iterator[str]:
    """The words of this command, without what is SLURM's and what differs by task."""
    left_out = {"runtime", "shard", "out", *OnSlurm.__dataclass_fields__}
    yield from context.command_path.split()[1:]
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in left_out and source is not None and source.name != "DEFAULT":
            yield from _flag(parameter, context.params[name])


def _flag(parameter: Any, value: Any) -> Iterator[str]:
    if parameter.param_type_name == "argument":
        yield str(value)
    elif isinstance(value, bool):
        yield parameter.opts[0] if value else parameter.secondary_opts[0]
    else:
        for one in value if isinstance(value, list | tuple) else [value]:
            yield f"{parameter.opts[0]}={one}"
