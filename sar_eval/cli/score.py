"""`score`: judge pictures that another tool drew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli import run as stages
from sar_eval.cli.options import (
    AsJson,
    BatchSize,
    Detector,
    Devices,
    Images,
    JudgeName,
    JudgeOption,
    Out,
    Partial,
    Quiet,
    Suite,
    Threads,
    Workers,
    judge_options,
)
from sar_eval.errors import BadInput

if TYPE_CHECKING:
    from sar_eval.images import ImageFolder
    from sar_eval.types import Prompt

LISTED = 20  # prompts without a picture that the terminal names; the summary names all


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(score)


def score(
    benchmark: Annotated[str, typer.Argument(help="A benchmark (see `sar-eval list`) or a recipe.toml.")],
    images: Annotated[
        Path,
        typer.Option(
            "--images",
            help="The pictures: GenEval's folders, a manifest, <id>_<index>.png, <id>.png (one picture or "
            "a 2x2 grid), or a run.",
        ),
    ],
    out: Out = None,
    suite: Suite = None,
    judge: JudgeName = None,
    judge_option: JudgeOption = None,
    detector: Detector = None,
    images_per_prompt: Images = None,
    batch_size: BatchSize = None,
    workers: Workers = None,
    threads: Threads = 1,
    devices: Devices = None,
    partial: Partial = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Judge a folder of any model's pictures and report the score with its interval.

    Missing, unreadable, blank and wrongly sized pictures are named, and the run is incomplete (exit
    code 3) rather than scored over fewer. The same command again goes on where an earlier one stopped.
    """
    from sar_eval.images import find_images
    from sar_eval.spec import load_recipe, resolve_images, with_suite
    from sar_eval.suites import read_suite
    from sar_eval.take_in import take_in

    if (images / "run.json").is_file():
        if out is not None or suite is not None:
            raise BadInput(f"{images} is one of our runs and judged in place: no --out, no --suite")
        options = (judge, benchmark, judge_option, detector, workers, threads, devices)
        stages.judge(images, *options, partial, as_json, quiet)
        return
    overrides = {**locals(), "judge_options": judge_options(judge_option, detector)}
    recipe = load_recipe(benchmark)
    if suite is not None:
        recipe = with_suite(recipe, suite)
    each = images_per_prompt or int(recipe.settings.get("images_per_prompt", 4))
    prompts = read_suite(recipe.suite).prompts
    found = find_images(images, prompts, each)
    spec = resolve_images(recipe, images, found.digest(), str(found), found.resolution, overrides)
    if not spec.judge:
        raise BadInput(f"recipe {recipe.name} names no judge: use --judge")
    places = stages.find_places(workers, devices, threads)
    folder = stages.folder_of(out, spec)
    with stages.working(folder, quiet or as_json) as watch:
        if not (quiet or as_json):
            for line in _told(images, found, prompts):
                typer.echo(line, err=True)
        spec = stages.prepare(spec, folder)
        take_in(spec, folder, found, watch)
        stages.judge_stage(spec, folder, places, watch)
        stages.finish(spec, folder, as_json, partial)


def _told(folder: Path, found: ImageFolder, prompts: Sequence[Prompt]) -> Iterator[str]:
    """What was found in the folder, what is missing, and what is doubtful."""
    yield f"{folder}: {len(found.files)} pictures, layout {found.layout}: {found}"
    if found.note:
        yield f"note: {found.note}"
    if missing := found.missing(prompts):
        more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
        listed = ", ".join(missing[:LISTED])
        yield f"no picture of {len(missing)} of {len(prompts)} prompts: {listed}{more}"
