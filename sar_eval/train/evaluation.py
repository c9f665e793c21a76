"""Evaluation while a decoder is trained: a fixed sample, drawn with the live weights and judged as it goes.

Every evaluation draws the same prompts with the same seeds, so it is paired with the first one, and the
noise of sampling mostly cancels in their difference. The weights of the best one are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from sar_eval.documents import read_json
from sar_eval.rewards.holdout import HoldoutResult, check_sample, check_scores, read_results, save_result
from sar_eval.rewards.holdout_verdict import best_step
from sar_eval.storage.replaced_folders import recover_folder, replace_folder
from sar_eval.storage.training_journal import HoldoutRow, SampleRow
from sar_eval.train.checkpoint_writer import ABOUT
from sar_eval.train.ema import AveragedWeights
from sar_eval.train.evaluator import Evaluator
from sar_eval.train.journal import Journal
from sar_eval.train.live_weights import live_weights, whole_weights
from sar_eval.train.ranks import on_every_rank
from sar_eval.train.training_clock import TrainingClock
from sar_eval.types import Json

# Writes weights as a checkpoint folder that says at which step they were.
WriteCheckpoint = Callable[[Mapping[str, Tensor], Path, int], None]
BEST, RESULTS = "best", "holdout"


class EvaluationCallback(TrainerCallback):
    """Evaluates at the start, every so many steps and at the last one; every rank has one.

    A state is saved with each evaluation, so that a resumed training has the evaluations of its past;
    `best` is written after it, and so is never of a future that is lost.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        every: int,
        out: Path,
        write: WriteCheckpoint,
        journal: Journal | None,
        averaged: AveragedWeights | None = None,
        clock: TrainingClock | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Nothing is drawn yet.

        Args:
            evaluator: not yet open.
            every: optimiser steps between evaluations.
            out: folder of the training.
            write: a checkpoint folder.
            journal: of the main process; None on other ranks.
            averaged: weights to evaluate in place of the model's own.
            clock: of the training, which stands still meanwhile.
            tell: takes a sentence for the user.
        """
        self._evaluator, self._every, self._out = evaluator, every, out
        self._write, self._journal, self._averaged = write, journal, averaged
        self._clock, self._tell = clock or TrainingClock(), tell
        self._first: HoldoutResult | None = None
        self._done: set[int] = set()
        self._is_best = False  # the last evaluation, of weights that `best` does not have yet

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Load the engine; evaluate, if this step has not been.

        Raises:
            BadInput: the engine cannot draw the sample, or earlier evaluations are of another one.
            Incomplete: a judge has no score for any picture.
        """
        with self._clock.pause():
            earlier = on_every_rank(lambda: self._earlier(state.global_step))[0]
            self._done = {result.step for result in earlier}
            self._first = earlier[0] if earlier else None
            folder = Path(args.output_dir) / "drawn"
            self._save(kwargs["model"], state.global_step, folder)
            on_every_rank(lambda: self._evaluator.open(folder, _name(args.device)))
        if self._first is None or self._is_due(state):
            self._evaluate(kwargs["model"], state.global_step)
        elif state.global_step in self._done:  # a kill may have come between state and best
            self._is_best = on_every_rank(lambda: self._lacks_best(state.global_step))[0]
        if self._is_best:
            self._keep_best(kwargs["model"], state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Evaluate if it is time, and have a state saved."""
        if self._is_due(state):
            self._evaluate(kwargs["model"], state.global_step)
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Keep the weights of the best evaluation: after their state, which a resume may go back from."""
        if self._is_best:
            self._keep_best(kwargs["model"], state.global_step)

    def _is_due(self, state: Any) -> bool:
        step = state.global_step
        return step not in self._done and (step % self._every == 0 or step == state.max_steps)

    def _earlier(self, step: int) -> list[HoldoutResult]:
        """The evaluations up to a step, as the main process finds them."""
        if self._journal is None:
            return []
        recover_folder(self._out / BEST)
        results = self._out / RESULTS
        found = read_results(results, step)
        check_sample(results, self._evaluator.holdout, is_first=not found)
        return found

    def _lacks_best(self, step: int) -> bool:
        """Whether a step is the best so far, and `best` is of another; the main process's work."""
        if self._journal is None:
            return False
        return self._best_so_far(self._journal) == step and _step_of(self._out / BEST) != step

    def _best_so_far(self, journal: Journal) -> int:
        own = self._evaluator.holdout.judges[0].name
        return best_step([row for row in journal.holdout_rows() if row.judge == own])

    def _evaluate(self, model: Any, step: int) -> None:
        with self._clock.pause():
            started = time.perf_counter()
            result, pictures = self._evaluator.evaluate(live_weights(model, self._averages), step)
            if self._first is None:
                check_scores(result)
                self._first = result
            self._done.add(step)
            seconds = time.perf_counter() - started
            self._is_best = on_every_rank(lambda: self._record(result, pictures, seconds))[0] == step

    def _keep_best(self, model: Any, step: int) -> None:
        with self._clock.pause():
            self._save(model, step, self._out / BEST)
        self._is_best = False

    @property
    def _averages(self) -> Mapping[str, Tensor]:
        return {} if self._averaged is None else self._averaged.tensors

    def _save(self, model: Any, step: int, folder: Path) -> None:
        """Write the weights as they are now; the main process holds them, whole."""
        weights = whole_weights(model, self._averages)
        on_every_rank(lambda: self._replace(folder, weights, step))

    def _replace(self, folder: Path, weights: Mapping[str, Tensor], step: int) -> None:
        if self._journal is not None:
            replace_folder(folder, lambda new: self._write(weights, new, step))

    def _record(self, result: HoldoutResult, pictures: list[SampleRow], seconds: float) -> int:
        """Write an evaluation down; returns the step of the best one. The main process's work."""
        if self._journal is None or self._first is None:
            return -1
        save_result(self._out / RESULTS, result)
        rows = self._evaluator.holdout.rows(self._first, result)
        self._journal.holdout(rows)
        self._journal.note(self._evaluator.holdout.losses(result))
        self._journal.samples(result.step, pictures)
        self._tell(f"step {result.step:,}: {'; '.join(map(_words, rows))} ({seconds:.0f} s)")
        return self._best_so_far(self._journal)


def _step_of(best: Path) -> Json:
    """After which the weights of a folder were; None where there is none."""
    path = best / ABOUT
    about = read_json(path) if path.is_file() else None
    training = about.get("training") if isinstance(about, dict) else None
    return training.get("step") if isinstance(training, dict) else None


def _name(device: torch.device) -> str:
    """As engines call it: a rank on the CPU may have `cpu:0`."""
    return "cpu" if device.type == "cpu" else str(device)


def _words(row: HoldoutRow) -> str:
    """A result for people: `shapes 0.412 [0.35, 0.47], +0.310 [+0.25, +0.37] since step 0`."""
    if row.value is None:
        return f"{row.judge} has no score"
    interval = "" if row.low is None else f" [{row.low:.3f}, {row.high:.3f}]"
    if row.change is None:
        return f"{row.judge} {row.value:.3f}{interval}"
    ends = f"[{row.change_low:+.3f}, {row.change_high:+.3f}]"
    return f"{row.judge} {row.value:.3f}{interval}, {row.change:+.3f} {ends} since the first"
