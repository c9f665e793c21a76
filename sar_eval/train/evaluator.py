"""Draws and judges a benchmark's sample with the weights of a training, each rank its share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from accelerate import PartialState
from torch import Tensor

from sar_eval.engines.native import NativeEngine
from sar_eval.rewards.holdout import Holdout, HoldoutResult, joined
from sar_eval.rewards.judged_waves import Judges
from sar_eval.rewards.train_prompts import evenly_by_tag
from sar_eval.storage.training_journal import SampleRow
from sar_eval.train.evaluation_table import EvaluationTable
from sar_eval.train.journal import sample_row
from sar_eval.train.ranks import on_every_rank
from sar_eval.types import Generation, Verdict

WATCHED = 8  # prompts whose pictures are kept of every evaluation, for the page's filmstrips


class Evaluator:
    """An engine, opened once, that draws with whatever weights it is given."""

    def __init__(
        self, holdout: Holdout, judges: Judges, table: EvaluationTable, visual_tokenizer: Path
    ) -> None:
        """Nothing is loaded yet.

        Args:
            holdout: what is drawn and how.
            judges: entered; of the hold-out.
            table: of the recipe: dtype and batch size of the engine.
            visual_tokenizer: that makes pictures of the tokens.
        """
        self.holdout, self._judges, self._table = holdout, judges, table
        self._visual_tokenizer = str(visual_tokenizer)
        self._watched = {f"{prompt.id}/0" for prompt in evenly_by_tag(holdout.prompts, WATCHED)}
        self._engine: NativeEngine | None = None

    def open(self, checkpoint: Path, device: str) -> None:
        """Load the engine.

        Args:
            checkpoint: a folder of the decoder's shape, whatever its weights.
            device: as torch names it: that of this rank's trainer.

        Raises:
            BadInput: the benchmark's resolution does not fit the checkpoint.
        """
        self.close()
        engine = NativeEngine(
            str(checkpoint),
            self.holdout.protocol,
            device=device,
            dtype=self._table.dtype or ("float32" if device == "cpu" else "bfloat16"),
            batch_size=self._table.batch_size,
            visual_tokenizer=self._visual_tokenizer,
        )
        self._engine = engine.__enter__()

    def close(self) -> None:
        """Release the engine, if it is open."""
        if self._engine is not None:
            self._engine.__exit__(None, None, None)
            self._engine = None

    def evaluate(
        self, weights: Iterable[tuple[str, Tensor]], step: int
    ) -> tuple[HoldoutResult, list[SampleRow]]:
        """Draw and judge; every rank calls this and gets what all of them found.

        Args:
            weights: of the decoder, as `TokenEngine.load_weights` takes them.
            step: after which they are.

        Returns:
            The scores, and the pictures of the watched prompts in the benchmark's order.

        Raises:
            DeviceLost, Incomplete: on every rank, if it fails on one.
        """
        assert self._engine is not None, "the engine is not open"
        self._engine.load_weights(weights)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what training has freed, so that the engine plans with it
        shares = on_every_rank(lambda: self._share(step))
        self._engine.release_buffers()  # training needs the room
        pictures = {key: row for _, own in shares for key, row in own.items()}
        ordered = [pictures[draw.key] for draw in self.holdout.draws() if draw.key in pictures]
        return joined([result for result, _ in shares], required=False), ordered

    def _share(self, step: int) -> tuple[HoldoutResult, dict[str, SampleRow]]:
        """This rank's."""
        assert self._engine is not None
        draws = {draw.key: draw for draw in self.holdout.draws()}
        rows: dict[str, SampleRow] = {}

        def keep(generation: Generation, verdicts: Mapping[str, Verdict]) -> None:
            if generation.key in self._watched:
                scores = {name: verdict.score for name, verdict in verdicts.items()}
                rows[generation.key] = sample_row("watch", (draws[generation.key], generation), scores)

        ranks = PartialState()
        result = self.holdout.evaluate(
            self._engine, self._judges, step, ranks.process_index, ranks.num_processes, keep
        )
        return result, rows
