"""`synth work`: one share of a set, as tasks of a batch system run it, of SLURM's or any other's."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli.options import Code, with_options
from sar_eval.cli.synth_progress import Watch
from sar_eval.cli.terminal import say
from sar_eval.errors import BadInput, Incomplete
from sar_eval.options import WhereToRun, parse_shard
from sar_eval.runtime.interrupts import TimeWarning

if TYPE_CHECKING:
    from sar_eval.synthesis.driver import Driver
    from sar_eval.types import Shard


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(work)


@with_options(without=["out", "shard"])
def work(
    uri: Annotated[str, typer.Argument(metavar="SET", help="Folder or URI of a set that was begun.")],
    share: Annotated[
        str, typer.Option("--share", metavar="I/N", help="The share, as 2/8 for the second of eight.")
    ],
    where: WhereToRun,
    watch: Watch,
    code: Code = None,
) -> None:
    """Draw one share of a set, then what slower shares have left.

    `synth start --runtime slurm` runs this in its tasks; any other scheduler can, with I from 1 to N. What
    is drawn, and how, stands in the set. USR1 lets it finish the blocks in work and end.
    """
    with TimeWarning() as warning:  # before anything that takes long
        shard = parse_shard(share, "--share")
        if shard is None or not uri:
            raise BadInput("SET and --share I/N are needed, as 2/8 for the second of eight shares")
        _work(uri, shard, where, watch, code or (), warning)


def _work(
    uri: str,
    shard: Shard,
    where: WhereToRun,
    watch: Watch,
    code: Sequence[str],
    warning: TimeWarning,
) -> None:
    from sar_eval.cli.synth import finish, runtime_of, working  # which registers this command
    from sar_eval.storage.image_set import ImageSet
    from sar_eval.storage.objects import open_store
    from sar_eval.synthesis.begin import stored_spec
    from sar_eval.synthesis.driver import Driver

    image_set = ImageSet(open_store(uri))
    spec = stored_spec(image_set)
    spec.check_code(code, uri)
    image_set.store.check_writable()
    with working(uri, watch) as monitor:
        driver = Driver(
            image_set,
            spec,
            runtime_of(spec, where),
            _holder(shard),
            monitor,
            shard,
            is_stopped=lambda: warning.came,
            tries_again=_first_start(),
        )
        driver.run()
    if driver.own_left:
        _stop_incomplete(uri, shard, driver, warning.came)
    if not driver.left:
        finish(image_set, explain=False, err=watch.fills_stdout)
    else:
        say(
            f"share {shard} is complete, {driver.left} of {spec.blocks} blocks are in work elsewhere",
            err=True,
        )
    if driver.lacking:
        raise Incomplete(f"{driver.lacking} draws of {uri} failed or are unjudged: see `synth status`")


def _holder(shard: Shard) -> str:
    """Name of this worker in its claims: a task that SLURM starts again goes on with those it had."""
    job = os.environ.get("SLURM_JOB_ID", "")
    name = f"slurm-{job}" if job.isalnum() else uuid.uuid4().hex
    return f"{name}-{shard.index}-of-{shard.of}"


def _first_start() -> bool:
    """Whether this is no task that was queued again: blocks that lack draws are tried once a submission."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") in ("", "0")


def _stop_incomplete(uri: str, shard: Shard, driver: Driver, was_warned: bool) -> None:
    """Exit code 3, at which the array script queues the task again; 2 where that would go on for ever."""
    if was_warned and not driver.committed:
        raise BadInput(
            f"no block of {uri} could be finished within this task's time: give it more "
            "(--sbatch-option time=...), or make the set's blocks smaller (--block-prompts)"
        )
    why = "the time is up" if was_warned else "they failed, or others have them in work"
    raise Incomplete(
        f"{driver.own_left} blocks of share {shard} of {uri} are left ({why}): run the same command again"
    )
