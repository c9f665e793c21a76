"""`synth dedup`: leave out what repeats earlier pictures of a set."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli.terminal import say

if TYPE_CHECKING:
    from sar_eval.synthesis.dedup import DedupOptions, DedupResult

SetUri = Annotated[str, typer.Argument(metavar="SET", help="Folder or URI of a set.")]


class By(StrEnum):
    """What two pictures are compared by."""

    PIXELS = "pixels"
    PHASH = "phash"
    EMBEDDING = "embedding"


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(dedup)


def dedup(
    uri: SetUri,
    by: Annotated[
        By, typer.Option(help="pixels: the same pixels; phash: perceptual hash; embedding: of --embed.")
    ] = By.PHASH,
    distance: Annotated[
        int, typer.Option(min=0, max=12, help="With phash: differing bits, of 64, at most.")
    ] = 3,
    similarity: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="With embedding: cosine at least.")
    ] = 0.97,
    device: Annotated[str, typer.Option(help="With embedding: where it is computed, cpu or cuda.")] = "cpu",
    restore: Annotated[
        bool, typer.Option("--restore", help="Bring back what --by removed, and find nothing.")
    ] = False,
) -> None:
    """Leave out the kept pictures of a set that repeat earlier ones, over all its blocks.

    In the order of prompts and draws, a picture stays unless it is near one that stays: no two that stay
    are nearer than asked. Data objects are not touched: the keys of what goes are stored in dedup/, which
    training, card and repack heed. Several methods add up, pixels before phash before embedding. The same
    command again, after the set has grown, decides anew.
    """
    from sar_eval.cli.train_progress import showing
    from sar_eval.storage.objects import open_store
    from sar_eval.synthesis import dedup as work

    store = open_store(uri)
    if restore:
        count = work.restore(store, by.value)
        say(f"what {by.value} removed is back" if count else f"{by.value} had removed nothing")
        return
    options = work.DedupOptions(by.value, distance, similarity, device)
    with showing("dedup", uri) as show:
        result = work.deduplicate(store, options, lambda done, total: show(done, total, "manifests"))
    _say(result, options, uri)


def _say(result: DedupResult, options: DedupOptions, uri: str) -> None:
    of = f"{result.removed:,} of {result.compared:,} kept pictures repeat earlier ones"
    say(f"{of}; {uri.rstrip('/')}/{result.name} leaves them out" if result.name else of)
    if result.without:
        say(f"note: {result.without:,} kept pictures have no {options.by} and stay", err=True)
    for method in result.stale:
        say(f"note: run it --by {method} again: it was used before on other pictures", err=True)
