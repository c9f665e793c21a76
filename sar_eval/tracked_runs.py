"""Scored runs and trainings as experiment trackers show them: plain, frozen, standard library only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sar_eval.types import Json


@dataclass(frozen=True, slots=True)
class TrackedPicture:
    """An image of a scored run, for a tracker.

    Attributes:
        key: of the draw.
        task: its prompt's tag ("" if none).
        prompt: its text; untrusted.
        image: encoded PNG, JPEG or WebP.
        score, passed, reason: of its verdict.
    """

    key: str
    task: str
    prompt: str
    image: bytes
    score: float | None
    passed: bool | None
    reason: str

    @property
    def verdict(self) -> str:
        """In a word: passed, failed, or the score."""
        if self.passed is None:
            return "no score" if self.score is None else f"{self.score:.3g}"
        return "passed" if self.passed else "failed"

    def words(self) -> dict[str, Json]:
        """Everything but the image, as the row of a table."""
        names = ("key", "task", "verdict", "score", "reason", "prompt")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class TrackedTraining:
    """A training as trackers follow it.

    Attributes:
        project: what the tracker shows it under (an experiment, a folder).
        name: the training's name there.
        step: the last one that was finished before; 0 if the training begins.
        config: its settings; JSON-shaped.
    """

    project: str
    name: str
    step: int
    config: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class StepLog:
    """A tracker that follows a training.

    Attributes:
        where: the figures are (an address, a path).
        log: takes a step and its figures, `train/reward/shapes` and so on, all of them finite. It is
            called for a step more than once, with other figures: those of the hold-out come later.
    """

    where: str
    log: Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A scored run as trackers show it.

    Attributes:
        project: what the tracker shows it under (an experiment, a folder).
        name: the run's name there.
        benchmark: its name; figures begin with it, so that a run there can have several benchmarks.
        step: of training, as far as it is known.
        config: everything that decides images and verdicts; JSON-shaped.
        figures: `shapes/overall` with `shapes/overall_low`, `_high` (95 % interval) and `_n`, and so on.
        pictures: a sample; each is read when it is asked for, once.
        report: `report.html` and what lies beside it for it; empty if none was written.
    """

    project: str
    name: str
    benchmark: str
    step: int | None
    config: Mapping[str, Json]
    figures: Mapping[str, float]
    pictures: Iterable[TrackedPicture]
    report: tuple[Path, ...]

    @property
    def place(self) -> str:
        """Where its files go, next to those of other benchmarks and steps."""
        return self.benchmark if self.step is None else f"{self.benchmark}-step-{self.step}"

    @property
    def report_name(self) -> str:
        """Of the report as an artifact: letters, digits, `-`, `_` and `.`, at most 128."""
        return re.sub(r"[^A-Za-z0-9_.-]", "-", f"report-{self.place}-{self.name}")[:128]
