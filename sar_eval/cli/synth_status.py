"""`synth status`: how far a set is, from any machine that can read it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sar_eval.cli.options import AsJson
from sar_eval.cli.synth_progress import duration, rate_text, share_text
from sar_eval.cli.terminal import console, plain, say

if TYPE_CHECKING:
    from rich.text import Text

    from sar_eval.synthesis.status import SetStatus

QUIET_S = 600.0  # without a new block, before that is remarked on
INCOMPLETE = 3  # exit code
MOST_SHARES, MOST_RANGES = 20, 10  # that are named


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(status)


def status(
    uri: Annotated[str, typer.Argument(metavar="SET", help="Folder or URI of a set.")],
    shares: Annotated[
        int, typer.Option("--shares", min=0, max=1_000_000, help="Name the shares I/N that are incomplete.")
    ] = 0,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what is left after each step, with intervals.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the set is complete.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.1, max=86_400, help="Seconds between looks of --watch.")
    ] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Show how far a set is: blocks, pictures a second, kept share, time left, and what lacks a result.

    Reads the set's spec, ledgers and done-records alone, and writes nothing: any number of people may look
    while any number of machines draw. The exit code is 3 while something is missing.
    """
    from sar_eval.cli.synth_funnel import funnel_table
    from sar_eval.storage.image_set import SPEC, ImageSet
    from sar_eval.storage.objects import open_store
    from sar_eval.synthesis.expression import parse_filter
    from sar_eval.synthesis.spec import SetSpec
    from sar_eval.synthesis.status import read_status

    image_set = ImageSet(open_store(uri))
    spec = SetSpec.from_json(image_set.spec(), image_set.store.where(SPEC))
    clauses = [clause.text for clause in parse_filter(spec.selection.filter).clauses]
    draws = spec.prompts.rows * spec.best_of
    found = _look(
        lambda: read_status(image_set, spec.blocks, draws, clauses, shares),
        every if watch else None,
        as_json,
    )
    if explain and not as_json:
        console().print(funnel_table(found.funnel))
    if not found.complete:
        raise typer.Exit(INCOMPLETE)


def _look(read: Callable[[], SetStatus], every: float | None, as_json: bool) -> SetStatus:
    """Read and show once, or every so many seconds until the set is complete."""
    if every is not None:
        return _watch(read, every, as_json)
    found = read()
    if as_json:
        typer.echo(json.dumps(status_json(found), indent=2))
    else:
        for line in status_lines(found, time.time()):
            say(line)
    return found


def _watch(read: Callable[[], SetStatus], every: float, as_json: bool) -> SetStatus:
    with _watching(as_json) as show:
        while not (found := read()).complete:
            show(found)
            time.sleep(every)
        show(found)
        return found


@contextmanager
def _watching(as_json: bool) -> Iterator[Callable[[SetStatus], None]]:
    """Shows one status after the other: in place on a terminal, else a line each."""
    from rich.live import Live

    screen = console()
    if as_json:
        yield lambda found: typer.echo(json.dumps(status_json(found)))
    elif not screen.is_terminal:
        yield lambda found: say(overall(found, time.time()))
    else:
        with Live(console=screen, auto_refresh=False) as live:
            yield lambda found: live.update(_text(found), refresh=True)


def _text(found: SetStatus) -> Text:
    from rich.text import Text

    return Text("\n").join(plain(line) for line in status_lines(found, time.time()))


def overall(found: SetStatus, now: float) -> str:
    """The status in one line."""
    parts = [f"{found.committed}/{found.blocks} blocks"]
    if found.share.draws:
        parts.append(f"kept {share_text(found.share)}")
    if lacking := _lacking(found):
        parts.append(lacking)
    return ", ".join([*parts, *_speed(found, now)])


def status_lines(found: SetStatus, now: float) -> Iterator[str]:
    """The status as lines, each with what it is about first.

    Args:
        found: to show.
        now: seconds since 1970.
    """
    done = 100 * found.committed / found.blocks if found.blocks else 100
    yield f"set      {found.uri}"
    yield f"blocks   {found.committed} of {found.blocks} ({done:.1f} %)"
    yield f"draws    {found.drawn} of {found.draws}"
    if found.share.draws:
        yield f"kept     {found.share.hits}, {share_text(found.share)}; {found.data_bytes / 1e9:.3g} GB"
    if speed := _speed(found, now):
        yield f"speed    {', '.join(speed)}"
    if lacking := _lacking(found):
        yield f"lacking  {lacking}, in blocks {ranges(found.lacking)}: the next start draws them again"
    if found.shares:
        named = [f"{index} ({left} left)" for index, left in found.shares.items()]
        more = f" and {len(named) - MOST_SHARES} more" if len(named) > MOST_SHARES else ""
        yield f"shares   {len(named)} are incomplete: {', '.join(named[:MOST_SHARES])}{more}"
    if len(found.devices) > 1:
        yield f"devices  {'; '.join(found.devices)}: pictures may depend on them"
    yield from (f"problem  {problem}" for problem in found.problems)


def _speed(found: SetStatus, now: float) -> list[str]:
    """Pictures a second and time left, or since when nothing was committed."""
    if found.last is None or found.complete:
        return []
    age = max(0.0, now - found.last)
    if age > QUIET_S:
        return [f"no block was committed for {duration(age)}"]
    if found.pictures_per_second is None:
        return []
    left = found.seconds_left
    words = [f"{rate_text(found.pictures_per_second)} pictures/s"]
    return words if left is None else [*words, f"{duration(left)} left"]


def _lacking(found: SetStatus) -> str:
    counts = ((name, found.fates.get(name, 0)) for name in ("failed", "unjudged"))
    return ", ".join(f"{draws} {name}" for name, draws in counts if draws)


def ranges(numbers: Sequence[int]) -> str:
    """`3, 7-9 and 12 more`: sorted numbers, those in a row together, the first `MOST_RANGES` of them."""
    rows = [[n for _, n in row] for _, row in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    words = [f"{row[0]}" if len(row) == 1 else f"{row[0]}-{row[-1]}" for row in rows[:MOST_RANGES]]
    more = sum(len(row) for row in rows[MOST_RANGES:])
    return ", ".join(words) + (f" and {more} more" if more else "")


def status_json(found: SetStatus) -> dict[str, Any]:
    """The status as JSON: all of it, and what follows from it."""
    low, high = found.share.interval() or (None, None)
    return {
        "set": found.uri,
        "complete": found.complete,
        "blocks": {"total": found.blocks, "committed": found.committed, "left": found.left},
        "draws": {"total": found.draws, "drawn": found.drawn},
        "kept": {"draws": found.share.hits, "share": found.share.value, "low": low, "high": high},
        "fates": dict(found.fates),
        "funnel": [asdict(step) for step in found.funnel],
        "data_bytes": found.data_bytes,
        "lacking_blocks": list(found.lacking),
        "problems": list(found.problems),
        "incomplete_shares": {str(index): left for index, left in found.shares.items()},
        "devices": list(found.devices),
        "last_block_at": found.last,
        "pictures_per_second": found.pictures_per_second,
        "seconds_left": found.seconds_left,
    }
