"""Update a policy on judged pictures: micro-batches, ranks, clipping, and steps that are not taken."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sar_eval.decoding.rollouts import Rollout
from sar_eval.errors import BadInput, Incomplete
from sar_eval.rl.advantages import contrast_weights
from sar_eval.rl.engine_gap import EngineGap
from sar_eval.rl.groups import Sample, minibatches
from sar_eval.rl.grpo_recipe import GrpoOptions
from sar_eval.rl.losses import EntropyControl, LossOptions, policy_loss
from sar_eval.rl.policy import GuidedPolicy
from sar_eval.tensors.out_of_memory import is_out_of_memory


@dataclass(slots=True)
class _Batch:
    """Pictures of one forward pass, on the trainer's device; all but `prompts` are `[B, N]` or `[B]`."""

    prompts: list[tuple[tuple[int, ...], ...]]
    codes: Tensor
    advantages: Tensor
    engine: Tensor  # log-probabilities that the engine says the codes have
    weights: Tensor | None  # of tokens
    old: Tensor | None = (
        None  # log-probabilities before the first update; None if there is one update alone
    )
    reference: Tensor | None = None


@dataclass(slots=True)
class _Totals:
    """Sums and maxima over the tokens of a rank, to be joined with those of the other ranks."""

    sums: dict[str, float] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, values: Tensor, *, maximum: bool = False) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + float(values.double().sum())
        if maximum:
            self.maxima[name] = max(self.maxima.get(name, 0.0), float(values.max()))


SUMS = ("tokens", "loss", "ratio", "clipped", "kl", "entropy", "gap", "gap_tokens")
MAXIMA = ("ratio", "gap")


@dataclass(slots=True)
class UpdateResult:
    """What a rollout's update was like, over all ranks.

    Attributes:
        values: figures by name, means over tokens.
        skipped: why an optimiser step was not taken, "" if all were.
    """

    values: dict[str, float]
    skipped: str = ""


class PolicyUpdate:
    """Optimiser steps on the samples of a rollout; every rank calls it with samples of its own."""

    def __init__(
        self,
        policy: Any,
        optimizer: Any,
        accelerator: Any,
        options: GrpoOptions,
        gap: EngineGap,
        reference: GuidedPolicy | None = None,
    ) -> None:
        """Use a policy and its optimiser, both prepared by accelerate.

        Args:
            policy: a `GuidedPolicy`, perhaps wrapped for several ranks.
            optimizer: of its parameters.
            accelerator: accelerate's.
            options: of the recipe.
            gap: judges how far the engine's log-probabilities are off.
            reference: what the divergence is measured from.
        """
        self.policy, self.optimizer, self.accelerator = policy, optimizer, accelerator
        self.options, self.gap, self.reference = options, gap, reference
        self.entropy = EntropyControl(options.entropy, options.entropy_target or None, low=-1.0)
        self.loss_options = LossOptions(
            loss=options.loss,
            level=options.level,
            clip_low=options.clip_low,
            clip_high=options.clip_high,
            kl=options.kl,
            beta=options.beta,
            importance_cap=options.importance_cap,
        )

    def restore_entropy(self, coefficient: float, entropy: float) -> None:
        """Go on with the weight of the entropy that a state has."""
        self.entropy = replace(self.entropy, coefficient=coefficient, entropy=entropy)

    def __call__(self, samples: Sequence[Sample], total: int) -> UpdateResult:
        """Take the optimiser steps of a rollout.

        Args:
            samples: of this rank.
            total: how many all ranks have, at least 1.

        Raises:
            StaleEngine: the pictures are not from these weights; nothing was updated.
            Incomplete: the trainer's device has too little memory.
            BadInput: see `_conditional`.
        """
        with _enough_memory(self.options.micro):
            return self._updated(samples, total)

    def _updated(self, samples: Sequence[Sample], total: int) -> UpdateResult:
        shares = minibatches(samples, total, self.options.minibatch)
        batches = [(list(self._batches(own)), number) for own, number in shares]
        self._score_before([batch for own, _ in batches for batch in own], len(batches))
        totals, norms = _Totals(), list[float]()
        for own, number in batches * self.options.updates:
            norms.append(self._optimiser_step(own, number, totals, is_first=not norms))
        values = self._figures(self._joined(totals), norms)
        self.entropy = self.entropy.after(values["entropy"])
        failed = [norm for norm in norms if not math.isfinite(norm)]
        return UpdateResult(values, f"the gradient's norm is {failed[0]}" if failed else "")

    def _batches(self, samples: Sequence[Sample]) -> Iterator[_Batch]:
        """Samples as tensors, `micro` at a time."""
        for start in range(0, len(samples), self.options.micro):
            yield self._batch(samples[start : start + self.options.micro])

    def _batch(self, samples: Sequence[Sample]) -> _Batch:
        device, rollouts = self.accelerator.device, [sample.rollout for sample in samples]

        def stacked(arrays: list[np.ndarray[Any, Any]]) -> Tensor:
            return torch.from_numpy(np.stack(arrays)).to(device)

        drawn = stacked([rollout.log_probs for rollout in rollouts])
        biased = self.options.policy == "conditional"
        engine = stacked(_conditional(rollouts)) if biased else drawn
        weights = None
        if self.options.token_weights == "contrast":
            weights = contrast_weights(drawn, stacked(_conditional(rollouts)), self.options.contrast)
        return _Batch(
            [rollout.prompts for rollout in rollouts],
            torch.tensor([rollout.generation.tokens for rollout in rollouts], device=device),
            torch.tensor([sample.advantage for sample in samples], device=device),
            engine,
            weights,
        )

    def _score_before(self, batches: Sequence[_Batch], minibatches: int) -> None:
        """The reference's log-probabilities, and the policy's before the first of several steps."""
        several = minibatches * self.options.updates > 1
        with torch.no_grad(), self.accelerator.autocast():
            for batch in batches:
                if several:
                    batch.old = self.policy(batch.prompts, batch.codes, entropy=False).log_probs
                if self.reference is not None:
                    batch.reference = self.reference(batch.prompts, batch.codes, entropy=False).log_probs

    def _optimiser_step(
        self, batches: Sequence[_Batch], total: int, totals: _Totals, *, is_first: bool
    ) -> float:
        """One step on `total` pictures of all ranks; the norm of its gradient. NaN takes no step."""
        self.optimizer.zero_grad()
        # A rank without pictures still takes part in the sum of gradients.
        waiting: Sequence[_Batch | None] = batches or (None,)
        for number, batch in enumerate(waiting, 1):
            is_last = number == len(waiting)
            with nullcontext() if is_last else self.accelerator.no_sync(self.policy):
                loss = self._nothing() if batch is None else self._loss(batch, totals, is_first=is_first)
                # Ranks take the mean of their gradients; what is wanted is the sum over all pictures.
                tokens = max(1, total) * (1 if batch is None else batch.codes.shape[1])
                self.accelerator.backward(loss * (self.accelerator.num_processes / tokens))
        if is_first:
            joined = self._joined(totals)
            self.gap.check(joined.sums["gap"] / max(1.0, joined.sums["gap_tokens"]))
        parameters = [p for p in self.policy.parameters() if p.requires_grad]
        norm = float(self.accelerator.clip_grad_norm_(parameters, self.options.max_grad_norm))
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def _nothing(self) -> Tensor:
        """A loss of 0 that all parameters take part in."""
        prompt = ((0,),) * (2 if self._bare.sampling.guidance != 1 else 1)
        scores = self.policy(
            [prompt], torch.zeros((1, 1), dtype=torch.int64, device=self.accelerator.device)
        )
        nothing: Tensor = (scores.log_probs * 0).sum()
        return nothing

    @property
    def _bare(self) -> GuidedPolicy:
        policy: GuidedPolicy = self.accelerator.unwrap_model(self.policy)
        return policy

    def _loss(self, batch: _Batch, totals: _Totals, *, is_first: bool) -> Tensor:
        """Sum of the tokens' losses of a batch."""
        scores = self.policy(batch.prompts, batch.codes)
        old = scores.log_probs.detach() if batch.old is None else batch.old
        loss, diagnostics = policy_loss(
            scores.log_probs,
            old,
            batch.advantages.to(scores.log_probs.dtype),
            options=self.loss_options,
            reference=batch.reference,
            token_weights=batch.weights,
            engine_log_probs=batch.engine,
        )
        if (weight := self.entropy.applied) != 0:
            loss = loss - weight * scores.entropy
        totals.add("tokens", torch.ones_like(loss))
        totals.add("loss", loss.detach())
        totals.add("entropy", scores.entropy.detach())
        for name in ("clipped", "kl"):
            totals.add(name, diagnostics[name])
        totals.add("ratio", diagnostics["ratio"], maximum=True)
        if is_first:  # before any update, so that only rounding lies between trainer and engine
            totals.add("gap", (scores.log_probs.detach() - batch.engine).abs(), maximum=True)
            totals.add("gap_tokens", torch.ones_like(batch.engine))
        return loss.sum()

    def _joined(self, totals: _Totals) -> _Totals:
        """The totals of all ranks."""
        row = [totals.sums.get(name, 0.0) for name in SUMS] + [totals.maxima.get(n, 0.0) for n in MAXIMA]
        rows = self.accelerator.gather(
            torch.tensor([row], dtype=torch.float64, device=self.accelerator.device)
        )
        sums, maxima = rows[:, : len(SUMS)].sum(0).tolist(), rows[:, len(SUMS) :].amax(0).tolist()
        return _Totals(dict(zip(SUMS, sums, strict=True)), dict(zip(MAXIMA, maxima, strict=True)))

    def _figures(self, joined: _Totals, norms: Sequence[float]) -> dict[str, float]:
        tokens = max(1.0, joined.sums["tokens"])
        means = {name: joined.sums[name] / tokens for name in ("loss", "ratio", "kl", "entropy")}
        return {
            **means,
            "clip_share": joined.sums["clipped"] / tokens,
            "ratio_max": joined.maxima["ratio"],
            "gap": joined.sums["gap"] / max(1.0, joined.sums["gap_tokens"]),
            "gap_max": joined.maxima["gap"],
            "grad_norm": max((norm for norm in norms if math.isfinite(norm)), default=math.nan),
            "entropy_weight": self.entropy.applied,
        }


def _conditional(rollouts: Sequence[Rollout]) -> list[NDArray[np.float32]]:
    """Log-probabilities under the prompted branch alone.

    Raises:
        BadInput: the engine does not know them.
    """
    if any(len(rollout.conditional) != len(rollout.log_probs) for rollout in rollouts):
        raise BadInput(
            "the engine gives no log-probabilities of the prompted branch alone, which grpo.policy "
            "'conditional' and grpo.token_weights 'contrast' need: take engine native, or neither of them"
        )
    return [rollout.conditional for rollout in rollouts]


@contextmanager
def _enough_memory(micro: int) -> Iterator[None]:
    """Say what to change where there is too little.

    Raises:
        Incomplete: there is.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise Incomplete(
            f"the trainer's memory is too small for {micro} pictures a forward pass: lower grpo.micro or "
            "engine.batch_size, or set grpo.gradient_checkpointing = true, and run the command again"
        ) from error


def learning_rate(options: GrpoOptions, step: int) -> float:
    """Rate of a step, counted from 0: a linear warm-up, then constant, or a cosine down to a tenth."""
    if step < options.warmup:
        return options.learning_rate * (step + 1) / (options.warmup + 1)
    if options.schedule == "constant":
        return options.learning_rate
    done = (step - options.warmup) / max(1, options.steps - options.warmup)
    return options.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * min(1.0, done))) / 2)
