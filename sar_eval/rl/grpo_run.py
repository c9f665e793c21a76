"""Put a GRPO run together: checkpoint, prompts, engine, rewards, hold-out, trainer; and take it apart."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from sar_eval import discover
from sar_eval.errors import BadInput, GateFailed
from sar_eval.families.simplear import Checkpoint, find_checkpoint
from sar_eval.rewards.holdout import Holdout
from sar_eval.rewards.holdout_verdict import rewarded_alone
from sar_eval.rewards.pool import RewardPool
from sar_eval.rewards.train_prompts import TrainPrompts, evenly_by_tag
from sar_eval.rl.grpo import GrpoTrainer, Outcome, Progress
from sar_eval.rl.grpo_recipe import MAY_CHANGE, GrpoRecipe
from sar_eval.rl.grpo_state import TrainingState
from sar_eval.rl.grpo_watch import Watch
from sar_eval.rl.policy import check_protocol
from sar_eval.rl.policy_model import save_policy
from sar_eval.rl.probe import ProbeResult, probe
from sar_eval.storage.lock import check_training_folder, training_lock
from sar_eval.storage.training_journal import is_training, read_head
from sar_eval.train.accelerators import new_accelerator
from sar_eval.train.journal import Journal, Listener
from sar_eval.train.state import make_folder
from sar_eval.types import DrawProtocol, Json, suite_digest

WATCH_EVERY = 10  # steps, where the recipe has no hold-out that says


@dataclass(frozen=True, slots=True)
class GrpoSetup:
    """A recipe with what it names, found and checked; nothing heavy is loaded.

    Attributes:
        recipe: as asked for.
        checkpoint: the start.
        protocol: of the rollouts.
        prompts: to train on.
        holdout: None without one.
        device: of the trainer: "cpu", "cuda", or under torchrun this rank's card, as "cuda:3".
    """

    recipe: GrpoRecipe
    checkpoint: Checkpoint
    protocol: DrawProtocol
    prompts: TrainPrompts
    holdout: Holdout | None
    device: str

    @classmethod
    def of(cls, recipe: GrpoRecipe, checkpoint: str) -> GrpoSetup:
        """Find and check what the recipe names.

        Raises:
            BadInput, UnknownName: naming what cannot work, and where it stands.
        """
        found = find_checkpoint(checkpoint, str(recipe.engine.options.get("visual_tokenizer", "")))
        protocol, options = recipe.protocol_of(found.native_resolution), recipe.options
        check_protocol(protocol, options.policy)
        if options.token_weights == "contrast" and protocol.guidance == 1:
            raise BadInput(
                f"{recipe.path}: grpo.token_weights is contrast, and protocol.guidance is 1: without "
                "guidance there is nothing to contrast"
            )
        holdout = None
        if recipe.holdout is not None:
            resolution = found.native_resolution
            holdout = Holdout.read(recipe.holdout, protocol, resolution, options.seed, str(recipe.path))
        prompts = TrainPrompts.read(
            recipe.suite,
            seed=options.seed,
            split=recipe.prompts.split,
            exclude=recipe.exclude,
            holdout=() if holdout is None else (holdout.suite,),
            train_on_test=options.train_on_test,
        )
        if options.prompts > len(prompts.prompts):
            raise BadInput(
                f"{recipe.path}: grpo.prompts is {options.prompts}, and {recipe.suite} has "
                f"{len(prompts.prompts)} to train on: a step takes each prompt once"
            )
        return cls(recipe, found, protocol, prompts, holdout, own_device())

    def engine(self, protocol: DrawProtocol) -> Any:
        """The recipe's engine for a protocol, not yet entered.

        Raises:
            BadInput, UnknownName: no such engine, one without log-probabilities, or vLLM on several ranks.
        """
        table = self.recipe.engine
        if table.name == "vllm" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise BadInput(  # its core would join the process group of the ranks
                "engine vllm draws in one process alone: take engine native under torchrun"
            )
        make = discover.load("engines", table.name)
        if not all(callable(getattr(make, name, None)) for name in ("roll", "load_weights")):
            raise BadInput(f"engine {table.name!r} gives no log-probabilities: train with native or vllm")
        with discover.guarded(f"engine {table.name!r} cannot be made with the options {table.options}"):
            return make(
                self.checkpoint.name,
                protocol,
                device=table.device or self.device,
                dtype=table.dtype,
                batch_size=table.batch_size,
                **table.options,
            )

    def settings(self) -> dict[str, Json]:
        """What a resumed run must have the same of, but for `MAY_CHANGE`; cards may be more or fewer."""
        return {
            **self.recipe.settings(),
            "checkpoint": self.checkpoint.name,
            "digest": self.checkpoint.digest,
            "prompts_digest": self.prompts.digest,
            "holdout_digest": "" if self.holdout is None else suite_digest(self.holdout.prompts),
        }

    def training(self) -> dict[str, Json]:
        """What `sar_eval.json` of the checkpoints says made them."""
        options = self.recipe.options
        return {
            "by": "grpo",
            "recipe": self.recipe.name,
            "start": self.checkpoint.name,
            "seed": options.seed,
            "placebo": options.placebo,
            "test_prompts": max(self.prompts.tested, self.checkpoint.test_prompts),
        }

    def notes(self) -> list[str]:
        """What every reader of the run must know first."""
        options, found = self.recipe.options, list[str]()
        if self.prompts.tested:
            found.append(
                f"{self.prompts.tested} training prompts stand in a test suite: scores there mean little."
            )
        if self.checkpoint.test_prompts:
            found.append(
                f"The start was trained on {self.checkpoint.test_prompts} prompts of a test suite: scores "
                "there mean little."
            )
        if options.placebo:
            found.append("Placebo: rewards were permuted within each group, so nothing can be learnt.")
        if options.policy == "conditional" and self.protocol.guidance != 1:
            found.append(
                "Policy 'conditional' is biased: pictures were drawn with guidance, and the gradient is "
                "that of the prompted branch alone."
            )
        if self.holdout is None:
            found.append("No hold-out watched this run: a hacked reward would not be seen.")
        elif rewarded_alone(self.holdout.judges, self.recipe.rewards):
            found.append("The judge that evaluates is also rewarded, and no other judge watches.")
        return found


def own_device() -> str:
    """Of this process. A rank names its card: in threads of the engine "cuda" would be the first one."""
    if not torch.cuda.is_available():
        return "cpu"
    rank = os.environ.get("LOCAL_RANK", "")
    return f"cuda:{rank}" if rank else "cuda"


def train_grpo(
    setup: GrpoSetup,
    out: Path,
    write_page: Callable[[Path], object],
    progress: Progress = lambda step, steps, figures: None,
    listener: Listener = lambda step, figures: None,
) -> Outcome:
    """Train, and write a checkpoint folder with its journal; goes on where an earlier call stopped.

    Under torchrun or `accelerate launch` every process calls this.

    Raises:
        BadInput: `out` is a finished run, or was begun with other settings.
        GateFailed: the guard stopped it; the best weights are in `out/best`.
        Incomplete, StaleEngine, StorageFailed: see `GrpoTrainer.run`.
    """
    check_out(setup, out)
    make_folder(out)
    disable_progress_bar()  # transformers' own
    options = setup.recipe.options
    precision = "bf16" if options.precision == "bfloat16" else "no"
    accelerator = new_accelerator(precision, cpu=setup.device == "cpu")
    torch.manual_seed(options.seed)
    with ExitStack() as stack:
        if accelerator.is_main_process:
            stack.enter_context(training_lock(out))
            TrainingState(out).check_settings(setup.settings(), MAY_CHANGE)
        accelerator.wait_for_everyone()
        rewards = stack.enter_context(RewardPool(setup.recipe.rewards))
        engine = stack.enter_context(setup.engine(setup.protocol))
        watch = _watch(setup, out, write_page, stack)
        journal = None
        if accelerator.is_main_process:
            journal = Journal(out, setup.settings(), setup.notes(), listener)
        trainer = GrpoTrainer(
            setup.recipe, setup.checkpoint, setup.prompts, out, accelerator, watch, progress
        )
        outcome = trainer.run(engine, rewards, journal)
        _finish(setup, out, trainer, outcome)
    if outcome.halted:
        raise GateFailed(f"training stopped: {outcome.halted}. The best weights are in {out / 'best'}")
    return outcome


def _watch(setup: GrpoSetup, out: Path, write_page: Callable[[Path], object], stack: ExitStack) -> Watch:
    table, holdout = setup.recipe.holdout, setup.holdout
    every = WATCH_EVERY if table is None else table.every
    watch = Watch(out, every, setup.prompts.prompts, setup.training(), write_page)
    if holdout is not None and table is not None:
        judges = stack.enter_context(RewardPool(holdout.judges))
        other = None
        if not holdout.draws_like(setup.protocol):
            other = stack.enter_context(setup.engine(holdout.protocol))
        watch.add_holdout(holdout, judges, other, table)
    return watch


def is_begun(out: Path) -> bool:
    """Whether an earlier call left a state to go on from."""
    return TrainingState(out).newest() > 0


def check_out(setup: GrpoSetup, out: Path) -> None:
    """Refuse a folder that this training cannot go on in; nothing is written.

    Raises:
        BadInput: it is a finished checkpoint, its run was stopped by the guard or begun with other
            settings, or it has other things in it.
    """
    check_training_folder(out)
    if (out / "sar_eval.json").exists():  # written last
        raise BadInput(f"{out} is already a finished checkpoint: use another --out")
    if is_training(out) and (halt := read_head(out).halt):
        raise BadInput(
            f"{out} was stopped by its guard at step {halt.step}; the best weights are in {out / 'best'}: "
            "use another --out"
        )
    TrainingState(out).compare_settings(setup.settings(), MAY_CHANGE)


def _finish(setup: GrpoSetup, out: Path, trainer: GrpoTrainer, outcome: Outcome) -> None:
    """Write the last weights as a checkpoint, unless the guard stopped the run."""
    if outcome.halted or not trainer.accelerator.is_main_process:
        return
    training = setup.training() | {"step": outcome.step}
    save_policy(trainer.bare_policy, setup.checkpoint, setup.protocol, out, training)


def probe_setup(setup: GrpoSetup, prompts: int, draws: int) -> ProbeResult:
    """Draw some prompts a few times under the protocol of the rollouts, and reward the pictures."""
    with RewardPool(setup.recipe.rewards) as rewards, setup.engine(setup.protocol) as engine:
        return probe(
            engine,
            rewards,
            evenly_by_tag(setup.prompts.prompts, prompts),
            setup.recipe.rewards,
            draws=draws,
            group=setup.recipe.options.group,
            seed=setup.recipe.options.seed,
        )
