"""Tables of `--explain`: in which order a selection asks, and how many draws are left after each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from sar_eval.cli.terminal import plain
from sar_eval.synthesis.expression import parse_filter, parse_rank

if TYPE_CHECKING:
    from sar_eval.synthesis.funnel import FunnelStep
    from sar_eval.synthesis.selection import Selection


def funnel_table(steps: Sequence[FunnelStep]) -> Table:
    """A row for each step: draws, share of all with its interval, share of those before."""
    table = Table(title="Funnel", title_justify="left")
    table.add_column("left after")
    for heading in ("draws", "of all", "95 % interval", "of those before"):
        table.add_column(heading, justify="right")
    before = steps[0].draws if steps else 0
    for step in steps:
        interval = f"{_percent(step.low)} to {_percent(step.high)}" if step.draws != steps[0].draws else ""
        relative = _percent(step.draws / before) if before and step is not steps[0] else ""
        table.add_row(plain(step.name), f"{step.draws:,}", _percent(step.share), interval, relative)
        before = step.draws
    return table


def order_table(selection: Selection) -> Table:
    """A row for each measure, in the order in which they are asked: its cost, and what it is asked for."""
    table = Table(title="Asked in this order", title_justify="left")
    for heading in ("measure", "kind", "version", "GFLOP a picture", "for"):
        table.add_column(heading, justify="right" if heading.startswith("GFLOP") else "left")
    filtering = parse_filter(selection.filter).names
    ranking = parse_rank(selection.rank).names if selection.rank else ()
    for spec in selection.measures:
        uses = {"filter": spec.name in filtering, "rank": spec.name in ranking}
        why = ", ".join(use for use, is_used in uses.items() if is_used) or "column of the kept"
        cost = "unknown" if spec.cost is None else f"{spec.cost:g}"
        table.add_row(plain(spec.name), spec.kind, plain(spec.version), cost, why)
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
