"""What the commands on run folders have in common: opening, locking, progress, summary, exit code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sar_eval.cli import gate_result
from sar_eval.cli.options import Output
from sar_eval.cli.terminal import say
from sar_eval.errors import BadInput, Incomplete, SarEvalError
from sar_eval.options import WhereToRun

if TYPE_CHECKING:
    from sar_eval.cli.gate import Gate
    from sar_eval.cli.track import Destinations
    from sar_eval.comparisons import GateResult
    from sar_eval.runtime.progress import ProgressCallback
    from sar_eval.runtime.runtimes import Runtime
    from sar_eval.spec import RunSpec
    from sar_eval.stages.beside import Beside
    from sar_eval.storage.run_folder import RunFolder
    from sar_eval.types import DrawingOrder, Shard, Summary


def new_folder(
    out: Path | None, spec: RunSpec, shard: Shard | None = None, *, sequential: bool = False
) -> RunFolder:
    """The run folder: the one asked for, or the one that this spec (and shard) always gets."""
    from sar_eval.spec import run_folder
    from sar_eval.storage.run_folder import RunFolder

    return RunFolder(out or run_folder(spec, Path("runs"), shard, sequential=sequential))


def open_run(path: Path, *, named: bool = False) -> tuple[RunFolder, RunSpec]:
    """A run folder that is there, and its spec.

    Args:
        path: of the folder.
        named: this command names judge or fold itself, so a `run.json` that was changed is only noted.

    Raises:
        BadInput: it is none, or its `run.json` was changed.
    """
    from sar_eval.spec import RunSpec
    from sar_eval.stages.resume import CHANGED, check_manifest
    from sar_eval.storage.run_folder import RunFolder

    folder = RunFolder(path)
    spec = RunSpec.from_json(folder.read_manifest().spec, str(path / "run.json"))
    if not named:
        check_manifest(folder)
    elif not folder.manifest_is_intact():
        say(f"note: {path / 'run.json'} {CHANGED}", err=True)
    return folder, spec


def with_fold(spec: RunSpec, folder: RunFolder, benchmark: str | None) -> RunSpec:
    """The run's spec with the fold of a benchmark, if one is named; verdicts stay the judge's."""
    from dataclasses import replace

    from sar_eval.recipe import load_recipe
    from sar_eval.stages.resume import check_files

    if benchmark is not None:
        spec = replace(spec, fold=str(load_recipe(benchmark).settings.get("fold", "")))
    files = {name for field, name in spec.files.items() if field != "fold" or benchmark is not None}
    check_files(spec, files, folder)  # a summary runs the fold alone
    return spec


def runtime(where: WhereToRun, gpus_each: int = 1) -> Runtime:
    """Where workers run: on the chosen or visible GPUs, so many for each, else on the CPU.

    Raises:
        BadInput: no such runtime, or options that do not go with it.
    """
    if where.runtime == "ray":
        return _ray_runtime(where, gpus_each)
    if where.runtime != "local":
        raise BadInput(
            f"--runtime is {where.runtime!r}: local or ray; of `run`, `generate` and `synth`, slurm as well"
        )
    if where.ray_address is not None:
        raise BadInput("--ray-address is for --runtime ray")
    from sar_eval.runtime.devices import chosen_devices, unused_gpus
    from sar_eval.runtime.local import LocalRuntime
    from sar_eval.runtime.slots import make_slots

    if note := unused_gpus(where.devices):
        _say_once(note)
    slots = make_slots(where.workers, chosen_devices(where.devices), where.threads, gpus_each)
    return LocalRuntime(slots)


def drawing_runtime(spec: RunSpec, where: WhereToRun) -> Runtime:
    """Where the workers of the spec's engine run; as many as are of use.

    Raises:
        BadInput: as `runtime`.
    """
    from dataclasses import replace

    from sar_eval.stages.resolve import gpus_of_a_worker, most_workers

    if (most := most_workers(spec)) is not None:
        where = replace(where, workers=min(where.workers or most, most))
    return runtime(where, gpus_of_a_worker(spec))


def _ray_runtime(where: WhereToRun, gpus_each: int) -> Runtime:
    from sar_eval.runtime.ray import RayRuntime

    on_cpu = where.devices is not None and where.devices.strip().lower() == "cpu"
    if where.devices is not None and not on_cpu:
        raise BadInput(f"--devices is {where.devices!r}: Ray chooses the GPUs; leave it out, or say cpu")
    return RayRuntime(where.ray_address, where.workers, where.threads, gpus_each, on_cpu)


@cache
def _say_once(note: str) -> None:
    """A note that several stages of one command would give."""
    say(f"note: {note}", err=True)


@contextmanager
def working(folder: RunFolder, output: Output) -> Iterator[ProgressCallback]:
    """Hold the run folder and show progress; Ctrl-C ends in a word on how to go on."""
    from sar_eval.cli.progress import showing_progress

    try:
        with folder.lock() as note, showing_progress(output.quiet or output.as_json) as progress:
            if note:
                say(f"note: {note}", err=True)
            yield progress
    except KeyboardInterrupt as error:
        raise Incomplete(
            f"interrupted; finished blocks are stored in {folder.path}: run the same command again to go on"
        ) from error


def prepare(
    spec: RunSpec,
    folder: RunFolder,
    output: Output,
    asked_batch_size: int | None = None,
    shard: Shard | None = None,
    order: DrawingOrder | None = None,
) -> RunSpec:
    """Write or check the run's manifest (see `stages.resume.prepare`), and say what it keeps."""
    from sar_eval.stages import resume

    kept = resume.prepare(spec, folder, shard, order)
    tell(resume.kept_settings(asked_batch_size, kept), output)
    return kept


def scorers_beside(spec: RunSpec, folder: RunFolder, asked: Mapping[str, Any]) -> list[Beside]:
    """The scorers asked for beside the verdicts: checked before anything is drawn."""
    from sar_eval.stages import beside

    options = dict(asked.get("scorers", {}))
    names = options.pop("scorers", None)
    if names is None or spec.judge == beside.JUDGE:
        return []
    return beside.scorers_beside(spec, names, options, folder)


def score_beside(
    spec: RunSpec,
    folder: RunFolder,
    sides: Sequence[Beside],
    runtime: Runtime,
    progress: ProgressCallback,
) -> None:
    """Score beside the verdicts."""
    from sar_eval.stages import beside

    if sides:
        beside.score_beside(spec, sides, folder, runtime, progress)


def tell(notes: Iterable[str], output: Output) -> None:
    """Show notes, on standard error."""
    if not output.quiet:
        for line in notes:
            say(f"note: {line}", err=True)


def finish(
    spec: RunSpec,
    folder: RunFolder,
    output: Output,
    partial: bool = False,
    destinations: Destinations | None = None,
    gate: Gate | None = None,
) -> None:
    """Summarise, report, print, ask the gate, send the results where they were asked for, and exit."""
    from sar_eval.report.page import write_report
    from sar_eval.stages.beside import scorer_measures
    from sar_eval.stages.summarize import summarize

    summary = summarize(spec, folder, partial=partial)
    # Nobody looks at many millions of images; the page would need all their prompts at once.
    is_shown = not output.no_report and not folder.prompt_source
    report = write_report(spec, folder, scorers=scorer_measures(spec, folder)) if is_shown else None
    asks, answer = gate is not None and (summary.complete or summary.partial), None
    try:
        answer = gate.answer_of(spec, folder) if gate and asks else None
    finally:  # the score is there, also where the gate cannot be asked
        print_result(summary, folder, report, output, answer)
    if gate and answer:
        gate_result.tell(answer, gate.files)
    try:
        if destinations is not None:
            destinations.send(spec, folder, summary)
    except SarEvalError as error:
        if answer is None or answer.passed:
            raise
        say(f"error: {error}", err=True)  # the failed gate's exit code comes first
    exit_if_incomplete(summary)
    gate_result.exit_if_failed(answer)
    exit_if_lacking(spec, folder, partial)


def print_result(
    summary: Summary,
    folder: RunFolder,
    report: Path | None,
    output: Output,
    answer: GateResult | None = None,
) -> None:
    """The summary as a table or as JSON, with the gate's answers."""
    from sar_eval.cli.progress import print_summary
    from sar_eval.stages.summarize import to_json

    if output.as_json:
        paths = {"run": str(folder.path), "report": str(report) if report else None}
        answers = {"gate": gate_result.gate_json(answer)} if answer else {}
        typer.echo(json.dumps(to_json(summary) | paths | answers, indent=2))
    else:
        print_summary(summary, folder.path, report)
        if answer:
            gate_result.print_gate(answer)


def exit_if_lacking(spec: RunSpec, folder: RunFolder, partial: bool) -> None:
    """Exit code 3, or a note, where scorers beside the verdicts have no number for some images."""
    from sar_eval.stages.beside import lacking_beside

    if lacking := lacking_beside(spec, folder):
        if not partial:
            raise Incomplete("; ".join(lacking))
        say(f"note: {'; '.join(lacking)}", err=True)


def exit_if_incomplete(summary: Summary) -> None:
    """Exit code 3 for a run with holes, unless a partial score was asked for."""
    if not summary.complete and not summary.partial:
        raise Incomplete(f"{summary.failed} of {summary.expected} images have no result")
