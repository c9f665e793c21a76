"""The journal that a training run keeps: figures of its steps, pictures, hold-out results.

Every file is a function of what was recorded: a run that was interrupted and resumed writes what one
without interruption writes, seconds aside. Figures are named by what the page draws of them:

`reward` is the mean of the mixed reward, `reward/NAME` that of one reward as its judge gives it; `varied`
the share of groups whose rewards differ, `varied/NAME` by reward; `seconds/STAGE`; the others are listed in
`report/training_figures.py`, with their units. A name that is not there gets a plot, too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from sar_eval.storage import training_journal as stored
from sar_eval.storage.training_journal import HoldoutRow, Kind, SampleRow, StepRow
from sar_eval.types import Draw, Generation, Json


class _OfStep(Protocol):
    @property
    def step(self) -> int: ...


T = TypeVar("T", bound=_OfStep)
Listener = Callable[[int, Mapping[str, float]], None]


class Journal:
    """The journal in a training run's folder; only the main process writes it.

    A journal has no future: what is written at a step replaces what is there of this step and later ones.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Json],
        notes: Sequence[str] = (),
        listener: Listener = lambda step, figures: None,
    ) -> None:
        """Begin a journal, or go on with the one that is there: see `resume`.

        Args:
            folder: of the training run; need not exist.
            settings: what the page shows of them; tables of tables are shown as groups.
            notes: what a reader must know first: trained on the test, placebo, one judge for everything.
            listener: is told a step and its figures, `train/reward` or `holdout/JUDGE` and so on, once they
                are stored.

        Raises:
            BadInput: a file of an earlier journal is damaged.
        """
        self.folder, self._listener = folder, listener
        stored.remove_temporaries(folder)
        self._head = stored.JournalHead(settings=dict(settings), notes=tuple(notes))
        if stored.is_training(folder):
            self._head = replace(self._head, halt=stored.read_head(folder).halt)
        self._rows = stored.read_steps(folder)
        self._holdout = stored.read_holdout(folder)

    def resume(self, step: int) -> None:
        """Go on after a step, 0 for none: drop everything later. Step 0's hold-out and pictures stay.

        Raises:
            StorageFailed: a file cannot be written.
        """
        halt = self._head.halt
        self._head = replace(self._head, halt=halt if halt and halt.step <= step else None)
        stored.write_head(self.folder, self._head)
        self._rows = [row for row in self._rows if row.step <= step]
        stored.write_steps(self.folder, self._rows)
        self._holdout = [row for row in self._holdout if row.step <= step]
        stored.write_holdout(self.folder, self._holdout)
        self._remove_samples_from(step + 1)

    def record(self, step: int, values: Mapping[str, float], skipped: str = "") -> None:
        """Write the figures of a step.

        Args:
            step: counted from 1.
            values: by name, as the module's text lists them; NaN is stored, and left out of the curves.
            skipped: why the step changed no weight; "" if it did.

        Raises:
            StorageFailed: the file cannot be written.
        """
        row = StepRow(step, {name: float(value) for name, value in values.items()}, skipped)
        self._rows = [*_before(self._rows, step), row]
        stored.write_steps(self.folder, self._rows)
        self._listener(step, {f"train/{name}": value for name, value in row.values.items()})

    def samples(self, step: int, rows: Sequence[SampleRow]) -> None:
        """Write the pictures of a step (0: before the first).

        Raises:
            StorageFailed: the file cannot be written.
        """
        self._remove_samples_from(step)
        stored.write_samples(self.folder, step, rows)

    def has_samples(self, step: int) -> bool:
        """Whether the pictures of a step are written."""
        return step in stored.sample_steps(self.folder)

    def holdout(self, rows: Sequence[HoldoutRow]) -> None:
        """Write the results of the hold-out judges at a step (0: before the first), or at several.

        Raises:
            StorageFailed: the file cannot be written.
        """
        known = set(self._holdout)
        for step in sorted({row.step for row in rows}):
            self._holdout = [*_before(self._holdout, step), *(row for row in rows if row.step == step)]
        stored.write_holdout(self.folder, self._holdout)
        for row in self._holdout:
            if row not in known:
                self._listener(row.step, _figures(row))

    def note(self, sentences: Sequence[str]) -> None:
        """Add what a reader must know first, each once.

        Raises:
            StorageFailed: the file cannot be written.
        """
        notes = tuple(dict.fromkeys((*self._head.notes, *sentences)))
        if notes != self._head.notes:
            self._head = replace(self._head, notes=notes)
            stored.write_head(self.folder, self._head)

    def halt(self, step: int, why: str) -> None:
        """Write why the run ends before its last step, for the top of the page.

        Raises:
            StorageFailed: the file cannot be written.
        """
        self._head = replace(self._head, halt=stored.Halt(step=step, why=why))
        stored.write_head(self.folder, self._head)

    def rows(self) -> list[StepRow]:
        """The figures of all steps, in order."""
        return list(self._rows)

    def holdout_rows(self) -> list[HoldoutRow]:
        """The results of all evaluations, in order."""
        return list(self._holdout)

    def _remove_samples_from(self, step: int) -> None:
        later = (found for found in stored.sample_steps(self.folder) if found >= step)
        stored.remove_samples(self.folder, later)


def sample_row(
    kind: Kind,
    drawn: tuple[Draw, Generation],
    scores: Mapping[str, float | None],
    reward: float | None = None,
    advantage: float | None = None,
) -> SampleRow:
    """A picture with its rewards as the journal stores it.

    Args:
        kind: "watch", or "best" or "worst" of the step.
        drawn: what was asked for, and what came of it.
        scores, reward, advantage: see `SampleRow`.
    """
    draw, generation = drawn
    return SampleRow(
        kind=kind,
        prompt_id=draw.prompt.id,
        prompt=draw.prompt.text,
        index=draw.index,
        seed=draw.seed,
        tokens=generation.tokens,
        image=generation.image,
        scores=scores,
        reward=reward,
        advantage=advantage,
        error=generation.error,
    )


def _figures(row: HoldoutRow) -> dict[str, float]:
    """What a listener is told of a hold-out result: `holdout/JUDGE` and the ends of its interval."""
    ends = {"": row.value, "_low": row.low, "_high": row.high}
    return {f"holdout/{row.judge}{end}": value for end, value in ends.items() if value is not None}


def _before(rows: Iterable[T], step: int) -> list[T]:
    """The rows of earlier steps; `rows` are in order of steps."""
    found = list(rows)
    return found[: bisect_left(found, step, key=lambda row: row.step)]
