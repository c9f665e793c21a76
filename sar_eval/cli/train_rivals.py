"""`train select` and `train dpo`: training on pictures of judged runs, without an engine in the loop."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli.options import with_options
from sar_eval.cli.terminal import say
from sar_eval.cli.train import MAX_BATCH, MAX_SEED, need_train
from sar_eval.cli.train_progress import showing
from sar_eval.options import option
from sar_eval.types import Json

if TYPE_CHECKING:
    from sar_eval.rl.dpo import DpoOptions
    from sar_eval.rl.select import SelectOptions

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders with verdicts.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToSelect:
    """What `train select` is asked for."""

    out: Path = option("The folder to write.", "run", default=MISSING)
    top: int = option("Pictures of each prompt at most: the best.", "run", default=1, low=1, high=100_000)
    min_score: float | None = option("Only pictures of at least this score.", "run")
    by: str = option(
        "Whose score counts: a judge, or scorer/NAME; by default the run's judge.", "run", default=""
    )
    run_ckpt: list[str] | None = option(
        "Where the checkpoint that drew a run is now, if not where the run says; may be repeated.", "run"
    )
    train_on_test: bool = option(
        "Take prompts of evaluation suites, too; selection.json then says so.", "run", default=False
    )

    def options(self) -> SelectOptions:
        """As `train.select` takes them."""
        from sar_eval.rl.select import SelectOptions

        return SelectOptions(self.top, self.min_score, self.by, self.train_on_test)


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToPrefer:
    """What `train dpo` is asked for."""

    ckpt: str = option(
        "Checkpoint to start from, and the reference: a folder, or demo:NAME.", "run", default=MISSING
    )
    out: Path = option("The folder to write.", "run", default=MISSING)
    steps: int = option("Optimiser steps in all.", "run", default=MISSING, low=1)
    pairs_per_prompt: int = option(
        "Pairs of each prompt at most: best and worst first.", "run", default=1, low=1, high=100_000
    )
    min_margin: float = option(
        "Least difference of a pair's scores (always above 0).", "run", default=0.0, low=0
    )
    by: str = option(
        "Whose score counts: a judge, or scorer/NAME; by default the run's judge.", "run", default=""
    )
    batch_size: int = option("Pairs of one step.", "run", default=32, low=1, high=MAX_BATCH)
    micro: int = option("Pairs of one forward pass.", "run", default=8, low=1, high=MAX_BATCH)
    learning_rate: float = option("Peak learning rate.", "run", default=1e-5, above=0)
    warmup: int = option("Steps of the rate's linear warm-up.", "run", default=10, low=0)
    beta: float = option("How dear it is to leave the reference.", "run", default=0.1, above=0)
    loss: str = option("dpo or ipo.", "run", default="dpo")
    policy: str = option("guided, detached, conditional or unguided.", "run", default="guided")
    bfloat16: bool = option("Layers in bfloat16; the head stays float32.", "run", default=False)
    gradient_checkpointing: bool = option(
        "Recompute activations: less memory, more time.", "run", default=False
    )
    seed: int = option("Seed of the pairs' order.", "run", default=0, low=0, high=MAX_SEED)
    save_every: int = option("Steps between resumable states.", "run", default=100, low=1)
    run_ckpt: list[str] | None = option(
        "Where the checkpoint that drew a run is now, if neither --ckpt nor where the run says.", "run"
    )
    train_on_test: bool = option(
        "Take prompts of evaluation suites, too; settings.json then says so.", "run", default=False
    )

    def options(self) -> DpoOptions:
        """As `train.dpo` takes them."""
        from sar_eval.rl.dpo import DpoOptions

        names = (field.name for field in fields(DpoOptions) if field.name != "max_grad_norm")
        return DpoOptions(**{name: getattr(self, name) for name in names})


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(select)
    app.command()(dpo)


@with_options()
def select(runs: Runs, selecting: HowToSelect) -> None:
    """Write the best pictures of each prompt of judged runs as token shards, for `train sft` (RAFT)."""
    from sar_eval.rl.select import select as run

    found = run(runs, selecting.out, selecting.options(), selecting.run_ckpt or ())
    for name, value in found.facts().items():
        say(f"{name.replace('_', ' '):20s} {_shown(value):>8s}")
    _warn_of_test(found.tested)
    checkpoint = found.checkpoint
    say(
        f"{len(found.chosen)} rows of tokens in {selecting.out}; next: sar-eval train sft --ckpt "
        f"{checkpoint.name} --data {selecting.out} --tokenizer {checkpoint.visual_folder} --steps N "
        "--out DIR"
    )


@with_options()
def dpo(runs: Runs, wanted: HowToPrefer) -> None:
    """Train on the best and the worst picture of each prompt of judged runs (DPO)."""
    need_train()
    from sar_eval.rl.dpo import dpo as run

    with showing("dpo", wanted.out) as show:
        facts = run(runs, wanted.ckpt, wanted.out, wanted.options(), wanted.run_ckpt or (), show)
    _warn_of_test(int(facts["prompts_of_a_test"]))
    say(f"checkpoint in {wanted.out}, trained on {facts['pairs']} pairs")


def _warn_of_test(number: int) -> None:
    if number:
        say(f"warning: {number} prompts are of a test: what is trained on them is no result", err=True)


def _shown(value: Json) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value}"
