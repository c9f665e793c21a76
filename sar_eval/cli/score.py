"""`score`: judge images that another tool drew."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli import session
from sar_eval.cli.gate import open_gate
from sar_eval.cli.gate_options import HowToGate, WhatMayDiffer, WhereCiLooks
from sar_eval.cli.options import Benchmark, Output, Results, overrides, with_options
from sar_eval.cli.run import judge_run
from sar_eval.cli.terminal import say
from sar_eval.cli.track import Destinations
from sar_eval.errors import BadInput
from sar_eval.options import HowToDraw, HowToJudge, WhatToDraw, WhereToRun, check_value, names_of, option

if TYPE_CHECKING:
    from sar_eval.images.folder import HowToRead, ImageFolder
    from sar_eval.recipe import Recipe
    from sar_eval.spec import RunSpec
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


@dataclass(frozen=True, slots=True, kw_only=True)
class FileNames:
    """What the user says of the files of a folder."""

    numbered: bool = option(
        "File names are running numbers over the whole suite, in its order.", "run", default=False
    )
    grid: str | None = option(
        "Each file shows a prompt's images in rows and columns, as 2x2 or 1x4; found out by default.",
        "run",
        metavar="ROWSxCOLUMNS",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What the user says of the sizes of images."""

    same_size: bool = option(
        "An image of another size than most is an error, not judged at its own size.", "run", default=False
    )


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
            "a grid of several), names with prompts or running numbers, or a run.",
        ),
    ],
    what: WhatToDraw,
    names: FileNames,
    sizes: Sizes,
    how: HowToDraw,
    judging: HowToJudge,
    where: WhereToRun,
    output: Output,
    results: Results,
    gating: HowToGate,
    differing: WhatMayDiffer,
    files: WhereCiLooks,
) -> None:
    """Judge a folder of any model's images and report the score with its interval.

    Missing, unreadable and blank images are named, and the run is incomplete (exit code 3) rather than
    scored over fewer. What is assumed of names and sizes is said in notes; `sar-eval manifest` shows which
    file it takes for which image. The same command again goes on where an earlier one stopped. With
    --baseline or --floor, it ends as `sar-eval gate` does.
    """
    from sar_eval.stages.import_images import import_images
    from sar_eval.stages.judge import judge as judge_stage
    from sar_eval.stages.resolve import resolve_images

    gate, destinations = open_gate(gating, differing, files), Destinations.of(results)
    if (images / "run.json").is_file():
        if where.out is not None or what.suite is not None:
            raise BadInput(f"{images} is one of our runs and judged in place: no --out, no --suite")
        judge_run(images, judging, where, output, benchmark, destinations, gate)
        return
    recipe, prompts, found = _find_images(images, find_recipe(benchmark, what), what, names, sizes, output)
    asked = overrides(what, how, judging)
    spec = resolve_images(recipe, images, found.digest(), str(found), found.resolution, asked)
    if not spec.judge:
        raise BadInput(f"recipe {recipe.name} names no judge: use --judge")
    _check_prompts(spec, images, prompts)
    runtime, folder = session.runtime(where), session.new_folder(where.out, spec)
    with session.working(folder, output) as progress:
        if not (output.quiet or output.as_json):
            for line in _describe(images, found, prompts):
                say(line, err=True)
        session.tell(found.notes, output)
        spec = session.prepare(spec, folder, output, how.batch_size)
        beside = session.scorers_beside(spec, folder, asked)
        if gate:
            gate.check(spec, folder)
        session.tell(import_images(spec, folder, found, progress), output)
        judge_stage(spec, folder, runtime, progress)
        session.score_beside(spec, folder, beside, runtime, progress)
        session.finish(spec, folder, output, judging.partial, destinations, gate)


def _find_images(
    images: Path, recipe: Recipe, what: WhatToDraw, names: FileNames, sizes: Sizes, output: Output
) -> tuple[Recipe, Sequence[Prompt], ImageFolder]:
    """The recipe with its prompts and their files; without a suite, prompts are what the folder says."""
    from sar_eval.images.folder import find_images, images_of
    from sar_eval.recipe import with_suite
    from sar_eval.suites.from_images import suite_of_images
    from sar_eval.suites.locate import read_suite

    if recipe.suite is not None:
        suite = read_suite(recipe.suite)
        session.tell(suite.notes, output)
        how = how_to_read(recipe, what, names, same_size=sizes.same_size)
        return recipe, suite.prompts, find_images(images, suite.prompts, how)
    if names.numbered or names.grid or what.images_per_prompt is not None:
        raise BadInput("--numbered, --grid and -n tell how files show a suite's prompts: name a --suite")
    found = suite_of_images(images)
    session.tell(found.notes, output)
    settings = {**recipe.settings, "images_per_prompt": found.images_per_prompt}
    recipe = replace(with_suite(recipe, found.path), settings=settings)
    return recipe, read_suite(found.path).prompts, images_of(found.files, same_size=sizes.same_size)


def _check_prompts(spec: RunSpec, images: Path, prompts: Sequence[Prompt]) -> None:
    """Refuse scorers that read prompts where no image has one.

    Raises:
        BadInput: naming them.
    """
    from sar_eval.judges.score import prompt_of
    from sar_eval.stages.resolve import build_judge

    needing = getattr(build_judge(spec, "cpu"), "needs_prompt", ())
    if needing and not any(map(prompt_of, prompts)):
        raise BadInput(
            f"{', '.join(needing)} scores a picture by its prompt, but no image of {images} has one: put "
            "metadata.jsonl (file_name, text) or NAME.txt beside NAME.png, or name the prompts by --suite"
        )


def find_recipe(benchmark: str, what: WhatToDraw) -> Recipe:
    """The benchmark, with the suite that was asked for."""
    from sar_eval.recipe import load_recipe, with_suite

    recipe = load_recipe(benchmark)
    return recipe if what.suite is None else with_suite(recipe, what.suite)


def how_to_read(
    recipe: Recipe, what: WhatToDraw, names: FileNames, *, same_size: bool = False
) -> HowToRead:
    """How the files of a folder are matched to the recipe's draws.

    Raises:
        BadInput: a value out of range.
    """
    from sar_eval.images.folder import HowToRead

    each = what.images_per_prompt
    if each is None:
        each = int(recipe.settings.get("images_per_prompt", 4))
    check_value("images_per_prompt", each)
    return HowToRead(each, names.numbered, same_size, parse_grid(names.grid))


def parse_grid(text: str | None) -> tuple[int, int] | None:
    """Rows and columns of `--grid`.

    Raises:
        BadInput: it is neither left out nor two numbers.
    """
    if text is None:
        return None
    if (found := re.fullmatch(r"([1-9]\d{0,2})x([1-9]\d{0,2})", text.strip().lower())) is None:
        raise BadInput(f"--grid is {text!r}: rows and columns, as 2x2 or 1x4")
    return int(found[1]), int(found[2])


def _describe(folder: Path, found: ImageFolder, prompts: Sequence[Prompt]) -> Iterator[str]:
    """What was found in the folder, and what is missing."""
    yield f"{folder}: {len(found.files)} images, layout {found.layout}: {found}"
    yield from name_missing(found.missing(prompts), len(prompts))


def name_missing(missing: Sequence[str], prompts: int) -> Iterator[str]:
    """A line on the prompts that have no image, if any."""
    if missing:
        more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
        yield f"no image of {len(missing)} of {prompts} prompts: {', '.join(missing[:LISTED])}{more}"
