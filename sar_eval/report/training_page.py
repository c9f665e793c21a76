"""Write a training run's `training.html`: one file that opens from disk, without scripts and network.

Curves, hold-out results with intervals, filmstrips of the watched prompts, the best and worst pictures,
settings; and at the top what a reader must know first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sar_eval.report.document import render
from sar_eval.report.training_figures import REWARD, curves, is_constant, sections
from sar_eval.report.training_plots import BINS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Points, spread, written
from sar_eval.report.training_samples import read_page_samples
from sar_eval.storage.files import write_bytes
from sar_eval.storage.training_journal import (
    HoldoutRow,
    JournalHead,
    StepRow,
    read_head,
    read_holdout,
    read_steps,
)
from sar_eval.types import Json

PAGE = "training.html"
SKIPS_NAMED = 8
HOLDOUT_ROWS = 12  # about so many in the table
TILES = 4  # beside the reward
ENDS = 10  # steps at either end that a tile is the mean of
FEW_VARIED = 0.2  # share of groups with variance, below which there is little to learn from


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline figure; `more` is set small below it."""

    title: str
    value: str
    more: str
    warns: bool = False


@dataclass(frozen=True, slots=True)
class HoldoutLine:
    """A result of the table, as text; `verdict` is "better" or "worse" if the interval leaves out 0."""

    step: int
    judge: str
    value: str
    interval: str
    change: str
    change_interval: str
    verdict: str


def write_training_page(folder: Path) -> None:
    """Write the page from the journal in a training run's folder.

    Raises:
        BadInput: there is no journal, or a file of it is damaged.
        StorageFailed: the page cannot be written.
    """
    write_bytes(folder / PAGE, _page(folder).encode())


def _page(folder: Path) -> str:
    head, steps, holdout = read_head(folder), read_steps(folder), read_holdout(folder)
    values = {
        "name": folder.resolve().name,
        "warnings": list(_warnings(head, steps, holdout)),
        "tiles": list(_tiles(steps, holdout)),
        "sections": sections(steps, holdout),
        "steps": steps,
        "skipped": [row for row in steps if row.skipped],
        "holdout": [_line(row) for row in _chosen(holdout)],
        "evaluations": len({row.step for row in holdout}),
        "last_step": max((row.step for row in steps), default=0),
        "first_look": min((row.step for row in holdout), default=0),
        "samples": read_page_samples(folder),
        "settings": list(_settings(head.settings)),
        "bins": BINS,
        "box": {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP},
    }
    return render("training.html.j2", ["report.css", "history.css", "training.css"], [], values)


def _warnings(head: JournalHead, steps: Sequence[StepRow], holdout: Sequence[HoldoutRow]) -> Iterator[str]:
    """What a reader must know before any curve."""
    if head.halt is not None:
        yield f"Stopped at step {head.halt.step:,}: {head.halt.why}"
    yield from head.notes
    for row in _latest(holdout):
        if row.change is not None and row.change_high is not None and row.change_high < 0:
            first = min(each.step for each in holdout)
            course = f"{_change(row)} from step {first:,} to step {row.step:,}"
            yield f"Hold-out judge {row.judge} fell: {course}"
    if skipped := [row for row in steps if row.skipped]:
        named = "; ".join(f"step {row.step:,} ({row.skipped})" for row in skipped[:SKIPS_NAMED])
        more = f"; and {len(skipped) - SKIPS_NAMED:,} more" if len(skipped) > SKIPS_NAMED else ""
        yield f"{len(skipped):,} of {len(steps):,} steps changed no weight: {named}{more}"
    varied = curves(steps).get("varied")
    if varied is not None and len(varied[1]) >= ENDS and (share := _ends(varied)[1]) < FEW_VARIED:
        yield f"Only {share:.0%} of the last groups had any variance: there is little left to learn from"


def _tiles(steps: Sequence[StepRow], holdout: Sequence[HoldoutRow]) -> Iterator[Tile]:
    found = curves(steps)
    if REWARD in found:
        yield _tile("Reward", found[REWARD])
    elif "loss" in found:
        yield _tile("Loss", found["loss"])
    judged = [row for row in _latest(holdout) if row.value is not None][:TILES]
    for row in judged:
        fell = row.change_high is not None and row.change_high < 0
        more = _change(row) or f"step {row.step:,}"
        yield Tile(f"Hold-out: {row.judge}", written(row.value or 0.0), more + _best(holdout, row), fell)
    others = {"varied": "Groups with variance", "kl": "KL to the reference", "entropy": "Entropy"}
    others |= {"tokens_per_s": "Visual tokens a second", "mfu": "Model FLOPs utilisation"}
    for name in [n for n in others if n in found and not is_constant(found[n])][: TILES - len(judged)]:
        yield _tile(others[name], found[name])


def _tile(title: str, points: Points) -> Tile:
    (first, last), number = _ends(points), _end_points(points)
    mean = f"mean of {number} points, " if number > 1 else ""
    return Tile(title, written(last), f"{mean}from {written(first)}" if len(points[1]) > 1 else "")


def _end_points(points: Points) -> int:
    """How many points an end has: at most half of all, so that none is in both."""
    return min(ENDS, max(1, len(points[1]) // 2))


def _ends(points: Points) -> tuple[float, float]:
    """Means of the first and of the last points."""
    number = _end_points(points)
    return float(np.mean(points[1][:number])), float(np.mean(points[1][-number:]))


def _latest(holdout: Sequence[HoldoutRow]) -> list[HoldoutRow]:
    """The last result of each judge."""
    return list({row.judge: row for row in holdout}.values())


def _best(holdout: Sequence[HoldoutRow], last: HoldoutRow) -> str:
    """The best result of a judge, the earliest of equal ones; "" if it is the last one."""
    found = [row for row in holdout if row.judge == last.judge and row.value is not None]
    best = max(found, key=lambda row: (row.value or 0.0, -row.step))
    return "" if best.step == last.step else f"; best {written(best.value or 0.0)} at step {best.step:,}"


def _change(row: HoldoutRow) -> str:
    if row.change is None:
        return ""
    return f"{row.change:+.3f} {_interval(row.change_low, row.change_high, '+')}".strip()


def _chosen(holdout: Sequence[HoldoutRow]) -> list[HoldoutRow]:
    """The results of some steps, spread over the run, the latest first."""
    number = max(3, HOLDOUT_ROWS // max(1, len(_latest(holdout))))
    steps = set(spread(sorted({row.step for row in holdout}), number))
    return sorted((row for row in holdout if row.step in steps), key=lambda row: -row.step)


def _line(row: HoldoutRow) -> HoldoutLine:
    verdict = ""
    if row.change_low is not None and row.change_high is not None:
        verdict = "better" if row.change_low > 0 else "worse" if row.change_high < 0 else ""
    return HoldoutLine(
        step=row.step,
        judge=row.judge,
        value="no result" if row.value is None else f"{row.value:.3f}",
        interval=_interval(row.low, row.high, "-"),
        change="" if row.change is None else f"{row.change:+.3f}",
        change_interval=_interval(row.change_low, row.change_high, "+"),
        verdict=verdict,
    )


def _interval(low: float | None, high: float | None, sign: str) -> str:
    return "" if low is None or high is None else f"[{low:{sign}.3f}, {high:{sign}.3f}]"


def _settings(settings: Mapping[str, Json]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Groups of names and values: a table each, and before them what stands outside of tables."""
    if outside := [(name, _text(v)) for name, v in settings.items() if not isinstance(v, Mapping)]:
        yield "run", outside
    for name, table in settings.items():
        if isinstance(table, Mapping) and table:
            yield name, list(_flat(table))


def _flat(table: Mapping[str, Json], start: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{start}{name}.")
        else:
            yield f"{start}{name}", _text(value)


def _text(value: Json) -> str:
    if value is None or value in ("", {}, []):
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
