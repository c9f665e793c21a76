"""The options of comparisons and gates, which several commands share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from sar_eval.comparisons import FailIf
from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.options import option

PANEL = "Comparison"  # of --help


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatMayDiffer:
    """In what compared runs may differ."""

    across: list[str] | None = option(
        "Compare runs of other protocols all the same.", "run", panel=PANEL, metavar="protocol"
    )
    allow_missing: float = option(
        "Share of a run's images that may lack a score or a partner, as 0.05; the rest is compared.",
        "run",
        default=0.0,
        panel=PANEL,
        metavar="SHARE",
        low=0,
        high=1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToGate:
    """What a run is held against, and what must hold for its gate to pass."""

    baseline: Path | None = option(
        "Hold the run against this baseline (.parquet) or run folder; exit code 1 if the gate fails.",
        "run",
        panel=PANEL,
        metavar="B",
    )
    tolerance: float | None = option(
        "How much worse than the baseline is good enough, in the benchmark's unit. Default: 0.01, or 1 "
        "where 100 is perfect.",
        "run",
        panel=PANEL,
        low=0,
    )
    fail_if: str = option(
        "not-shown: fail unless the run is shown to be at most so much worse. worse: fail only if it is "
        "shown to be more than so much worse.",
        "run",
        default="not-shown",
        panel=PANEL,
        metavar="|".join(get_args(FailIf)),
    )
    measure: list[str] | None = option(
        "Ask of this measure instead of overall, as task/counting, or of `all`; every one must pass. "
        "Repeatable.",
        "run",
        panel=PANEL,
        metavar="NAME",
    )
    floor: list[str] | None = option(
        "The run's own figure must be at least this, as overall=0.58; no baseline is needed. Repeatable.",
        "run",
        panel=PANEL,
        metavar="NAME=VALUE",
    )

    @property
    def is_asked(self) -> bool:
        """Whether there is anything to hold the run against."""
        return self.baseline is not None or bool(self.floor)


@dataclass(frozen=True, slots=True, kw_only=True)
class WhereCiLooks:
    """Files that CI systems show."""

    junit: Path | None = option(
        "Write the result as JUnit XML: a test case for each question.", "run", panel=PANEL, metavar="FILE"
    )
    markdown: Path | None = option(
        "Write the result as Markdown; $GITHUB_STEP_SUMMARY, where that is set, gets it in any case.",
        "run",
        panel=PANEL,
        metavar="FILE",
    )


def parse_fail_if(word: str) -> FailIf:
    """`--fail-if`.

    Raises:
        BadInput: it is neither of the two.
    """
    if word not in get_args(FailIf):
        raise BadInput(f"--fail-if is {shorten(word)}: {' or '.join(get_args(FailIf))}")
    return cast("FailIf", word)


def parse_floors(words: Sequence[str] | None) -> dict[str, float]:
    """`--floor`: least values by measure.

    Raises:
        BadInput: a word is not of the form NAME=VALUE, its value is no number, or a name comes twice.
    """
    floors: dict[str, float] = {}
    for word in words or ():
        name, _, text = word.rpartition("=")
        value = _number(text)
        if not name or value is None:
            raise BadInput(f"--floor is {shorten(word)}: NAME=VALUE, as overall=0.58")
        if name in floors:
            raise BadInput(f"--floor {shorten(name)} is given twice")
        floors[name] = value
    return floors


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
