"""`train pretrain`, `train sft`, `train run`: decoders, asked for by flags or by a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli.options import Results, check_push, keep_offline, named_options, with_options
from sar_eval.cli.terminal import say
from sar_eval.cli.track import FOR_THE_HUB, follow_training
from sar_eval.cli.train import need_train
from sar_eval.cli.train_flags import HowToTrain, HowToWatch, WhatToTrain, WhereToPush, recipe_changes
from sar_eval.cli.train_progress import Show, showing
from sar_eval.types import Json

if TYPE_CHECKING:
    from sar_eval.protocols import Tracker
    from sar_eval.train.curve import TrainingProgress
    from sar_eval.train.journal import Listener
    from sar_eval.train.train_recipe import TrainRecipe

NOT_HERE = ("step", *FOR_THE_HUB)  # options of `Results`: a training has many steps
NEW = ("init", "shape", "text_tokenizer", "tie")  # of a start that is no checkpoint
RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="demo-sft or another shipped recipe, or a TOML file.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(pretrain)
    app.command()(sft)
    app.command("run")(run)


@with_options(without=[*NOT_HERE, "ckpt"])
def pretrain(
    what: WhatToTrain, how: HowToTrain, watch: HowToWatch, where: WhereToPush, results: Results
) -> None:
    """Train a new decoder on token shards: from a language model, or from random weights."""
    from sar_eval.train.train_recipe import make_train_recipe

    base: dict[str, Json] = {"name": "pretrain", "start": {"shape": "demo"}}
    _train(make_train_recipe(base, recipe_changes(what, how, watch)), what.out, where, results)


@with_options(without=[*NOT_HERE, *NEW])
def sft(
    what: WhatToTrain, how: HowToTrain, watch: HowToWatch, where: WhereToPush, results: Results
) -> None:
    """Fine-tune a checkpoint, usually on few and good pictures."""
    from sar_eval.train.train_recipe import make_train_recipe

    _train(make_train_recipe({"name": "sft"}, recipe_changes(what, how, watch)), what.out, where, results)


@with_options(without=NOT_HERE)
def run(
    recipe: RecipeName,
    what: WhatToTrain,
    how: HowToTrain,
    watch: HowToWatch,
    where: WhereToPush,
    results: Results,
) -> None:
    """Train what a recipe says; flags replace its values. The result has all of them in recipe.toml."""
    from sar_eval.train.train_recipe import load_train_recipe

    _train(load_train_recipe(recipe, recipe_changes(what, how, watch)), what.out, where, results)


def _train(recipe: TrainRecipe, out: Path, where: WhereToPush, results: Results) -> None:
    """Train and upload, as far as that is still to do.

    Raises:
        BadInput: `out` is a finished checkpoint, and nothing is to be uploaded.
    """
    need_train()
    keep_offline(where.local_only)
    from sar_eval.stages.track import make_trackers

    options = named_options("--tracker-option", results.tracker_option)
    trackers = make_trackers(results.track or (), options)
    check_push(where.push, "model", private=where.private)
    if where.push and recipe.training.lora:
        from sar_eval.train.push_checkpoint import check_base

        check_base(recipe.start.ckpt)
    from sar_eval.train.launcher import is_first
    from sar_eval.train.train_run import is_finished

    if not (where.push and is_finished(recipe, out)):
        _fit(recipe, out, trackers, results)
    if is_first():
        say(f"checkpoint in {out}")
        if where.push:
            _push(out, where)


def _fit(recipe: TrainRecipe, out: Path, trackers: Mapping[str, Tracker], results: Results) -> None:
    from sar_eval.train.train_recipe import public
    from sar_eval.train.train_run import DecoderRun
    from sar_eval.train.training_states import TrainingStates

    run = DecoderRun.of(recipe, out)
    step = TrainingStates(out / "state").newest()
    follow = follow_training(trackers, results, out, step, public(recipe.settings()))
    with follow as listener, showing(recipe.kind, out) as show:
        run.train(*_with_speed(show, listener), show.note)


def _with_speed(show: Show, listener: Listener) -> tuple[TrainingProgress, Listener]:
    """Show speed beside the loss: the listener is told of both just before the progress is."""
    figures: dict[str, float] = {}

    def listen(step: int, told: Mapping[str, float]) -> None:
        figures.update(told)
        listener(step, told)

    def progress(step: int, steps: int, loss: float) -> None:
        words = [f"loss {loss:.4f}"]
        if rate := figures.get("train/tokens_per_s"):
            words.append(f"{rate:,.0f} tokens/s")
        if share := figures.get("train/mfu"):
            words.append(f"{share:.0%} of peak FLOPs")
        show(step, steps, ", ".join(words))

    return progress, listen


def _push(out: Path, where: WhereToPush) -> None:
    from sar_eval.train.push_checkpoint import push_checkpoint

    with showing("push", where.push) as show:
        address = push_checkpoint(
            out, where.push, private=where.private, progress=lambda done, total: show(done, total, 0.0)
        )
    say(f"pushed to {address}")
