"""`run` and its stages one by one: generate, judge, summarize, report, export."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sar_eval.cli.options import (
    AsJson,
    BatchSize,
    Ckpt,
    Detector,
    Devices,
    Dtype,
    Engine,
    EngineOption,
    FullVocab,
    Guidance,
    ImageFormat,
    Images,
    JudgeName,
    JudgeOption,
    LocalOnly,
    Negative,
    Out,
    Partial,
    ProtocolName,
    Quiet,
    Resolution,
    RunPath,
    Seed,
    Speculate,
    Suite,
    Temperature,
    Threads,
    TopK,
    TopP,
    Truncate,
    VisualTokenizer,
    Workers,
    drawing,
    judge_options,
)
from sar_eval.errors import BadInput, Incomplete

if TYPE_CHECKING:
    from sar_eval.pool import Place
    from sar_eval.spec import Recipe, RunSpec
    from sar_eval.store import RunFolder
    from sar_eval.types import Summary


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (run, generate, judge, summarize, report, export):
        app.command()(command)


def run(
    benchmark: Annotated[str, typer.Argument(help="A benchmark (see `sar-eval list`) or a recipe.toml.")],
    ckpt: Ckpt,
    out: Out = None,
    suite: Suite = None,
    engine: Engine = None,
    engine_option: EngineOption = None,
    visual_tokenizer: VisualTokenizer = None,
    local_only: LocalOnly = False,
    judge: JudgeName = None,
    judge_option: JudgeOption = None,
    detector: Detector = None,
    images_per_prompt: Images = None,
    seed: Seed = None,
    protocol: ProtocolName = None,
    guidance: Guidance = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    resolution: Resolution = None,
    negative_prompt: Negative = None,
    full_vocab: FullVocab = None,
    truncate: Truncate = None,
    speculate: Speculate = None,
    image_format: ImageFormat = None,
    dtype: Dtype = None,
    batch_size: BatchSize = None,
    workers: Workers = None,
    threads: Threads = 1,
    devices: Devices = None,
    partial: Partial = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw a benchmark's prompts, judge the pictures, and report the score with its interval.

    The same command again goes on where an earlier one stopped.
    """
    from sar_eval.spec import gpus_of_a_worker, load_recipe, resolve, with_suite

    overrides = {**locals(), "judge_options": judge_options(judge_option, detector)}
    overrides |= drawing(overrides)
    recipe = load_recipe(benchmark)
    if suite is not None:
        recipe = with_suite(recipe, suite)
    spec = resolve(recipe, ckpt, overrides)
    if not spec.judge:
        raise BadInput(f"recipe {recipe.name} names no judge: use `sar-eval generate`, or --judge")
    drawing_places = find_places(workers, devices, threads, gpus_of_a_worker(spec))
    judging_places = find_places(workers, devices, threads)
    folder = folder_of(out, spec)
    with working(folder, quiet or as_json) as watch:
        spec = prepare(spec, folder)
        _generate(spec, folder, drawing_places, watch)
        judge_stage(spec, folder, judging_places, watch)
        finish(spec, folder, as_json, partial)


def generate(
    prompts: Annotated[Path, typer.Argument(help="Prompt file: .jsonl, .txt, .csv or .parquet.")],
    ckpt: Ckpt,
    out: Out = None,
    engine: Engine = None,
    engine_option: EngineOption = None,
    visual_tokenizer: VisualTokenizer = None,
    local_only: LocalOnly = False,
    images_per_prompt: Images = None,
    seed: Seed = None,
    protocol: ProtocolName = None,
    guidance: Guidance = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    resolution: Resolution = None,
    negative_prompt: Negative = None,
    full_vocab: FullVocab = None,
    truncate: Truncate = None,
    speculate: Speculate = None,
    image_format: ImageFormat = None,
    dtype: Dtype = None,
    batch_size: BatchSize = None,
    workers: Workers = None,
    threads: Threads = 1,
    devices: Devices = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw the prompts of a file into a run folder, without judging."""
    from sar_eval.spec import free_recipe, gpus_of_a_worker, resolve

    overrides = {**locals()}
    overrides |= drawing(overrides)
    spec = resolve(free_recipe(prompts), ckpt, overrides)
    places = find_places(workers, devices, threads, gpus_of_a_worker(spec))
    folder = folder_of(out, spec)
    with working(folder, quiet or as_json) as watch:
        spec = prepare(spec, folder)
        _generate(spec, folder, places, watch)
        finish(spec, folder, as_json)


def judge(
    run_folder: RunPath,
    judge: JudgeName = None,
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", help="Take judge, options and fold from this benchmark.")
    ] = None,
    judge_option: JudgeOption = None,
    detector: Detector = None,
    workers: Workers = None,
    threads: Threads = 1,
    devices: Devices = None,
    partial: Partial = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Judge the pictures of a run that have no verdict yet, and score it."""
    folder, spec = _open(run_folder)
    spec = _with_judge(spec, judge, benchmark, judge_options(judge_option, detector))
    places = find_places(workers, devices, threads)
    with working(folder, quiet) as watch:
        spec = prepare(spec, folder)
        judge_stage(spec, folder, places, watch)
        finish(spec, folder, as_json, partial)


def summarize(run_folder: RunPath, partial: Partial = False, as_json: AsJson = False) -> None:
    """Fold a run's verdicts into scores with intervals and say what is missing."""
    folder, spec = _open(run_folder)
    with folder.lock():
        summary = _summarize(spec, folder, partial)
    _tell(summary, folder, None, as_json)


def report(run_folder: RunPath, partial: Partial = False) -> None:
    """Write a run's report.html."""
    folder, spec = _open(run_folder)
    with folder.lock():
        summary = _summarize(spec, folder, partial)
        typer.echo(_report(spec, folder))
    _end(summary)


def export(
    run_folder: RunPath,
    layout: Annotated[str, typer.Option("--layout", help="geneval, folder or dpg.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder.")],
) -> None:
    """Write a run's pictures as files in a layout that other tools read."""
    from sar_eval.export import export as write

    folder, spec = _open(run_folder)
    number, expected = write(folder, layout, out), len(folder.read_prompts()) * spec.images_per_prompt
    typer.echo(f"{number} pictures in {out}")
    if number < expected:
        raise Incomplete(f"{expected - number} of {expected} pictures are not there to export")


def folder_of(out: Path | None, spec: RunSpec) -> RunFolder:
    """The run folder: the given one, or the one that this spec always gets."""
    from sar_eval.spec import run_folder
    from sar_eval.store import RunFolder

    return RunFolder(out or run_folder(spec, Path("runs")))


def _open(path: Path) -> tuple[RunFolder, RunSpec]:
    from sar_eval.spec import RunSpec
    from sar_eval.store import RunFolder

    folder = RunFolder(path)
    return folder, RunSpec.from_json(folder.read_manifest()["spec"])


def _with_judge(
    spec: RunSpec, judge: str | None, benchmark: str | None, options: dict[str, Any]
) -> RunSpec:
    from dataclasses import replace

    from sar_eval.spec import load_recipe, with_judge_version

    if benchmark is not None:
        recipe: Recipe = load_recipe(benchmark)
        names = {key: recipe.settings[key] for key in ("judge", "fold") if key in recipe.settings}
        spec = replace(spec, benchmark=recipe.name, judge_options=dict(recipe.judge_options), **names)
    if judge is not None and judge != spec.judge:
        spec = replace(spec, judge=judge, judge_options={})
    if not spec.judge:
        raise BadInput("this run has no judge: give --judge or --benchmark")
    return with_judge_version(replace(spec, judge_options={**spec.judge_options, **options}))


def find_places(workers: int | None, devices: str | None, threads: int, gpus_each: int = 1) -> list[Place]:
    """Where workers go: the given or visible GPUs, so many for each, else the CPU."""
    from sar_eval.blocks import make_places
    from sar_eval.doctor import gpus, torch_sees_gpus

    if workers is not None and workers < 1:
        raise BadInput(f"--workers is {workers}: at least 1")
    if threads < 1:
        raise BadInput(f"--threads is {threads}: at least 1")
    if devices is None and not torch_sees_gpus():
        chosen = []
    elif devices is None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        chosen = [str(i) for i in range(len(gpus()))] if visible is None else _named(visible)
    else:
        chosen = [] if devices == "cpu" else devices.split(",")
    if not all(name.strip().isalnum() or "-" in name for name in chosen):
        raise BadInput(f"--devices is {devices!r}: numbers with commas between them, or cpu")
    return make_places(workers, chosen, threads, gpus_each)


def _named(visible: str) -> list[str]:
    """The cards of CUDA_VISIBLE_DEVICES; none where it is empty or starts with -1."""
    names = [name.strip() for name in visible.split(",")]
    return [] if names[0] in ("", "-1") else names


@contextmanager
def working(folder: RunFolder, quiet: bool) -> Iterator[Any]:
    """Hold the run folder and show progress; Ctrl-C ends in a word on how to go on."""
    from sar_eval.cli.progress import watching

    try:
        with folder.lock(), watching(quiet) as watch:
            yield watch
    except KeyboardInterrupt as error:
        raise Incomplete(
            f"interrupted; finished blocks are stored in {folder.path}: run the same command again to go on"
        ) from error


def prepare(spec: RunSpec, folder: RunFolder) -> RunSpec:
    """Write or check the run's manifest (see `generate.prepare`)."""
    from sar_eval.generate import prepare

    return prepare(spec, folder)


def _generate(spec: RunSpec, folder: RunFolder, places: list[Place], watch: Any) -> None:
    from sar_eval.generate import generate as stage

    stage(spec, folder, places, watch)


def judge_stage(spec: RunSpec, folder: RunFolder, places: list[Place], watch: Any) -> None:
    """Judge what has no verdict (see `judge.judge`)."""
    from sar_eval.judge import judge as stage

    stage(spec, folder, places, watch)


def _summarize(spec: RunSpec, folder: RunFolder, partial: bool = False) -> Summary:
    from sar_eval.summarize import summarize as stage

    return stage(spec, folder, partial=partial)


def _report(spec: RunSpec, folder: RunFolder) -> Path:
    from sar_eval.report import write_report

    return write_report(spec, folder)


def finish(spec: RunSpec, folder: RunFolder, as_json: bool, partial: bool = False) -> None:
    """Summarise, report, tell, and exit as the outcome asks."""
    summary = _summarize(spec, folder, partial)
    _tell(summary, folder, _report(spec, folder), as_json)


def _tell(summary: Summary, folder: RunFolder, path: Path | None, as_json: bool) -> None:
    from sar_eval.cli.progress import print_summary
    from sar_eval.summarize import to_json

    if as_json:
        places = {"run": str(folder.path), "report": str(path) if path else None}
        typer.echo(json.dumps(to_json(summary) | places, indent=2))
    else:
        print_summary(summary, folder.path, path)
    _end(summary)


def _end(summary: Summary) -> None:
    """Exit code 3 for a run with holes, unless a partial score was asked for."""
    if not summary.complete and not summary.partial:
        raise Incomplete(f"{summary.failed} of {summary.expected} images have no result")
