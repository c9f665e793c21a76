"""`fetch`: download the weights that a benchmark's judge needs."""

from __future__ import annotations

from typing import Annotated

import typer

from sar_eval.cli.terminal import say
from sar_eval.errors import BadInput, Incomplete


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(fetch)


def fetch(
    benchmark: Annotated[str, typer.Argument(help="Whose weights: geneval or dpg.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go where.")] = False,
) -> None:
    """Download a benchmark's judge weights into the cache, checked; goes on after a break.

    The cache is the folder SAR_EVAL_CACHE, by default ~/.cache/sar-eval.
    """
    from sar_eval.cli.progress import downloading
    from sar_eval.stages.fetch import fetch as download
    from sar_eval.tensors.published_weights import FILES_BY_BENCHMARK, cache_folder, recorded_sha256

    if benchmark not in FILES_BY_BENCHMARK:
        raise BadInput(f"nothing to fetch for {benchmark!r}: {', '.join(FILES_BY_BENCHMARK)}")
    if dry_run:
        for file in FILES_BY_BENCHMARK[benchmark]:
            there = "is there" if (cache_folder() / file.name).is_file() else "missing"
            say(f"{cache_folder() / file.name}  {there}\n  {file.purpose}\n  {file.url}")
        return
    try:
        with downloading() as show:
            paths = download(FILES_BY_BENCHMARK[benchmark], progress=show)
    except KeyboardInterrupt as error:
        raise Incomplete("interrupted; run the same command again to go on") from error
    for file, path in zip(FILES_BY_BENCHMARK[benchmark], paths, strict=True):
        say(path)
        if not file.sha256:
            noted = recorded_sha256(path)
            first = f"that of the first download is noted: {noted}" if noted else "and none was noted"
            say(f"  no checksum is published; {first}")
