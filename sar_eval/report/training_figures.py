"""Which plots a training page has: what each figure of the journal means, and where it stands."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sar_eval.report.training_plots import Across, Plot, Points, intervals, lines, stacked, written
from sar_eval.storage.training_journal import HoldoutRow, StepRow

REWARD, SECONDS = "reward", "seconds"  # families that have a plot of their own kind
RAW = "as its judge gives it, mean of the step's pictures"
ROUNDING = 1e-6  # of a float32, relative
HOLDOUT = "Hold-out"
SECTIONS = ("Loss", "Reward", "Policy", "Optimiser and time", "Other figures")


@dataclass(frozen=True, slots=True)
class Family:
    """What a figure and those called `NAME/...` mean.

    Attributes:
        section: of the page.
        title, about: in words, with the unit.
        shares: they lie between 0 and 1.
    """

    section: str
    title: str
    about: str
    shares: bool = False


_LOSS, _REWARDS, _POLICY, _OPTIMISER, OTHERS = SECTIONS
# Without rewards, the loss is what is learnt from.
SUPERVISED = {"loss": Family(_LOSS, "Loss", "nats a visual token, mean since the point before")}
FAMILIES = {
    REWARD: Family(_REWARDS, "Reward", "weighted sum of all rewards, mean of the step's pictures"),
    "varied": Family(_REWARDS, "Groups with variance", "share of groups whose rewards differ", True),
    "lost": Family(_REWARDS, "Pictures without a reward", "share: failed draws and judges' errors"),
    "kept": Family(_REWARDS, "Pictures trained on", "share of those drawn", True),
    "advantage": Family(_REWARDS, "Advantage", "mean |advantage| of the pictures trained on"),
    "kl": Family(_POLICY, "KL to the reference", "nats a token"),
    "entropy": Family(_POLICY, "Entropy", "nats a token"),
    "entropy_weight": Family(_POLICY, "Weight of the entropy", "in the loss"),
    "ratio": Family(_POLICY, "Ratio", "new to old probability of a token, mean"),
    "ratio_max": Family(_POLICY, "Largest ratio", "new to old probability of a token"),
    "clip_share": Family(_POLICY, "Clipped tokens", "share of the tokens"),
    "gap": Family(_POLICY, "Trainer against engine", "mean |difference| of log-probs, nats a token"),
    "gap_max": Family(_POLICY, "Largest gap", "of a token's log-prob, trainer against engine, in nats"),
    "diversity": Family(_POLICY, "Token diversity", "share of places at which two of a group differ"),
    "distinct_codes": Family(_POLICY, "Distinct codes", "of a picture, mean"),
    "out_of_range": Family(_POLICY, "Text tokens drawn", "in all pictures of the step"),
    "grad_norm": Family(_OPTIMISER, "Gradient norm", "before clipping"),
    "loss": Family(_OPTIMISER, "Loss", "mean of the step's tokens"),
    "learning_rate": Family(_OPTIMISER, "Learning rate", "at the step"),
    "tokens_per_s": Family(_OPTIMISER, "Throughput", "visual tokens a second, of all devices"),
    "mfu": Family(_OPTIMISER, "Model FLOPs utilisation", "share of the devices' peak"),
    SECONDS: Family(_OPTIMISER, "Seconds a step", "by stage"),
}


@dataclass(slots=True)
class Section:
    """A part of the page: plots, and in words the figures that never changed, which need none."""

    plots: list[Plot] = field(default_factory=list)
    constant: list[str] = field(default_factory=list)


def across_of(steps: Sequence[StepRow], holdout: Sequence[HoldoutRow]) -> Across:
    """The steps that any plot has."""
    numbers = [row.step for row in steps] + [row.step for row in holdout] or [0]
    return Across(min(numbers), max(numbers), tuple(row.step for row in steps if row.skipped))


def sections(steps: Sequence[StepRow], holdout: Sequence[HoldoutRow]) -> dict[str, Section]:
    """The sections that have figures, in the order of the page."""
    across, found = across_of(steps, holdout), curves(steps)
    families: dict[str, dict[str, Points]] = {}
    for name, points in found.items():
        start, _, rest = name.partition("/")
        families.setdefault(start, {})[rest] = points
    known = FAMILIES if REWARD in families else FAMILIES | SUPERVISED
    parts = {name: Section() for name in (HOLDOUT, *SECTIONS)}
    if any(row.value is not None for row in holdout):
        about = "mean of the hold-out suite, with 95% intervals"
        parts[HOLDOUT].plots.append(intervals("Hold-out judges", about, holdout, across))
    for name in sorted(families, key=_place):
        family = known.get(name) or Family(OTHERS, name.replace("_", " "), "")
        if name not in (REWARD, SECONDS) and all(map(is_constant, families[name].values())):
            parts[family.section].constant.append(_in_words(family.title, families[name]))
        else:
            parts[family.section].plots += _family(name, family, families[name], across)
    return {name: part for name, part in parts.items() if part.plots or part.constant}


def is_constant(points: Points) -> bool:
    """Whether a figure is the same at every step, rounding aside."""
    return bool(np.ptp(points[1]) <= ROUNDING * abs(points[1]).max())


def curves(steps: Sequence[StepRow]) -> dict[str, Points]:
    """Every figure over the steps that have it as a finite number."""
    names = sorted({name for row in steps for name in row.values})
    numbers = np.array([row.step for row in steps], float)
    found = {}
    for name in names:
        values = np.array([row.values.get(name, math.nan) for row in steps], float)
        there = np.isfinite(values)
        if there.any():
            found[name] = (numbers[there], values[there])
    return found


def _place(family: str) -> tuple[int, str]:
    known = list(FAMILIES)
    return known.index(family) if family in FAMILIES else len(known), family


def _in_words(title: str, found: Mapping[str, Points]) -> str:
    values = (f"{rest} {written(points[1][-1])}".strip() for rest, points in found.items())
    return f"{title} {', '.join(values)}"


def _family(name: str, family: Family, found: Mapping[str, Points], across: Across) -> Iterator[Plot]:
    if name == SECONDS:
        yield stacked(family.title, family.about, found, across)
    elif name == REWARD:  # judges have scales of their own
        for rest, points in found.items():
            title = f"Reward: {rest}" if rest else family.title
            yield lines(title, RAW if rest else family.about, {"": points}, across)
    else:
        named = {rest or "mixed": points for rest, points in found.items()} if len(found) > 1 else found
        yield lines(family.title, family.about, named, across, family.shares)
