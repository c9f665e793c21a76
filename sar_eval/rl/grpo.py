"""GRPO: draw groups of pictures, judge them, make the better ones more probable; again and again.

    step:  prompts -> rollouts (engine) -> rewards (judges) -> advantages -> update (trainer) -> engine

Every rank draws, judges and trains whole groups of its own; what a step is does not depend on how many
ranks there are, nor on where the run was interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object

from sar_eval.errors import Incomplete
from sar_eval.families.simplear import Checkpoint
from sar_eval.rewards.pool import RewardPool, check_losses
from sar_eval.rewards.train_prompts import TrainPrompts
from sar_eval.rl.engine_gap import EngineGap
from sar_eval.rl.groups import Group, Ranking, all_verdicts, groups_of, rank_pictures, samples_of
from sar_eval.rl.grpo_recipe import GrpoRecipe
from sar_eval.rl.grpo_state import TrainingState
from sar_eval.rl.grpo_watch import Watch
from sar_eval.rl.policy import GuidedPolicy
from sar_eval.rl.policy_model import engine_weights, load_policy
from sar_eval.rl.policy_update import PolicyUpdate, learning_rate
from sar_eval.rl.rollouts import JudgedRollouts, draw_and_judge, step_draws
from sar_eval.train.journal import Journal
from sar_eval.train.stop_request import StopRequest

MAX_SKIPPED = 3  # steps in a row whose gradient is no number, after which training stops
EQUAL = "the rewards of every group are all the same: nothing to learn"
Progress = Callable[[int, int, dict[str, float]], None]  # step, steps, figures


class Outcome(NamedTuple):
    """How a training run ended.

    Attributes:
        step: the last one.
        halted: why the guard stopped it, "" if it did not.
        best_step: whose weights are in `best`, 0 for the start's; None without a hold-out.
    """

    step: int
    halted: str
    best_step: int | None


class GrpoTrainer:
    """One training run on one rank; `run` does everything."""

    def __init__(
        self,
        recipe: GrpoRecipe,
        checkpoint: Checkpoint,
        prompts: TrainPrompts,
        out: Path,
        accelerator: Any,
        watch: Watch,
        progress: Progress = lambda step, steps, figures: None,
    ) -> None:
        """Load the policy; nothing is drawn yet.

        Args:
            recipe: what to do.
            checkpoint: the start.
            prompts: to train on.
            out: the folder to write.
            accelerator: accelerate's `Accelerator`.
            watch: hold-out, watched pictures and the page.
            progress: is called after every step.
        """
        self.recipe, self.options, self.checkpoint, self.out = recipe, recipe.options, checkpoint, out
        self.prompts, self.accelerator, self.watch, self.progress = prompts, accelerator, watch, progress
        self.protocol = recipe.protocol_of(checkpoint.native_resolution)
        self.state, self.step, self.skipped_in_a_row = TrainingState(out), 0, 0
        self._make_policy()

    def _make_policy(self) -> None:
        options, device = self.options, str(self.accelerator.device)
        policy = load_policy(
            self.checkpoint, self.protocol, options.policy, device, options.gradient_checkpointing
        )
        self.reference = None
        if options.beta > 0:
            self.reference = deepcopy(policy).requires_grad_(requires_grad=False)
        optimizer = torch.optim.AdamW(
            policy.parameters(), options.learning_rate, (0.9, 0.95), weight_decay=options.weight_decay
        )
        self.policy, self.optimizer = self.accelerator.prepare(policy, optimizer)
        gap = EngineGap(self.recipe.engine.dtype, self.protocol.guidance, options.max_gap)
        self.update = PolicyUpdate(
            self.policy, self.optimizer, self.accelerator, options, gap, self.reference
        )

    @property
    def bare_policy(self) -> GuidedPolicy:
        """The policy without what accelerate wraps it in."""
        policy: GuidedPolicy = self.accelerator.unwrap_model(self.policy)
        return policy

    def run(self, engine: Any, rewards: RewardPool, journal: Journal | None) -> Outcome:
        """Train to the last step, from the newest state if there is one.

        Args:
            engine: entered; draws under the recipe's protocol and gives log-probabilities.
            rewards: entered.
            journal: of the main process; None on other ranks.

        Raises:
            Incomplete: interrupted, too many rewards lost, or three steps in a row without a gradient.
            StaleEngine: the engine does not draw with the policy's weights.
            StorageFailed: the disk is full; states written before stay.
        """
        self._resume(journal)
        self._synchronise(engine)
        halted = self.watch.observe(self, engine, rewards, journal)
        with StopRequest() as stop:
            while self.step < self.options.steps and not halted:
                self._step(engine, rewards, journal)
                halted = self.watch.observe(self, engine, rewards, journal)
                is_last = bool(halted) or self.step == self.options.steps
                interrupted = self._any_rank(stop.requested) and not is_last
                self._save_state(last=is_last or interrupted)
                if interrupted:
                    raise Incomplete(
                        f"interrupted after step {self.step}; the same command goes on from there"
                    )
        return Outcome(self.step, halted, self.watch.best_step)

    def _step(self, engine: Any, rewards: RewardPool, journal: Journal | None) -> None:
        """Draw, judge, learn, synchronise, record."""
        number, started = self.step + 1, time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.options, self.step)
        positions = range(self.options.prompts)[
            self.accelerator.process_index :: self.accelerator.num_processes
        ]
        prompts = self.prompts.at(self.step, self.options.prompts)
        draws = step_draws([prompts[n] for n in positions], self.options.group, self.options.seed, number)
        judged = draw_and_judge(engine, rewards, draws)
        groups = self._gathered(groups_of(judged, positions, self.options.group))
        check_losses(all_verdicts(groups, [spec for spec in rewards.specs if spec.weight]))
        ranking = rank_pictures(groups, rewards.specs, self.options, number)
        learning = time.perf_counter()
        figures, skipped = self._learn(judged, ranking, positions)
        synchronised = time.perf_counter()
        self._synchronise(engine)
        self.step = number
        self.watch.remember(draws, judged, ranking, positions)
        self._move_reference()
        figures |= ranking.figures | {
            "learning_rate": learning_rate(self.options, number - 1),
            "seconds/rollout": judged.drawing_s,
            "seconds/judge": judged.judging_s,
            "seconds/train": synchronised - learning,
            "seconds/sync": time.perf_counter() - synchronised,
            "seconds/other": learning - started - judged.drawing_s - judged.judging_s,
        }
        if journal is not None:
            journal.record(number, figures, skipped)
        self.progress(number, self.options.steps, figures)
        self._check_skipped(skipped)

    def _learn(
        self, judged: JudgedRollouts, ranking: Ranking, positions: Sequence[int]
    ) -> tuple[dict[str, float], str]:
        """Update the policy; figures, and why a step was skipped."""
        total = int(ranking.kept.sum())
        if not total:
            return {}, EQUAL
        samples = samples_of(judged.rollouts, ranking, positions, self.options.group)
        result = self.update(samples, total)
        return result.values, result.skipped

    def _gathered(self, groups: list[Group]) -> list[Group]:
        """The groups of all ranks in the order of their prompts."""
        return sorted(gather_object(groups), key=lambda group: group.position)

    def _check_skipped(self, skipped: str) -> None:
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped and skipped != EQUAL else 0
        if self.skipped_in_a_row >= MAX_SKIPPED:
            raise Incomplete(
                f"{MAX_SKIPPED} steps in a row were skipped, the last (step {self.step}) as {skipped}: "
                "begin again in another --out with a lower grpo.learning_rate, a higher grpo.beta, or "
                "grpo.precision float32"
            )

    def _synchronise(self, engine: Any) -> None:
        """Give the engine the policy's weights, in place."""
        engine.load_weights(engine_weights(self.bare_policy))

    def _move_reference(self) -> None:
        every = self.options.reference_every
        if self.reference is not None and every and self.step % every == 0:
            self.reference.load_state_dict(self.bare_policy.state_dict())

    def _any_rank(self, flag: bool) -> bool:
        return any(gather_object([flag]))

    def _save_state(self, *, last: bool) -> None:
        if not last and self.step % self.options.save_every:
            return
        if self.accelerator.is_main_process:
            self.state.save(self.step, self._state())
        self.accelerator.wait_for_everyone()

    def _state(self) -> dict[str, Any]:
        entropy = self.update.entropy
        moved = self.reference is not None and self.options.reference_every
        return {
            "step": self.step,
            "policy": self.bare_policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "reference": self.reference.state_dict() if self.reference is not None and moved else None,
            "entropy": [entropy.coefficient, entropy.entropy],
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def _resume(self, journal: Journal | None) -> None:
        self.step = self.state.newest()
        if self.step:
            with self.state.loaded(self.step, str(self.accelerator.device)) as state:
                self._restore(state)
        if journal is not None:
            journal.resume(self.step)

    def _restore(self, state: dict[str, Any]) -> None:
        self.bare_policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.reference is not None and state["reference"] is not None:
            self.reference.load_state_dict(state["reference"])
        self.update.restore_entropy(*state["entropy"])
        self.skipped_in_a_row = state["skipped_in_a_row"]
