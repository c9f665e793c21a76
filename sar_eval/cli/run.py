"""`run` and its stages one by one: generate, judge, summarize, report, export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sar_eval.cli import session, slurm
from sar_eval.cli.gate import open_gate
from sar_eval.cli.gate_options import HowToGate, WhatMayDiffer, WhereCiLooks
from sar_eval.cli.options import (
    Benchmark,
    Ckpt,
    FoldOf,
    Output,
    PromptFile,
    Results,
    RunPath,
    overrides,
    with_options,
)
from sar_eval.cli.sequential import InRounds, check_sequential, run_sequentially
from sar_eval.cli.slurm import OnSlurm
from sar_eval.cli.terminal import say
from sar_eval.cli.track import TRACKING, Destinations
from sar_eval.errors import BadInput, Incomplete
from sar_eval.options import HowToDraw, HowToJudge, WhatToDraw, WhereToRun, merged, parse_shard

if TYPE_CHECKING:
    from sar_eval.cli.gate import Gate
    from sar_eval.spec import RunSpec
    from sar_eval.storage.run_folder import RunFolder


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (run, generate, judge, summarize, report, export, join, verify):
        app.command()(command)


@with_options()
def run(
    context: typer.Context,
    benchmark: Benchmark,
    ckpt: Ckpt,
    what: WhatToDraw,
    how: HowToDraw,
    judging: HowToJudge,
    where: WhereToRun,
    output: Output,
    results: Results,
    gating: HowToGate,
    differing: WhatMayDiffer,
    files: WhereCiLooks,
    rounds: InRounds,
    on_slurm: OnSlurm,
) -> None:
    """Draw a benchmark's prompts, judge the images, and report the score with its interval.

    The same command again goes on where an earlier one stopped. With --baseline or --floor, it ends as
    `sar-eval gate` does.
    """
    from sar_eval.recipe import load_recipe, with_suite
    from sar_eval.stages.generate import generate as generate_stage
    from sar_eval.stages.judge import judge as judge_stage
    from sar_eval.stages.resolve import resolve

    by_slurm = slurm.is_asked(where, on_slurm)
    if rounds.sequential:
        check_sequential(gating, differing, judging, where)
    gate = open_gate(gating, differing, files, shard="I/N" if by_slurm else where.shard)
    destinations = Destinations.of(results)
    shard = parse_shard(where.shard)
    recipe = load_recipe(benchmark)
    if what.suite is not None:
        recipe = with_suite(recipe, what.suite)
    notes: list[str] = []
    asked = overrides(what, how, judging)
    spec = resolve(recipe, ckpt, asked, notes)
    session.tell(notes, output)
    if not spec.judge:
        raise BadInput(f"recipe {recipe.name} names no judge: use `sar-eval generate`, or --judge")
    if gate and rounds.sequential:
        run_sequentially(spec, gate, how, where, output, destinations)
        return
    if by_slurm:
        slurm.submit_run(context, spec, where, on_slurm)
        return
    drawing, judges = session.drawing_runtime(spec, where), session.runtime(where)
    folder = session.new_folder(where.out, spec, shard)
    with session.working(folder, output) as progress:
        spec = session.prepare(spec, folder, output, how.batch_size, shard)
        beside = session.scorers_beside(spec, folder, asked)
        if gate:
            gate.check(spec, folder)
        generate_stage(spec, folder, drawing, progress)
        judge_stage(spec, folder, judges, progress)
        session.score_beside(spec, folder, beside, judges, progress)
        session.finish(spec, folder, output, judging.partial, destinations, gate)


@with_options(without=["suite"])
def generate(
    context: typer.Context,
    prompts: PromptFile,
    ckpt: Ckpt,
    what: WhatToDraw,
    how: HowToDraw,
    where: WhereToRun,
    output: Output,
    on_slurm: OnSlurm,
) -> None:
    """Draw the prompts of a file into a run folder, without judging."""
    from sar_eval.recipe import free_recipe
    from sar_eval.stages.generate import generate as generate_stage
    from sar_eval.stages.resolve import resolve

    notes: list[str] = []
    by_slurm = slurm.is_asked(where, on_slurm)
    spec = resolve(free_recipe(prompts), ckpt, overrides(what, how), notes)
    session.tell(notes, output)
    if by_slurm:
        slurm.submit_run(context, spec, where, on_slurm)
        return
    shard, runtime = parse_shard(where.shard), session.drawing_runtime(spec, where)
    folder = session.new_folder(where.out, spec, shard)
    with session.working(folder, output) as progress:
        spec = session.prepare(spec, folder, output, how.batch_size, shard)
        generate_stage(spec, folder, runtime, progress)
        session.finish(spec, folder, output)


@with_options(without=["out", "shard"])
def judge(
    run_folder: RunPath,
    judging: HowToJudge,
    where: WhereToRun,
    output: Output,
    results: Results,
    gating: HowToGate,
    differing: WhatMayDiffer,
    files: WhereCiLooks,
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", help="Take judge, options and fold from this benchmark.")
    ] = None,
) -> None:
    """Judge the images of a run that have no verdict yet, and score it.

    With --baseline or --floor, it ends as `sar-eval gate` does.
    """
    gate, destinations = open_gate(gating, differing, files, benchmark), Destinations.of(results)
    judge_run(run_folder, judging, where, output, benchmark, destinations, gate)


def judge_run(
    path: Path,
    judging: HowToJudge,
    where: WhereToRun,
    output: Output,
    benchmark: str | None,
    destinations: Destinations,
    gate: Gate | None,
) -> None:
    """Judge a run in place; see the command `judge`."""
    from sar_eval.stages.judge import judge as judge_stage
    from sar_eval.stages.resolve import check_judgeable
    from sar_eval.suites.streamed import stored_prompts

    asked = overrides(judging)
    folder, stored = session.open_run(path, named=bool(benchmark or asked.get("judge")))
    spec = _with_judge(stored, folder, benchmark, asked)
    if spec.judge != stored.judge:
        check_judgeable(spec, stored_prompts(folder))
    runtime = session.runtime(where)
    with session.working(folder, output) as progress:
        spec = session.prepare(spec, folder, output)
        beside = session.scorers_beside(spec, folder, asked)
        if gate:
            gate.check(spec, folder)
        judge_stage(spec, folder, runtime, progress)
        session.score_beside(spec, folder, beside, runtime, progress)
        session.finish(spec, folder, output, judging.partial, destinations, gate)


@with_options(
    without=[
        "judge",
        "judge_option",
        "detector",
        "scorers",
        "scorer_option",
        "quiet",
        "no_report",
        *TRACKING,
    ]
)
def summarize(
    run_folder: RunPath, judging: HowToJudge, output: Output, results: Results, benchmark: FoldOf = None
) -> None:
    """Fold a run's verdicts into scores with intervals and say what is missing."""
    from sar_eval.stages.summarize import summarize as summarize_stage

    destinations = Destinations.of(results)
    folder, spec = session.open_run(run_folder, named=benchmark is not None)
    spec = session.with_fold(spec, folder, benchmark)
    with folder.lock():
        summary = summarize_stage(spec, folder, partial=judging.partial)
    session.print_result(summary, folder, None, output)
    destinations.send(spec, folder, summary)
    session.exit_if_incomplete(summary)
    session.exit_if_lacking(spec, folder, judging.partial)


@with_options(without=["judge", "judge_option", "detector", "scorers", "scorer_option"])
def report(
    run_folder: RunPath,
    judging: HowToJudge,
    benchmark: FoldOf = None,
    images: Annotated[
        int | None,
        typer.Option(
            "--images",
            min=0,
            help="Pictures at most, if not all fit into the page. Default: all of up to 5,000, else 1,000.",
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image", help="A draw whose picture is to be among them (PROMPT_ID/INDEX). Repeatable."
        ),
    ] = None,
) -> None:
    """Write a run's report.html, or the training.html of a folder of `train grpo`."""
    from sar_eval.report.page import write_report
    from sar_eval.report.training_page import write_training_page
    from sar_eval.stages.beside import scorer_measures
    from sar_eval.stages.summarize import summarize as summarize_stage
    from sar_eval.storage.training_journal import is_training

    if is_training(run_folder):
        if benchmark or images is not None or image:
            raise BadInput(
                f"{run_folder} is a training run: its page has no --benchmark, --images or --image"
            )
        write_training_page(run_folder)
        say(run_folder / "training.html")
        return
    folder, spec = session.open_run(run_folder, named=benchmark is not None)
    spec = session.with_fold(spec, folder, benchmark)
    with folder.lock():
        summary = summarize_stage(spec, folder, partial=judging.partial)
        scorers = scorer_measures(spec, folder)
        say(write_report(spec, folder, images=images, keys=image or (), scorers=scorers))
    session.exit_if_incomplete(summary)
    session.exit_if_lacking(spec, folder, judging.partial)


def export(
    run_folder: RunPath,
    layout: Annotated[str, typer.Option("--layout", help="geneval, folder or dpg.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder.")],
) -> None:
    """Write a run's images as files in a layout that other tools read."""
    from sar_eval.stages.export import export as export_stage
    from sar_eval.stages.resume import open_blocks, stopped, wanted_blocks

    folder, spec = session.open_run(run_folder)
    number = export_stage(folder, layout, out)
    blocks = open_blocks(spec, folder)
    stop = stopped(folder, folder.generations.parts())
    expected = sum(map(blocks.draws_in, wanted_blocks(blocks, stop)))
    say(f"{number} images in {out}")
    if number < expected:
        raise Incomplete(f"{expected - number} of {expected} images are not there to export")


def join(
    shards: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders of shards.")],
    out: Annotated[Path, typer.Option("--out", help="The run folder of all of them.")],
) -> None:
    """Put the shards of a run together, as one run to judge, summarise and report.

    Files are linked where the file system can do that. Joining again adds what has come since.
    """
    from sar_eval.stages.join import join as join_stage
    from sar_eval.storage.run_folder import RunFolder

    folder = RunFolder(out)
    with folder.lock():
        found = join_stage([RunFolder(path) for path in shards], folder)
    say(f"{found.drawn} of {found.expected} images in {out}, {found.judged} of them judged")
    if found.drawn < found.expected:
        raise Incomplete(f"shards are missing or unfinished: {found.expected - found.drawn} images to come")


def verify(
    run_folder: RunPath,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Remove damaged parts; the command that wrote them redoes them."),
    ] = False,
) -> None:
    """Read every byte of a run and name what is damaged or was changed."""
    from sar_eval.stages.verify import verify as verify_stage

    folder, spec = session.open_run(run_folder)
    with folder.lock():
        found = verify_stage(spec, folder, repair=repair)
    for path in found.damaged:
        say(f"damaged{' and removed' if repair else ''}: {path}")
    for problem in found.problems:
        say(f"problem: {problem}")
    say(f"{found.parts} parts, {found.bytes:,} bytes read: {len(found.damaged)} damaged")
    if not found.intact:
        raise Incomplete(f"{run_folder} is not intact{_way_on(repair) if found.damaged else ''}")


def _way_on(repaired: bool) -> str:
    return f": {'run the command that wrote them again' if repaired else '--repair removes damaged parts'}"


def _with_judge(spec: RunSpec, folder: RunFolder, benchmark: str | None, asked: dict[str, Any]) -> RunSpec:
    """The run's spec with the judge of a benchmark, or the one asked for, and its options."""
    from sar_eval.recipe import load_recipe
    from sar_eval.spec import code_files
    from sar_eval.stages.resolve import named_judge_options, own_fold, with_judge
    from sar_eval.stages.resume import check_files, check_secret

    recipe_options: dict[str, Any] = {}
    names: dict[str, Any] = {}
    if benchmark is not None:
        recipe = load_recipe(benchmark)
        recipe_options = dict(recipe.judge_options)
        names = {key: recipe.settings[key] for key in ("judge", "fold") if key in recipe.settings}
        spec = replace(spec, benchmark=recipe.name, judge_options=recipe_options, **names)
    if asked.get("judge") not in (None, spec.judge):
        fold = spec.fold if "fold" in asked else own_fold(asked["judge"]) or spec.fold
        spec = replace(spec, judge=asked["judge"], judge_options={}, fold=fold)
    if not spec.judge:
        raise BadInput("this run has no judge: give --judge or --benchmark")
    asked_options = named_judge_options(spec.judge, asked)
    named_options = merged(recipe_options, asked_options)
    named = code_files(names | {"asked for": asked.get("judge")}, recipe_options) | code_files(
        {}, named_options
    )
    spec = replace(spec, judge_options=merged(spec.judge_options, asked_options))
    check_files(spec, named.values(), folder)
    check_secret(spec, named_options, folder)
    return with_judge(spec)
