"""Stage: from the runs of a folder to series over checkpoints, with the changes that are more than luck."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path, PurePosixPath

import numpy as np

from sar_eval.comparisons import ALPHA
from sar_eval.documents import shorten
from sar_eval.errors import BadInput, Incomplete
from sar_eval.histories import Change, Curve, Entry, History, LeftOut, LevelChange, Series
from sar_eval.stages.history_order import STEP, Order, Placed
from sar_eval.stages.history_runs import Found, find_runs, leave_out
from sar_eval.stats.change_points import find_change_points
from sar_eval.stats.intervals import metric_of
from sar_eval.stats.levels import Level, check_prompts, level_of, pair_levels, prompt_scores
from sar_eval.stats.paired import bootstrap_values, interval, value_of

NOT_SHOWN = ("reference", "detail", "quirk")  # groups of measures: too many to look at, unless asked for
VALUE_LENGTH = 40  # characters of a condition's value in a series' title


def make_history(
    folder: Path, *, benchmark: str | None = None, measure: str = "overall", order: str = STEP
) -> History:
    """All finished runs and baselines below a folder, in series over checkpoints.

    Args:
        folder: see `find_runs`.
        benchmark: only runs of it; None for all.
        measure: what to show first; others of the first rank come after it.
        order: see `Order.by`.

    Raises:
        BadInput: there are no runs, the order is of no use, or no run has the measure.
        Incomplete: no run is finished.
    """
    runs, left_out = find_runs(folder, benchmark)
    _check_some(runs, left_out, folder, benchmark)
    _check_measure(runs, measure)
    ordering, series = Order(order), list[Series]()
    for name in sorted({run.facts.benchmark for run in runs}):
        chosen = [run for run in runs if run.facts.benchmark == name]
        without = [run for run in chosen if not _has(run, measure)]
        ordering.unplaced += [(run, f"it has no measure {shorten(measure)}") for run in without]
        by, placed = ordering.place([run for run in chosen if _has(run, measure)])
        series += _series_of(placed, by, measure, ordering.notes)
    left_out += [leave_out(run, why) for run, why in ordering.unplaced]
    if not series:
        raise BadInput(f"no run of {folder} has a place: {left_out[-1].path}: {left_out[-1].why}")
    return History(
        folder=str(folder),
        measure=measure,
        series=tuple(series),
        left_out=tuple(sorted(left_out, key=lambda run: (run.benchmark, run.path))),
        notes=tuple(ordering.notes),
    )


def _check_some(runs: Sequence[Found], left_out: Sequence[LeftOut], folder: Path, name: str | None) -> None:
    of = "" if name is None else f" of {shorten(name)}"
    if not runs and not left_out:
        raise BadInput(f"no runs{of} below {folder}: name a folder with run folders in it, as runs")
    if not runs:
        first = left_out[0]
        raise Incomplete(f"no finished run{of} below {folder}; {first.path}: {first.why}")


def _check_measure(runs: Sequence[Found], measure: str) -> None:
    if not any(_has(run, measure) for run in runs):
        known = ", ".join(dict.fromkeys(name for run in runs for name in run.measures if _has(run, name)))
        raise BadInput(f"--measure is {shorten(measure)}: the runs have {known}")


def _series_of(placed: Sequence[Placed], by: str, measure: str, notes: list[str]) -> Iterator[Series]:
    """The series of a benchmark: a training each, and runs under the same conditions."""
    groups: dict[tuple[object, ...], list[Placed]] = {}
    for one in placed:
        groups.setdefault((one.training, *sorted(one.run.conditions.items())), []).append(one)
    for group, differs in zip(groups.values(), _differences(list(groups.values())), strict=True):
        group.sort(key=lambda one: (one.key, one.run.facts.seed, str(one.run.path)))
        levels = [list(runs) for _, runs in groupby(group, key=lambda one: one.checkpoint)]
        curves = _curves([[one.run for one in level] for level in levels], measure, differs, notes)
        yield Series(
            benchmark=group[0].run.facts.benchmark,
            differs=differs,
            entries=tuple(_entry(one, n) for n, level in enumerate(levels) for one in level),
            curves=tuple(curves),
            order=by,
        )


def _differences(groups: Sequence[Sequence[Placed]]) -> list[str]:
    """What is unlike in each group, in words: the training's name, and `guidance 2, top k 0`."""
    conditions = [group[0].run.conditions for group in groups]
    names = dict.fromkeys(name for found in conditions for name in found)
    unlike = [name for name in names if len({found.get(name) for found in conditions}) > 1]
    trainings = _shortest([group[0].training for group in groups])
    return [
        ", ".join([*filter(None, [training]), *(f"{name} {_brief(found.get(name))}" for name in unlike)])
        for training, found in zip(trainings, conditions, strict=True)
    ]


def _shortest(names: Sequence[str]) -> list[str]:
    """Paths without the folders that all share; "" for each if all are the same."""
    if len(set(names)) == 1:
        return ["" for _ in names]
    parts = [PurePosixPath(name).parts for name in names]
    shared = 0
    while len({part[: shared + 1] for part in parts}) == 1:
        shared += 1
    return ["/".join(part[shared:]) for part in parts]


def _brief(value: str | None) -> str:
    text = "none" if value in (None, "") else str(value)
    return text if len(text) <= VALUE_LENGTH else f"{text[: VALUE_LENGTH - 3]}..."


def _entry(placed: Placed, level: int) -> Entry:
    run = placed.run
    name = run.facts.checkpoint
    return Entry(
        checkpoint=name,
        label=name.rstrip("/").rpartition("/")[2] or name,
        path=str(run.path),
        step=placed.step,
        date=run.began.isoformat(timespec="minutes"),
        seed=run.facts.seed,
        level=level,
    )


def _curves(
    levels: Sequence[Sequence[Found]], measure: str, differs: str, notes: list[str]
) -> Iterator[Curve]:
    """Of every measure that all runs have, the one asked for first."""
    runs = [run for level in levels for run in level]
    shown = [
        name for name in runs[0].measures if name.partition("/")[0] not in NOT_SHOWN and name != measure
    ]
    for name in (measure, *(name for name in shown if all(_has(run, name) for run in runs))):
        try:
            at_levels = [level_of([run.measures[name] for run in level]) for level in levels]
            check_prompts(at_levels)
        except ValueError as error:
            notes.append(f"{differs or runs[0].facts.benchmark}, {name}: {error}: no changes are computed")
            at_levels = []
        yield _curve(levels, name, at_levels)


def _has(run: Found, name: str) -> bool:
    """Whether the run has a figure of that name, and an interval of it."""
    measure = run.measures.get(name)
    if measure is None or measure.is_effect or not measure.has_interval:
        return False
    return any(len(stratum.prompts) for stratum in measure.strata)


def _curve(runs: Sequence[Sequence[Found]], name: str, levels: Sequence[Level]) -> Curve:
    scale = runs[0][0].measures[name].scale
    changes: list[Change | None] = [None] * len(runs)
    changes[1:] = [_change(name, scale, *pair) for pair in pairwise(levels)] or changes[1:]
    found = _level_changes(levels, scale)
    return Curve(
        measure=name,
        scale=scale,
        figures=tuple(metric_of(run.measures[name]) for level in runs for run in level),
        # Further runs of a checkpoint have none of their own.
        changes=tuple(
            change if number == 0 else None
            for level, change in zip(runs, changes, strict=True)
            for number in range(len(level))
        ),
        level_changes=found,
        means=_means(levels, [change.at for change in found], scale),
    )


def _change(name: str, scale: int, before: Level, after: Level) -> Change:
    paired = pair_levels(name, scale, before, after)
    low, high = interval(paired, bootstrap_values(paired), 1 - ALPHA)
    ends = [None if end is None else scale * end for end in (low, high)]
    return Change(value=scale * value_of(paired), low=ends[0], high=ends[1])


def _level_changes(levels: Sequence[Level], scale: int) -> tuple[LevelChange, ...]:
    if not levels:
        return ()
    return tuple(
        LevelChange(
            first=found.first,
            at=found.at,
            end=found.end,
            value=scale * found.difference,
            low=scale * found.low,
            high=scale * found.high,
            p=found.p,
        )
        for found in find_change_points(*prompt_scores(levels), shares=levels[0].shares)
    )


def _means(
    levels: Sequence[Level], changes: Sequence[int], scale: int
) -> tuple[tuple[int, int, float], ...]:
    """The mean figure of each stretch of levels between changes."""
    ends = [0, *changes, len(levels)] if levels else [0]
    return tuple(
        (a, b, scale * float(np.mean([level.mean for level in levels[a:b]]))) for a, b in pairwise(ends)
    )
