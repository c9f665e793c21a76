"""A comparison on the terminal: the sentence first, then the table, then what readers must know."""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from sar_eval.cli.terminal import console as plain_console
from sar_eval.cli.terminal import plain, printable
from sar_eval.comparisons import Comparison, Difference, Pair, preference_words, sentence

CAPTION = (
    "difference with its 95 % interval; * told apart. p of no difference, Holm-adjusted. won, lost, tied: "
    "prompts, won by the second. MDE: the smallest difference found with 80 % power."
)


def print_comparison(found: Comparison) -> None:
    """Sentence, table and notes; with more than two runs, the ranking and one line for each pair."""
    console = plain_console()
    for pair in found.pairs:
        console.print(printable(sentence(found, pair)), soft_wrap=True)
    console.print()
    if len(found.pairs) == 1:
        _print_whole(console, difference_table(found, found.pairs[0]))
    else:
        _print_whole(console, ranking_table(found))
        _print_whole(console, pair_table(found))
    for pair in found.pairs:
        for preference in pair.preferences:
            console.print(printable(preference_words(pair, preference)), soft_wrap=True)
    for side in found.sides:
        console.print(printable(f"{side.letter}  {side.label}  {side.path}"), soft_wrap=True)
    for line in published_lines(found):
        console.print(printable(line), soft_wrap=True)
    for note in found.notes:
        console.print(printable(f"note: {note}"), soft_wrap=True)


def _print_whole(console: Console, table: Table) -> None:
    """Print a table as wide as its figures need: wrapped lines lose nothing, cut cells do."""
    for column in table.columns:
        if column.no_wrap:  # an interval is measured as two words that could stand on two lines
            column.min_width = max(cell_len(str(cell)) for cell in (column.header, *column.cells))
    narrow, wide = console.width, console.options.update(width=10_000)
    console.width = max(narrow, console.measure(table, options=wide).minimum)
    console.print(table)
    console.width = narrow


def difference_table(found: Comparison, pair: Pair) -> Table:
    """One row a measure, at most 80 columns wide."""
    table = Table(
        title=plain(f"{found.benchmark}  {pair.second} - {pair.first}", style="table.title"),
        title_justify="left",
        caption=CAPTION,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),  # eight columns in 80
    )
    table.add_column("")
    for name in (
        pair.first,
        pair.second,
        f"{pair.second}-{pair.first}",
        "95 % interval",
        "p",
        "won-lost-tied",
        "MDE",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    group = ""
    for number, row in enumerate(pair.differences):
        if row.group != group:
            group = row.group
            table.add_section()
            if group:
                heading = "scorers" if group == "scorer" else _words(group)
                table.add_row(plain(heading, style="dim italic"))
        label = _words(row.measure.rpartition("/")[2]) or "untagged"
        table.add_row(plain(label), *_figures(row), style="bold" if number == 0 else "")
    return table


def _words(name: str) -> str:
    """`reference/category` as a heading."""
    return name.replace("_", " ").replace("/", " ")


def _figures(row: Difference) -> Iterable[str]:
    interval = "-" if row.low is None else f"{row.written(row.low)} {row.written(row.high)}"
    yield row.written(row.first, "-")
    yield row.written(row.second, "-")
    yield f"{row.written(row.value)}{'*' if row.winner else ' '}"
    yield interval
    yield "<.001" if row.p_adjusted < 0.001 else f"{row.p_adjusted:.3f}".lstrip("0")
    yield f"{row.won}-{row.lost}-{row.tied}"
    yield row.written(row.detectable, "-")


def ranking_table(found: Comparison) -> Table:
    """Best first; runs that share a letter are not told apart."""
    table = Table(title=plain(f"{found.benchmark}: ranking", style="table.title"), title_justify="left")
    for name in ("", "run", found.pairs[0].overall.measure, "group"):
        table.add_column(name, justify="right" if name else "left")
    for rank in found.ranking:
        value = found.pairs[0].overall.written(rank.value, "-")
        table.add_row(rank.letter, plain(found.side(rank.letter).label), value, rank.groups)
    return table


def pair_table(found: Comparison) -> Table:
    """The headline difference of every pair."""
    table = Table(title=plain("all pairs", style="table.title"), title_justify="left")
    for name in ("pair", "difference", "95 % interval", "p", "won-lost-tied", "MDE"):
        table.add_column(name, justify="left" if name == "pair" else "right", no_wrap=True)
    for pair in found.pairs:
        table.add_row(f"{pair.second} - {pair.first}", *list(_figures(pair.overall))[2:])
    return table


def published_lines(found: Comparison) -> Iterable[str]:
    """Published scores: beside, as nothing pairs with them."""
    for score in found.published:
        yield (
            f"published  {score.name}: {score.overall:g} ({score.conditions}; {score.source}); not paired: "
            "its images are not at hand"
        )
