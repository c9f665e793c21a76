"""What watches a decoder's training: its journal and page, averaged weights, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import Tensor
from transformers import TrainerCallback

from sar_eval.families.simplear import visual_setting
from sar_eval.report.training_page import write_training_page
from sar_eval.rewards.pool import RewardPool
from sar_eval.train.ema import AveragedWeights
from sar_eval.train.evaluation import EvaluationCallback, WriteCheckpoint
from sar_eval.train.evaluation_table import EvaluationTable
from sar_eval.train.evaluator import Evaluator
from sar_eval.train.journal import Journal, Listener
from sar_eval.train.journal_callback import JournalCallback
from sar_eval.train.launcher import is_first
from sar_eval.train.training_clock import TrainingClock
from sar_eval.types import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """How a training is watched, and who is told.

    Attributes:
        evaluation: the recipe's table.
        where: the recipe's file, or how it was asked for; for messages.
        settings: everything that was asked for, for the page.
        notes: what every reader of the page must know first.
        listener: is told every point of the curve and every evaluation; of the main process alone.
        tell: takes a sentence for the user: what the training costs, and every evaluation.
    """

    evaluation: EvaluationTable = field(default_factory=EvaluationTable)
    where: str = "--eval"
    settings: Mapping[str, Json] = field(default_factory=dict)
    notes: Sequence[str] = ()
    listener: Listener = lambda step, figures: None
    tell: Callable[[str], None] = lambda text: None


class TrainingWatch:
    """One rank's part in watching a training; a context manager around it.

    Attributes:
        clock: of the training, without its evaluations.
    """

    def __init__(self, watching: Watching, out: Path, *, ema: float = 0.0) -> None:
        """Nothing is read or started yet.

        Args:
            watching: how.
            out: folder of the training.
            ema: decay of averaged weights; 0 for none.
        """
        self._averaged = AveragedWeights(ema) if ema else None
        self.clock = TrainingClock()
        self._watching, self._out = watching, out
        self._journal: Journal | None = None
        self._evaluator: Evaluator | None = None
        self._stack = ExitStack()

    def prepare(self, visual_tokenizer: Path, side: int) -> None:
        """Start what may fail before hours of training: the benchmark, its judges, the journal.

        Args:
            visual_tokenizer: that makes pictures of tokens.
            side: of the training's pictures in tokens, for a benchmark that names no resolution.

        Raises:
            BadInput, UnknownName: there is no such benchmark, a judge cannot start, or an earlier journal
                is damaged.
        """
        watching, pixels = self._watching, visual_setting(visual_tokenizer, "downsample")
        holdout = watching.evaluation.holdout(side * pixels, watching.where)
        if is_first():
            self._journal = Journal(self._out, watching.settings, watching.notes, watching.listener)
        if holdout is not None:
            judges = self._stack.enter_context(RewardPool(holdout.judges, "judge"))
            self._evaluator = Evaluator(holdout, judges, watching.evaluation, visual_tokenizer)
            self._stack.callback(self._evaluator.close)

    def callbacks(self, write: WriteCheckpoint) -> list[TrainerCallback]:
        """In the order in which a step needs them: weights are averaged, then evaluated.

        Args:
            write: writes weights as a checkpoint folder.
        """
        found: list[TrainerCallback] = [] if self._averaged is None else [self._averaged]
        if self._journal is not None:
            found.append(JournalCallback(self._journal, write_training_page))
        if self._evaluator is not None:
            every = self._watching.evaluation.every
            found.append(
                EvaluationCallback(
                    self._evaluator,
                    every,
                    self._out,
                    write,
                    self._journal,
                    self._averaged,
                    self.clock,
                    self._watching.tell,
                )
            )
        return found

    @property
    def averages(self) -> Mapping[str, Tensor]:
        """Averaged weights, to be written in place of the model's own; {} to write those."""
        return {} if self._averaged is None else self._averaged.tensors

    def record(self, step: int, figures: Mapping[str, float]) -> None:
        """Put a point of the curve into the journal, in the main process."""
        if self._journal is not None:
            self._journal.record(step, figures)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the judges, release the engine."""
        self._stack.__exit__(kind, error, trace)
