"""What watches a training run: the hold-out, pictures of fixed seeds, the page, and the best weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import gather_object

from sar_eval.rewards.holdout import Holdout, HoldoutResult, joined, read_results, save_result
from sar_eval.rewards.holdout_verdict import HoldoutVerdict, judge_holdout
from sar_eval.rewards.pool import RewardPool
from sar_eval.rewards.recipe_tables import HoldoutTable
from sar_eval.rewards.train_prompts import evenly_by_tag
from sar_eval.rl.groups import Ranking, best_and_worst
from sar_eval.rl.policy_model import engine_weights, replace_policy
from sar_eval.rl.rollouts import JudgedRollouts, draw_and_judge
from sar_eval.storage.training_journal import HoldoutRow, SampleRow
from sar_eval.train.journal import Journal, sample_row
from sar_eval.types import Draw, Json, Prompt, draw_seed

if TYPE_CHECKING:
    from sar_eval.rl.grpo import GrpoTrainer

WATCHED = 8  # prompts whose pictures are drawn again and again with the same seeds


class Watch:
    """Looks at the policy before the first step, every so many steps, and after the last."""

    def __init__(
        self,
        out: Path,
        every: int,
        prompts: Sequence[Prompt],
        training: dict[str, Json],
        write_page: Callable[[Path], object],
    ) -> None:
        """Watch without a hold-out; see `add_holdout`.

        Args:
            out: folder of the training run.
            every: steps between looks.
            prompts: to train on, of which a few are watched.
            training: what made the checkpoint, for `best`.
            write_page: draws the journal's page anew.
        """
        self.out, self.every, self.training, self.write_page = out, every, training, write_page
        self.prompts = evenly_by_tag(prompts, WATCHED)
        self.best_step: int | None = None
        self._last: list[SampleRow] = []
        self._holdout: Holdout | None = None
        self._results: list[HoldoutResult] = []
        self._rows: dict[int, list[HoldoutRow]] = {}  # of each result, by step

    def add_holdout(self, holdout: Holdout, judges: RewardPool, engine: Any, table: HoldoutTable) -> None:
        """Evaluate a hold-out at every look.

        Args:
            holdout: what is drawn.
            judges: entered; of the hold-out.
            engine: entered, for another protocol than that of the rollouts; None to use theirs.
            table: of the recipe, which says when to stop.
        """
        self._holdout, self._judges, self._engine = holdout, judges, engine
        self._table = table

    def remember(
        self, draws: Sequence[Draw], judged: JudgedRollouts, ranking: Ranking, positions: Sequence[int]
    ) -> None:
        """Keep the best and the worst picture of this rank's step, until the next look."""
        size, self._last = ranking.rewards.shape[1], []
        for kind, pick in (("best", max), ("worst", min)):
            found = [
                (float(ranking.rewards[position, index]), number * size + index, position, index)
                for number, position in enumerate(positions)
                if (index := best_and_worst(ranking, position)[kind == "worst"]) >= 0
            ]
            if found:
                reward, row, position, index = pick(found)
                advantage = float(ranking.advantages[position, index])
                kept = bool(ranking.kept[position, index])
                drawn = (draws[row], judged.rollouts[row].generation)
                self._last.append(
                    sample_row(kind, drawn, _scores(judged, row), reward, advantage if kept else None)  # type: ignore[arg-type]
                )

    def observe(
        self, trainer: GrpoTrainer, engine: Any, rewards: RewardPool, journal: Journal | None
    ) -> str:
        """Look at the policy if it is time; every rank calls this.

        Returns:
            Why training must stop; "" if it may go on.
        """
        step = trainer.step
        if step % self.every and step != trainer.options.steps:
            return ""
        halted = self._evaluate(trainer, engine, journal)
        if journal is not None:
            # Resumed here, the step's best and worst are not known any more, but stored.
            if not journal.has_samples(step):
                rows = [*self._watched(engine, rewards, trainer.options.seed), *self._last]
                journal.samples(step, rows)
            if halted:
                journal.halt(step, halted)
            self.write_page(self.out)
        return halted

    def _watched(self, engine: Any, rewards: RewardPool, seed: int) -> list[SampleRow]:
        draws = [Draw(p, 0, draw_seed(seed, f"watch/{p.id}", 0)) for p in self.prompts]
        judged = draw_and_judge(engine, rewards, draws)
        return [
            sample_row("watch", (draw, judged.rollouts[n].generation), _scores(judged, n))
            for n, draw in enumerate(draws)
        ]

    def _evaluate(self, trainer: GrpoTrainer, engine: Any, journal: Journal | None) -> str:
        if self._holdout is None:
            return ""
        if not self._results:
            self._results = read_results(self.out / "holdout", trainer.step)
        if not any(result.step == trainer.step for result in self._results):
            self._results.append(self._draw_holdout(trainer, engine))
        if journal is not None:
            journal.holdout(self._all_rows())
            journal.note([each for result in self._results for each in self._holdout.losses(result)])
        verdict = self._verdict(trainer, journal)
        self.best_step = verdict.best
        if trainer.accelerator.is_main_process and verdict.best == trainer.step:
            replace_policy(
                trainer.bare_policy,
                trainer.checkpoint,
                trainer.protocol,
                self.out / "best",
                self.training | {"step": trainer.step},
            )
        return verdict.stop

    def _draw_holdout(self, trainer: GrpoTrainer, engine: Any) -> HoldoutResult:
        assert self._holdout is not None
        drawing = engine
        if self._engine is not None:
            drawing = self._engine
            drawing.load_weights(engine_weights(trainer.bare_policy))
        rank, ranks = trainer.accelerator.process_index, trainer.accelerator.num_processes
        own = self._holdout.evaluate(drawing, self._judges, trainer.step, rank, ranks)
        result = joined(gather_object([own]))
        if trainer.accelerator.is_main_process:
            save_result(self.out / "holdout", result)
        return result

    def _all_rows(self) -> list[HoldoutRow]:
        """Of all evaluations in their order; the intervals of each are computed once."""
        assert self._holdout is not None
        for result in self._results:
            if result.step not in self._rows:
                self._rows[result.step] = self._holdout.rows(self._results[0], result)
        return [row for rows in self._rows.values() for row in rows]

    def _verdict(self, trainer: GrpoTrainer, journal: Journal | None) -> HoldoutVerdict:
        """The main process's, which has the journal, on every rank."""
        found = []
        if journal is not None:
            weights = {spec.name: spec.weight for spec in trainer.recipe.rewards}
            courses = {
                name: [
                    row.values[f"reward/{name}"] for row in journal.rows() if f"reward/{name}" in row.values
                ]
                for name, weight in weights.items()
                if weight > 0
            }
            limits = self._table.stop_if_falls, self._table.falls_in_a_row
            found = [judge_holdout(self._all_rows(), courses, *limits)]
        verdict: HoldoutVerdict = gather_object(found)[0]
        return verdict


def _scores(judged: JudgedRollouts, row: int) -> dict[str, float | None]:
    return {name: verdicts[row].score for name, verdicts in judged.verdicts.items()}
