"""`score`: judge images that another tool drew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli import session
from sar_eval.cli.options import Benchmark, Output, overrides, with_options
from sar_eval.cli.run import judge_run
from sar_eval.cli.terminal import say
from sar_eval.errors import BadInput
from sar_eval.options import HowToDraw, HowToJudge, WhatToDraw, WhereToRun, check_value, names_of

if TYPE_CHECKING:
    from sar_eval.images.files import ImageFolder
    from sar_eval.types import Prompt

LISTED = 20  # prompts without an image that the terminal names; the summary names all
# Nothing is drawn: of how to draw only the size of a block is left.
NOT_HERE = {
    "shard",
    "seed",
    "engine",
    "local_only",
    "dtype",
    "protocol",
    *names_of("protocol"),
    *names_of("engine"),
}


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(score)


@with_options(without=NOT_HERE)
def score(
    benchmark: Benchmark,
    images: Annotated[
        Path,
        typer.Option(
            "--images",
            help="The images: GenEval's folders, a manifest, <id>_<index>.png, <id>.png (one image or "
            "a 2x2 grid), or a run.",
        ),
    ],
    what: WhatToDraw,
    how: HowToDraw,
    judging: HowToJudge,
    where: WhereToRun,
    output: Output,
) -> None:
    """Judge a folder of any model's images and report the score with its interval.

    Missing, unreadable, blank and wrongly sized images are named, and the run is incomplete (exit
    code 3) rather than scored over fewer. The same command again goes on where an earlier one stopped.
    """
    from sar_eval.images.files import find_images
    from sar_eval.recipe import load_recipe, with_suite
    from sar_eval.stages.import_images import import_images
    from sar_eval.stages.judge import judge as judge_stage
    from sar_eval.stages.resolve import resolve_images
    from sar_eval.suites.locate import read_suite

    if (images / "run.json").is_file():
        if where.out is not None or what.suite is not None:
            raise BadInput(f"{images} is one of our runs and judged in place: no --out, no --suite")
        judge_run(images, judging, where, output, benchmark)
        return
    recipe = load_recipe(benchmark)
    if what.suite is not None:
        recipe = with_suite(recipe, what.suite)
    each = what.images_per_prompt
    if each is None:
        each = int(recipe.settings.get("images_per_prompt", 4))
    check_value("images_per_prompt", each)
    suite = read_suite(recipe.suite)
    session.tell(suite.notes, output)
    prompts = suite.prompts
    found = find_images(images, prompts, each)
    asked = overrides(what, how, judging)
    spec = resolve_images(recipe, images, found.digest(), str(found), found.resolution, asked)
    if not spec.judge:
        raise BadInput(f"recipe {recipe.name} names no judge: use --judge")
    slots, folder = session.worker_slots(where), session.new_folder(where.out, spec)
    with session.working(folder, output) as progress:
        if not (output.quiet or output.as_json):
            for line in _describe(images, found, prompts):
                say(line, err=True)
        spec = session.prepare(spec, folder, output, how.batch_size)
        import_images(spec, folder, found, progress)
        judge_stage(spec, folder, slots, progress)
        session.finish(spec, folder, output, judging.partial)


def _describe(folder: Path, found: ImageFolder, prompts: Sequence[Prompt]) -> Iterator[str]:
    """What was found in the folder, what is missing, and what is doubtful."""
    yield f"{folder}: {len(found.files)} images, layout {found.layout}: {found}"
    if found.note:
        yield f"note: {found.note}"
    if missing := found.missing(prompts):
        more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
        listed = ", ".join(missing[:LISTED])
        yield f"no image of {len(missing)} of {len(prompts)} prompts: {listed}{more}"
