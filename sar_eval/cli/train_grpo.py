"""`train grpo`: reinforcement learning with any judge or scorer as the reward."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli.options import Ckpt, Results, keep_offline, named_options, with_options
from sar_eval.cli.recipe_changes import changed_tables
from sar_eval.cli.terminal import say
from sar_eval.cli.track import FOR_THE_HUB, follow_training
from sar_eval.cli.train import need_train
from sar_eval.cli.train_progress import showing
from sar_eval.errors import BadInput
from sar_eval.options import option
from sar_eval.train.launcher import is_first
from sar_eval.types import Json

if TYPE_CHECKING:
    from sar_eval.rl.grpo_run import GrpoSetup
    from sar_eval.train.journal import Listener

PROBED = 24  # prompts; with 8 draws each a few seconds for the demo, and a minute on a card
PROBE_DRAWS = 8
RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="shapes or another shipped recipe, or a TOML file.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToTrain:
    """What `train grpo` is asked for beside its recipe."""

    out: Path | None = option("The folder to write.", "run")
    probe: bool = option(
        "Only look: draw some pictures of some prompts, and say whether there is anything to learn.",
        "run",
        default=False,
    )
    anyway: bool = option("Train though the probe advises against it.", "run", default=False)
    steps: int | None = option("Rollouts, each with an update; instead of the recipe's.", "run", low=1)
    seed: int | None = option("Seed; instead of the recipe's.", "run", low=0)
    set: list[str] | None = option(
        "Another value of the recipe, as grpo.learning_rate=1e-4; may be repeated.",
        "run",
        metavar="TABLE.KEY=VALUE",
    )
    placebo: bool = option(
        "Permute the rewards within each group: whatever comes of it, is noise.", "run", default=False
    )
    train_on_test: bool = option(
        "Take prompts of evaluation suites, too; every output then says so.", "run", default=False
    )
    local_only: bool = option("Never ask the hub: folders and its cache.", "run", default=False)

    def changes(self) -> dict[str, Json]:
        """Tables of the recipe with their new values."""
        found = changed_tables(self.set, "grpo.learning_rate=1e-4")
        flags = {"steps": self.steps, "seed": self.seed}
        flags |= {name: True for name in ("placebo", "train_on_test") if getattr(self, name)}
        asked = {name: value for name, value in flags.items() if value is not None}
        return found | {"grpo": {**found.get("grpo", {}), **asked}} if asked else found


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(grpo)


@with_options(without=["step", *FOR_THE_HUB])
def grpo(recipe: RecipeName, ckpt: Ckpt, training: HowToTrain, results: Results) -> None:
    """Reinforcement learning (GRPO) with judges and scorers as rewards; see docs/rl.md."""
    need_train()
    keep_offline(training.local_only)
    from sar_eval.stages.track import make_trackers

    options = named_options("--tracker-option", results.tracker_option)
    trackers = make_trackers(results.track or (), options)
    from sar_eval.rl.grpo_recipe import load_grpo_recipe
    from sar_eval.rl.grpo_run import GrpoSetup
    from sar_eval.rl.grpo_state import TrainingState

    if training.out is None and not training.probe:
        raise BadInput("--out is missing: the folder to write the checkpoint to (--probe needs none)")
    setup = GrpoSetup.of(load_grpo_recipe(recipe, training.changes()), ckpt)
    for note in (*setup.checkpoint.notes, *setup.prompts.notes):
        say(note, err=True)
    if training.probe:
        _probe(setup)
    elif training.out is not None:
        step, settings = TrainingState(training.out).newest(), setup.settings()
        follow = follow_training(trackers, results, training.out, step, settings)
        _train(setup, training.out, training.anyway, follow)


def _probe(setup: GrpoSetup, *, refuse: bool = True) -> None:
    """Print what a few draws say.

    Raises:
        BadInput: there is too little to learn from.
    """
    from sar_eval.cli.train_probe import print_probe
    from sar_eval.rl.grpo_run import probe_setup
    from sar_eval.rl.probe_advice import REFUSE_BELOW, advice, check_variance

    started = time.perf_counter()
    result, rewards = probe_setup(setup, PROBED, PROBE_DRAWS), setup.recipe.rewards
    refused = refuse and result.varied < REFUSE_BELOW
    words = [] if refused else advice(result, setup.protocol, rewards)  # the error says the same
    print_probe(result, words, time.perf_counter() - started)
    if refused:
        check_variance(result, setup.protocol, rewards)


def _train(setup: GrpoSetup, out: Path, anyway: bool, follow: AbstractContextManager[Listener]) -> None:
    from sar_eval.report.training_page import write_training_page
    from sar_eval.rl.grpo_run import check_out, is_begun, train_grpo

    check_out(setup, out)
    if is_first() and not is_begun(out):
        _probe(setup, refuse=not anyway)
    with follow as listener:
        with _showing(out) as show:
            outcome = train_grpo(setup, out, write_training_page, show, listener)
        if not is_first():
            return
        say(f"checkpoint in {out} after {outcome.step} steps; the journal is {out / 'training.html'}")
        if outcome.best_step is not None:
            say(f"on the hold-out, step {outcome.best_step} was best: {out / 'best'}")


@contextmanager
def _showing(out: Path) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
    """A bar on a terminal, a line now and then elsewhere, with the reward."""
    with showing("grpo", out) as show:
        yield lambda step, steps, figures: show(step, steps, f"reward {figures['reward']:.3f}")
