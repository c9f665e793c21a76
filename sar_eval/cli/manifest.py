"""`manifest`: what `score` would take each file of a folder for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli import session
from sar_eval.cli.options import Output, with_options
from sar_eval.cli.score import FileNames, find_recipe, how_to_read, name_missing
from sar_eval.cli.terminal import say
from sar_eval.errors import BadInput, Incomplete
from sar_eval.options import WhatToDraw

if TYPE_CHECKING:
    from sar_eval.images.folder import HowToRead, MatchedFiles
    from sar_eval.types import Prompt


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(manifest)


@with_options(without={"seed"})
def manifest(
    images: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of images.")],
    what: WhatToDraw,
    names: FileNames,
    benchmark: Annotated[
        str, typer.Argument(help="A benchmark (see `sar-eval list`) or a recipe.toml; or name a --suite.")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File to write, as DIR/manifest.jsonl; else standard output."),
    ] = None,
) -> None:
    """Write the manifest.jsonl that `score` assumes of a folder: which file shows which prompt.

    Files that match nothing and files that are skipped are listed on standard error; exit code 3 if a
    file matches nothing. Written to DIR/manifest.jsonl, it decides: edit it, and `score` goes by it.
    """
    from sar_eval.images.folder import match_files
    from sar_eval.stages.write_manifest import write_manifest

    prompts, how = _expected(benchmark, what, names)
    found = match_files(images, prompts, how)
    text = write_manifest(found, prompts, out)
    if out is None:
        say(text.removesuffix("\n"))
    for line in _summary(found, prompts, how):
        say(line, err=True)
    session.tell(found.notes, Output())
    if found.unmatched:
        raise Incomplete(f"{len(found.unmatched)} files match nothing: {found.problem}")


def _expected(benchmark: str, what: WhatToDraw, names: FileNames) -> tuple[Sequence[Prompt], HowToRead]:
    """The prompts, and how the files are matched to them."""
    from sar_eval.recipe import Recipe
    from sar_eval.suites.locate import read_suite

    if benchmark:
        recipe = find_recipe(benchmark, what)
    elif what.suite is not None:
        recipe = Recipe("manifest", what.suite, {}, {}, {})
    else:
        raise BadInput("name a benchmark, or a prompt file with --suite")
    suite = read_suite(recipe.suite)
    session.tell(suite.notes, Output())
    return suite.prompts, how_to_read(recipe, what, names)


def _summary(found: MatchedFiles, prompts: Sequence[Prompt], how: HowToRead) -> Iterator[str]:
    expected = len(prompts) * how.images_per_prompt
    grids = ", several in each file" if found.is_grid else ""
    yield f"{found.folder}: {len(found.files)} of {expected} images, layout {found.layout}{grids}"
    present = {key.rpartition("/")[0] for key in found.files}
    yield from name_missing([prompt.id for prompt in prompts if prompt.id not in present], len(prompts))
