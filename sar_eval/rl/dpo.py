"""Direct preference optimisation on pictures of judged runs: no engine and no judge in the loop.

The policy is the one that drew: log-probabilities go through both branches of guidance, at the temperature,
top-k and top-p of the runs (see `policy`). The reference is the checkpoint that training starts from.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from sar_eval.errors import BadInput
from sar_eval.families.simplear import Checkpoint, find_checkpoint
from sar_eval.rl.grpo_state import TrainingState
from sar_eval.rl.judged_draws import (
    JudgedDraw,
    JudgedRun,
    check_codebook,
    count_tested,
    read_judged_runs,
)
from sar_eval.rl.policy import check_protocol
from sar_eval.rl.policy_model import load_policy, save_policy
from sar_eval.rl.preferences import Pair, PreferenceLossName, preference_loss, preference_pairs
from sar_eval.storage.lock import check_training_folder, training_lock
from sar_eval.train.accelerators import new_accelerator
from sar_eval.train.curve import TrainingProgress, trim_curve
from sar_eval.train.state import make_folder
from sar_eval.types import DrawProtocol, Json

MAY_CHANGE = ("options.micro", "options.gradient_checkpointing", "options.save_every")  # of the settings
SKIPPED_IN_A_ROW = 3  # optimiser steps that are not taken before training stops
FIGURES = ("loss", "accuracy", "margin", "chosen", "rejected")  # of `loss.jsonl`, means over a step's pairs


@dataclass(frozen=True, slots=True)
class DpoOptions:
    """Training options.

    Attributes:
        steps: optimiser steps of the schedule, those before a resume included.
        pairs_per_prompt, min_margin, by: which pairs (see `preferences.preference_pairs`).
        batch_size: pairs of one step, of all processes together.
        micro: pairs of one forward pass.
        learning_rate: peak, after a linear warm-up of `warmup` steps, then a cosine to zero.
        beta, loss: see `preferences.preference_loss`.
        policy: one of `policy.MODES`.
        bfloat16: autocast the decoder's layers; the head stays float32.
        train_on_test: take prompts of evaluation suites, too.
    """

    steps: int
    pairs_per_prompt: int = 1
    min_margin: float = 0.0
    by: str = ""
    batch_size: int = 32
    micro: int = 8
    learning_rate: float = 1e-5
    warmup: int = 10
    beta: float = 0.1
    loss: PreferenceLossName = "dpo"
    policy: str = "guided"
    bfloat16: bool = False
    gradient_checkpointing: bool = False
    max_grad_norm: float = 1.0
    seed: int = 0
    save_every: int = 100
    train_on_test: bool = False

    def __post_init__(self) -> None:
        """Refuse what no training can do.

        Raises:
            BadInput: an unknown loss, or a number out of its range.
        """
        if self.loss not in get_args(PreferenceLossName):
            raise BadInput(f"--loss is {self.loss!r}: one of {', '.join(get_args(PreferenceLossName))}")
        for name in ("beta", "learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadInput(f"--{name.replace('_', '-')} is {getattr(self, name)}: it must be above 0")
        if not 0 <= self.min_margin < math.inf:
            raise BadInput(f"--min-margin is {self.min_margin}: it must be a number of at least 0")


def dpo(
    paths: Sequence[Path],
    name: str,
    out: Path,
    options: DpoOptions,
    checkpoints: Sequence[str] = (),
    progress: TrainingProgress = lambda step, steps, loss: None,
) -> dict[str, Json]:
    """Train on pairs of judged runs and write a checkpoint folder to `out`; goes on from `out/state`.

    Under `accelerate launch` or `torchrun` every process calls this; the first one writes.
    `out/loss.jsonl` has, step by step and before each of them, the loss, the share of pairs whose chosen
    picture has the larger implicit reward, the mean margin of these rewards, and both of them.
    `out/settings.json` says what it was trained on, and the checkpoint's `sar_eval.json` as well.

    Args:
        paths: run folders, all drawn under one protocol.
        name: of the checkpoint to start from, which is the reference as well. Pictures that another one
            drew are off-policy, which DPO allows, if the visual codes are the same.
        out: the folder to write.
        options: of the training.
        checkpoints: where the runs' checkpoints are now (see `judged_draws.read_judged_runs`).
        progress: called after each step.

    Returns:
        What `settings.json` says.

    Raises:
        BadInput: see `read_judged_runs`; protocols or visual codes differ; prompts of an evaluation suite;
            no pairs; `out` is a finished checkpoint or was begun with other settings; or the gradient is no
            number three steps in a row.
    """
    if (out / "sar_eval.json").exists():  # written last, see `save_checkpoint`
        raise BadInput(f"{out} is already a finished checkpoint: use another --out")
    check_training_folder(out)
    checkpoint = find_checkpoint(name)
    runs = read_judged_runs(paths, options.by, (name, *checkpoints))
    check_codebook(runs[0], checkpoint, f"--ckpt {name}")
    protocol = _common_protocol(runs)
    check_protocol(protocol, options.policy)
    tested = count_tested(runs, options.train_on_test)
    pairs = _pairs(runs, options)
    facts = {
        "options": asdict(options),
        "checkpoint": {"name": checkpoint.name, "digest": checkpoint.digest},
        "protocol": protocol.to_json(),
        "runs": [run.facts() for run in runs],
        "pairs": len(pairs),
        "pairs_digest": _digest(pairs),
        "prompts_of_a_test": tested,
    }
    make_folder(out)
    training = _Training(checkpoint, protocol, pairs, out, options, progress)
    with training_lock(out) if training.accelerator.is_main_process else nullcontext():
        training.run(facts)
    return facts


def _common_protocol(runs: Sequence[JudgedRun]) -> DrawProtocol:
    """The protocol of all runs.

    Raises:
        BadInput: they differ: then there is no one policy whose pictures these are.
    """
    first = runs[0]
    for run in runs[1:]:
        if replace(run.protocol, name="") != replace(first.protocol, name=""):
            raise BadInput(
                f"{first.path} and {run.path} were drawn under different protocols: train on one"
            )
    return first.protocol


def _pairs(runs: Sequence[JudgedRun], options: DpoOptions) -> list[Pair]:
    pairs = preference_pairs(runs, options.pairs_per_prompt, options.min_margin)
    if not pairs:
        raise BadInput(
            f"of {sum(len(run.draws) for run in runs)} pictures no two of a prompt have scores "
            f"that differ by --min-margin {options.min_margin:g}, or at all: draw more of each prompt "
            "(-n), at a higher temperature, or take a judge with finer scores"
        )
    return pairs


def _digest(pairs: Sequence[Pair]) -> str:
    """Of the pictures' codes and scores: verdicts may change between two starts."""
    total = hashlib.sha256()
    for draw in (draw for pair in pairs for draw in (pair.chosen, pair.rejected)):
        total.update(draw.codes.tobytes() + f"{draw.texts} {draw.score}".encode())
    return total.hexdigest()[:16]


class _Training:
    """The loop and what it needs."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        protocol: DrawProtocol,
        pairs: Sequence[Pair],
        out: Path,
        options: DpoOptions,
        progress: TrainingProgress,
    ) -> None:
        disable_progress_bar()  # transformers' own
        self.checkpoint, self.protocol, self.pairs = checkpoint, protocol, pairs
        self.out, self.options, self.progress = out, options, progress
        precision = "bf16" if options.bfloat16 else "no"
        self.accelerator = new_accelerator(precision, cpu=not torch.cuda.is_available())
        if options.batch_size < self.accelerator.num_processes:
            raise BadInput(
                f"--batch-size {options.batch_size} for {self.accelerator.num_processes} processes: at "
                "least one pair each"
            )
        device = str(self.accelerator.device)
        bare = load_policy(checkpoint, protocol, options.policy, device, options.gradient_checkpointing)
        optimizer = torch.optim.AdamW(
            bare.parameters(), options.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
        )
        self.policy, self.optimizer = self.accelerator.prepare(bare, optimizer)
        self.tokens = len(pairs[0].chosen.codes)
        if len(pairs) < self.accelerator.num_processes:
            raise BadInput(
                f"{len(pairs)} pairs for {self.accelerator.num_processes} processes: give more runs, or "
                "start fewer processes"
            )
        self.state = TrainingState(out)

    def run(self, facts: dict[str, Json]) -> None:
        """Train from the newest state, if there is one, to the end, and write the checkpoint."""
        is_main = self.accelerator.is_main_process
        if is_main:
            self.state.check_settings(facts, MAY_CHANGE)
        self.accelerator.wait_for_everyone()
        reference = self._reference_log_probs()  # before any state is loaded
        start = self._resume()
        if is_main:
            trim_curve(self.out / "loss.jsonl", start)
        skipped = 0
        for step in range(start, self.options.steps):
            line = self._step(step, reference)
            skipped = 0 if line["taken"] else skipped + 1
            if is_main:
                self._log(line)
            if skipped == SKIPPED_IN_A_ROW:
                raise BadInput(
                    f"the gradient's norm was {line['gradient_norm']} in steps {step - 1} to {step + 1}: "
                    "take a lower --learning-rate and another --out"
                )
            if (step + 1) % self.options.save_every == 0:
                self._save_state(step + 1)
        self._finish(facts)

    @torch.no_grad()
    def _reference_log_probs(self) -> Tensor:
        """Log-probabilities `[2, P]` of all pairs' pictures, each process computing its share."""
        found = torch.zeros(2, len(self.pairs), device=self.accelerator.device)
        for numbers in _chunks(self._share(range(len(self.pairs))), self.options.micro):
            found[:, numbers] = self._log_probs([self.pairs[n] for n in numbers])
        return self._summed(found)

    def _log_probs(self, pairs: Sequence[Pair]) -> Tensor:
        """Log-probabilities `[2, B]` of the chosen and the rejected pictures under the policy."""
        draws = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
        codes = torch.from_numpy(np.stack([draw.codes for draw in draws])).long()
        prompts = [self._prompts(draw) for draw in draws]
        scores = self.policy(prompts, codes.to(self.accelerator.device), entropy=False)
        sums: Tensor = scores.log_probs.float().sum(1)
        return sums.view(2, len(pairs))

    def _prompts(self, draw: JudgedDraw) -> tuple[tuple[int, ...], ...]:
        """Token ids of a draw's two branches, cut as the engine cut them."""
        limit = self.checkpoint.decoder_config.max_position_embeddings - self.tokens
        rows = [self.checkpoint.prompt_ids(text) for text in draw.texts]
        if self.protocol.truncate:
            rows = [[*ids[: limit - 1], ids[-1]] if len(ids) > limit else ids for ids in rows]
        return tuple(map(tuple, rows[: 1 if self.protocol.guidance == 1 else 2]))

    def _step(self, step: int, reference: Tensor) -> dict[str, Any]:
        """One optimiser step, and its line of the curve. Without a finite gradient it is not taken."""
        rate = _learning_rate(self.options, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sums = torch.zeros(len(FIGURES), device=self.accelerator.device)
        chunks = list(_chunks(self._share(self._batch(step)), self.options.micro))
        for numbers in chunks[:-1]:
            with self.accelerator.no_sync(self.policy):
                sums += self._backward(numbers, reference)
        sums += self._backward(chunks[-1], reference)
        norm = float(self.accelerator.clip_grad_norm_(self.policy.parameters(), self.options.max_grad_norm))
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()
        means = (self._summed(sums) / self.options.batch_size).tolist()
        figures = dict(zip(FIGURES, means, strict=True))
        return {
            "step": step + 1,
            **figures,
            "lr": rate,
            "gradient_norm": norm,
            "taken": math.isfinite(norm),
        }

    def _backward(self, numbers: Sequence[int], reference: Tensor) -> Tensor:
        """Add the gradient of some pairs; the sums of their `FIGURES`."""
        log_ratios = self._log_probs([self.pairs[n] for n in numbers]) - reference[:, numbers]
        found = preference_loss(log_ratios, self.tokens, self.options.beta, self.options.loss)
        # Processes take the mean of their gradients; what is wanted is the mean over all pairs.
        share = self.accelerator.num_processes / self.options.batch_size
        self.accelerator.backward(found.loss.sum() * share)
        right = (found.chosen > found.rejected).float()
        rows = (found.loss.detach(), right, found.chosen - found.rejected, found.chosen, found.rejected)
        return torch.stack([row.sum() for row in rows])

    def _batch(self, step: int) -> list[int]:
        """The pairs of a step: passes over all of them, each shuffled anew, follow each other."""
        size, number = len(self.pairs), self.options.batch_size
        places = range(step * number, (step + 1) * number)
        orders = {
            n: np.random.default_rng((self.options.seed, n)).permutation(size)
            for n in range(places[0] // size, places[-1] // size + 1)
        }
        return [int(orders[place // size][place % size]) for place in places]

    def _share(self, numbers: Sequence[int]) -> Sequence[int]:
        """This process's part of them."""
        return numbers[self.accelerator.process_index :: self.accelerator.num_processes]

    def _summed(self, values: Tensor) -> Tensor:
        found: Tensor = self.accelerator.reduce(values, "sum")
        return found

    def _resume(self) -> int:
        """Load the newest state, if there is one; the number of steps that are done."""
        step = self.state.newest()
        if step:
            with self.state.loaded(step, str(self.accelerator.device)) as state:
                self.accelerator.unwrap_model(self.policy).load_state_dict(state["policy"])
                self.optimizer.load_state_dict(state["optimizer"])
        return step

    def _save_state(self, step: int) -> None:
        if self.accelerator.is_main_process:
            policy = self.accelerator.unwrap_model(self.policy)
            state = {"policy": policy.state_dict(), "optimizer": self.optimizer.state_dict()}
            self.state.save(step, state)
        self.accelerator.wait_for_everyone()

    def _log(self, line: dict[str, Any]) -> None:
        shown = {name: value if math.isfinite(value) else None for name, value in line.items()}
        with (self.out / "loss.jsonl").open("a") as curve:
            curve.write(json.dumps(shown) + "\n")
        self.progress(line["step"], self.options.steps, line["loss"])

    def _finish(self, facts: dict[str, Json]) -> None:
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            policy = self.accelerator.unwrap_model(self.policy)
            tested = max(int(facts["prompts_of_a_test"]), self.checkpoint.test_prompts)
            training = {"by": "dpo", **facts, "test_prompts": tested}
            save_policy(policy, self.checkpoint, self.protocol, self.out, training)


def _chunks(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (numbers[start : start + size] for start in range(0, len(numbers), size))


def _learning_rate(options: DpoOptions, step: int) -> float:
    """Rate of a step, counted from 0: linear warm-up, then a cosine to zero after the last."""
    warm = min(1.0, (step + 1) / (options.warmup + 1))
    done = max(0.0, (step - options.warmup) / max(1, options.steps - options.warmup))
    return options.learning_rate * warm * (1 + math.cos(math.pi * done)) / 2
