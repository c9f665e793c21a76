"""In which order the runs of a history stand: by training step, name, time, or a file that lists them."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sar_eval.checkpoint_steps import step_in, training_of
from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.stages.history_runs import Found
from sar_eval.tables import read_rows

STEP, NAME, TIME = "step", "name", "time"
COLUMNS = ("name", "checkpoint", "text")  # of a file: the first of them that a row has


@dataclass(frozen=True, slots=True)
class Placed:
    """A run and its place in the order.

    Attributes:
        key: sorts the runs of a series.
        checkpoint: the same for runs of one checkpoint that stand side by side.
        step: None if not known.
        training: what all checkpoints of one training share ("" where the order joins them anyway).
    """

    run: Found
    key: tuple[Any, ...]
    checkpoint: Hashable
    step: int | None = None
    training: str = ""


@dataclass(slots=True)
class Order:
    """Places runs; what it says of runs and names that found no place is in `notes` and `unplaced`.

    Attributes:
        by: `step`, `name`, `time`, or a file: a table with a column `name` (or `checkpoint`) and perhaps
            `step`, or a name a line. A name is a checkpoint's, whole or its last part, or a run folder's.
    """

    by: str
    notes: list[str] = field(default_factory=list)
    unplaced: list[tuple[Found, str]] = field(default_factory=list)
    _listed: dict[str, tuple[int, int | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.by not in (STEP, NAME, TIME):
            self._listed = _read_order(Path(self.by), self.notes)

    def place(self, runs: Sequence[Found]) -> tuple[str, list[Placed]]:
        """The order that the runs of one benchmark are in, and each with its place."""
        if self._listed:
            return self.by, self._by_file(runs)
        if self.by == NAME:
            return NAME, [_by_name(run) for run in runs]
        if self.by == STEP:
            if placed := [p for p in map(_by_step, runs) if p is not None]:
                lost = [run for run in runs if _step_of(run) is None]
                self.unplaced += [(run, _no_step(run)) for run in lost]
                return STEP, placed
            self.notes.append("no checkpoint's name has a training step: in order of time (see --order)")
        return TIME, [_by_time(run) for run in runs]

    def _by_file(self, runs: Sequence[Found]) -> list[Placed]:
        placed, seen = [], set()
        for run in runs:
            name = next((name for name in _names(run) if name in self._listed), None)
            if name is None:
                self.unplaced.append((run, f"not in {self.by}"))
                continue
            rank, step = self._listed[name]
            seen.add(name)
            placed.append(Placed(run, (rank if step is None else step,), name, step))
        for name in [name for name in self._listed if name not in seen]:
            self.notes.append(f"{self.by}: no finished run of {shorten(name)}")
        return placed


def _by_step(run: Found) -> Placed | None:
    step = _step_of(run)
    return None if step is None else Placed(run, (step,), step, step, training_of(run.facts.checkpoint))


def _by_name(run: Found) -> Placed:
    name = run.facts.checkpoint
    return Placed(run, _natural(name), name, step_in(name))


def _by_time(run: Found) -> Placed:
    key = (run.began.timestamp(), str(run.path))
    return Placed(run, key, run.facts.checkpoint_digest, step_in(run.facts.checkpoint))


def _step_of(run: Found) -> int | None:
    """The step in the checkpoint's name, else in the run folder's."""
    step = step_in(run.facts.checkpoint)
    return step_in(run.path.stem if run.path.is_file() else run.path.name) if step is None else step


def _no_step(run: Found) -> str:
    return (
        f"no training step in the name {shorten(run.facts.checkpoint)}: --order FILE says where it belongs"
    )


def _natural(name: str) -> tuple[str | int, ...]:
    """Sorts `ckpt-9` before `ckpt-10`; texts and numbers alternate, so that they are never compared."""
    parts = re.split(r"(\d+)", name)
    return tuple(int(part) if n % 2 else part for n, part in enumerate(parts))


def _names(run: Found) -> Iterable[str]:
    checkpoint = run.facts.checkpoint
    return (
        checkpoint,
        checkpoint.rstrip("/").rpartition("/")[2],
        run.path.name,
        run.path.stem,
        str(run.path),
    )


def _read_order(path: Path, notes: list[str]) -> dict[str, tuple[int, int | None]]:
    """Rank and step of each name in the file.

    Raises:
        BadInput: there is no such file, a row names nothing, a name is there twice, a step is no whole
            number, or only some have one.
    """
    if not path.is_file():
        raise BadInput(
            f"--order is {shorten(str(path))}: step, name, time, or a file that lists names in order"
        )
    listed: dict[str, tuple[int, int | None]] = {}
    for line, row in read_rows(path, notes=notes):
        name = next((str(row[column]).strip() for column in COLUMNS if row.get(column)), "")
        if not name:
            raise BadInput(f"{path}:{line}: no name: a table needs a column `name`, and may have `step`")
        if name in listed:
            raise BadInput(f"{path}:{line}: {shorten(name)} is there twice")
        listed[name] = len(listed), _step(row.get("step"), f"{path}:{line}")
    if not listed:
        raise BadInput(f"{path} lists no names")
    if len({step is None for _, step in listed.values()}) > 1:
        raise BadInput(f"{path}: some names have a step and some have none")
    return listed


def _step(value: object, where: str) -> int | None:
    text = "" if value is None else str(value).strip()
    if text and not (text.isascii() and text.isdecimal() and len(text) <= 15):
        raise BadInput(f"{where}: step is {shorten(text)}: a whole number")
    return int(text) if text else None
