"""`synth verify` and `synth clean`: whether a set is whole, and what in it nobody needs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli.options import AsJson
from sar_eval.cli.terminal import say
from sar_eval.errors import Incomplete

if TYPE_CHECKING:
    from sar_eval.storage.image_set import ImageSet
    from sar_eval.synthesis.clean import Cleaned
    from sar_eval.synthesis.verify import Verified

SetUri = Annotated[str, typer.Argument(metavar="SET", help="Folder or URI of a set.")]
MOST_NAMED = 20  # problems, or objects, that the terminal shows


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(verify)
    app.command()(clean)


def verify(
    uri: SetUri,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Remove the records of damaged blocks: the next start draws them."),
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare names and sizes alone, and read no picture.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Hold every byte of a set against the digests and records that committed it.

    Names what somebody deleted, cut or changed. The exit code is 3 if there is any. With --repair the
    blocks concerned are taken back; `sar-eval synth` with the same words as before draws them again, to
    the same bytes.
    """
    from sar_eval.cli.train_progress import showing
    from sar_eval.synthesis import verify as work

    image_set = _open(uri)
    with showing("verify", uri) as show:
        found = work.verify(image_set, lambda done, total: show(done, total, "groups"), quick)
    can_repair = repair and not found.repacked
    taken_back = work.repair(image_set, found.problems) if can_repair else []
    if as_json:
        blocks = {"blocks_hurt": found.blocks_hurt, "taken_back": taken_back}
        say(json.dumps(asdict(found) | blocks, indent=2))
    else:
        _show_verified(found, uri)
    if found.problems:
        raise Incomplete(_way_on(found, uri, repair))


def clean(
    uri: SetUri,
    older_than: Annotated[
        float, typer.Option("--older-than", min=0, max=1e6, help="Hours an object must be old to go.")
    ] = 24.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Name what would go, and remove nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what no reader needs: objects of lost races and earlier attempts, old claims, temporaries.

    Nothing that a record names goes, and nothing of a block that is still to be drawn: workers may go on
    meanwhile.
    """
    from sar_eval.cli.train_progress import showing
    from sar_eval.synthesis import clean as work

    image_set = _open(uri)
    with showing("clean", uri) as show:
        cleaned = work.clean(
            image_set, older_than * 3600, lambda done, total: show(done, total, "groups"), dry_run
        )
    if as_json:
        say(json.dumps(asdict(cleaned), indent=2))
    else:
        _show_cleaned(cleaned, dry_run)
    if cleaned.unclear:
        raise Incomplete(
            "some records are broken, and nothing near them was removed: "
            f"`sar-eval synth verify {uri} --repair`, then clean again"
        )


def _open(uri: str) -> ImageSet:
    from sar_eval.storage.image_set import ImageSet
    from sar_eval.storage.objects import open_store

    return ImageSet(open_store(uri))


def _show_verified(found: Verified, uri: str) -> None:
    for problem in found.problems[:MOST_NAMED]:
        say(f"{problem.name}: {problem.why}")
    if len(found.problems) > MOST_NAMED:
        say(f"... and {len(found.problems) - MOST_NAMED:,} more: --json has all")
    say(f"{found.blocks:,} blocks, {found.objects:,} objects, {found.size:,} bytes: {uri}")


def _way_on(found: Verified, uri: str, repaired: bool) -> str:
    what = f"{len(found.problems):,} objects are missing or damaged"
    if found.repacked:
        return f"{what}: delete them, and repack.json, and run the same `sar-eval synth repack` again"
    if repaired:
        return f"{what}; their blocks are taken back: `sar-eval synth` as before draws them again"
    return f"{what}: `sar-eval synth verify {uri} --repair` takes their blocks back, to be drawn again"


def _show_cleaned(cleaned: Cleaned, dry_run: bool) -> None:
    for name in cleaned.names[:MOST_NAMED]:
        say(name)
    if len(cleaned.names) > MOST_NAMED:
        say(f"... and {len(cleaned.names) - MOST_NAMED:,} more")
    verb = "would go" if dry_run else "removed"
    say(f"{len(cleaned.names):,} objects {verb}, {cleaned.size:,} bytes of pictures and verdicts")
