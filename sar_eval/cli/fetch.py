"""`fetch`: download the weights that judges and scorers need."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli.terminal import say
from sar_eval.errors import Incomplete

if TYPE_CHECKING:
    from pathlib import Path

    from sar_eval.stages.fetch_plan import Part


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(fetch)


def fetch(
    benchmark: Annotated[str, typer.Argument(help="Whose weights: geneval, dpg or scorers.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="With scorers: which, as hps, clip:hessel or the weights' names of --dry-run; else all.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go where.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a download above 5 GB.")] = False,
) -> None:
    """Download a judge's or scorers' weights into the cache, checked; goes on after a break.

    The cache is the folder SAR_EVAL_CACHE, by default ~/.cache/sar-eval. Sizes and licences are said first.
    """
    from sar_eval.stages.fetch_plan import plan

    parts = plan(benchmark, names or [])
    if dry_run:
        _say_where(parts)
        return
    _say_facts(parts)
    if not yes and not _agreed(parts):
        say("nothing was downloaded", err=True)
        return
    _download(parts)


def _download(parts: Sequence[Part]) -> None:
    from sar_eval.cli.progress import downloading
    from sar_eval.stages.fetch_plan import download

    try:
        with downloading() as show:
            found = list(download(parts, show))
    except KeyboardInterrupt as error:
        raise Incomplete("interrupted; run the same command again to go on") from error
    for part, path in found:
        _say_path(part, path)


def _say_where(parts: Sequence[Part]) -> None:
    """Every file with its address and its place."""
    from sar_eval.tensors.remote_file import HubFolder

    for part in parts:
        there = "is there" if part.is_there else "missing"
        label = f"  [{part.name}]" if part.name else ""
        if isinstance(part.what, HubFolder):
            say(f"the hub's cache  {there}{label}\n  {part.what.purpose}; {part.facts}")
            say(f"  https://huggingface.co/{part.what.repository}")
        else:
            say(f"{part.path}  {there}{label}\n  {part.what.purpose}; {part.facts}\n  {part.what.url}")
    _say_total(parts, err=False)


def _say_facts(parts: Sequence[Part]) -> None:
    """What is to come, one line each."""
    missing = [part for part in parts if not part.is_there]
    for part in missing:
        say(f"{part.what.purpose}: {part.facts}", err=True)
    if missing:
        _say_total(parts, err=True)


def _say_total(parts: Sequence[Part], err: bool) -> None:
    from sar_eval.tensors.remote_file import in_words

    missing = [part for part in parts if not part.is_there]
    unknown = sum(not part.what.size for part in missing)
    more = f", and {unknown} files of unknown size" if unknown else ""
    size = in_words(sum(part.missing for part in missing), exact=False) if missing else "nothing"
    say(f"to download: {size}{more}", err=err)


def _agreed(parts: Sequence[Part]) -> bool:
    """Whether to go on: a person is asked about much, a script is not."""
    from sar_eval.stages.fetch_plan import LARGE
    from sar_eval.tensors.remote_file import in_words

    size = sum(part.missing for part in parts)
    if size <= LARGE or sys.stdin is None or not sys.stdin.isatty():
        return True
    return typer.confirm(f"Download {in_words(size, exact=False)}?", err=True)


def _say_path(part: Part, path: Path) -> None:
    from sar_eval.tensors.published_weights import recorded_sha256
    from sar_eval.tensors.remote_file import HubFolder

    say(path)
    if not isinstance(part.what, HubFolder) and not part.what.sha256:
        noted = recorded_sha256(path)
        first = f"that of the first download is noted: {noted}" if noted else "and none was noted"
        say(f"  no checksum is published; {first}")
