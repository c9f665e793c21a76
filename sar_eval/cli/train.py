"""`train`: make checkpoints of the demo's kind, step by step."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated

import typer

from sar_eval.cli.terminal import say
from sar_eval.cli.train_progress import showing
from sar_eval.errors import BadInput

app = typer.Typer(
    help="Train checkpoints: tokenizer, tokenize, pretrain, sft, run, select, dpo, grpo; scenes first.",
    no_args_is_help=True,
)

DATA_HELP = "Folder of shards, or a set's folder or URI; give it again for more."
Data = Annotated[list[str], typer.Option("--data", help=DATA_HELP)]
Out = Annotated[Path, typer.Option("--out", help="The folder to write.")]
MAX_SEED, MAX_BATCH, MAX_CODES = 2**32 - 1, 65_536, 1 << 24
Seed = Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of weights, order and noise.")]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps in all.")]
Batch = Annotated[
    int, typer.Option("--batch-size", min=1, max=MAX_BATCH, help="Rows of one step on one device.")
]
Rate = Annotated[float, typer.Option("--learning-rate", help="Peak learning rate.")]
SaveEvery = Annotated[int, typer.Option("--save-every", min=1, help="Steps between resumable states.")]


@app.command()
def scenes(
    out: Out,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="How many images.")],
    style: Annotated[
        str, typer.Option(help="clean, tidy, noisy or grainy; see docs/demo-checkpoints.md.")
    ] = "clean",
    seed: Seed = 0,
) -> None:
    """Draw captioned scenes of the demo world into Parquet shards (nothing held out is shown)."""
    from sar_eval.suites.shapes.scenes import LATTICE
    from sar_eval.train.scenes import make_scenes

    if style not in LATTICE:
        raise BadInput(f"unknown style {style!r}: {', '.join(LATTICE)}")
    made = make_scenes(out, number, style=style, seed=seed)
    say(f"{made} captioned images in {out}")


@app.command()
def tokenizer(
    data: Data,
    out: Out,
    steps: Steps = 3000,
    batch_size: Batch = 64,
    learning_rate: Rate = 2e-3,
    kind: Annotated[
        str,
        typer.Option(help="local: one code for 8x8 pixels; factored: shape and colour code for 8x16."),
    ] = "local",
    levels: Annotated[
        str | None,
        typer.Option(
            help="FSQ levels, whose product is the number of codes; 8,8,8,5, and 8,8,8,4 if factored."
        ),
    ] = None,
    color_levels: Annotated[
        str | None, typer.Option(help="FSQ levels of the colour codes; 8,8,8 if factored.")
    ] = None,
    seed: Seed = 0,
    save_every: SaveEvery = 500,
) -> None:
    """Fit a visual tokenizer on captioned images and export encoder.jit and decoder.jit."""
    need_train()
    if not 0 < learning_rate < math.inf:
        raise BadInput(f"--learning-rate is {learning_rate}: it must be above 0")
    from sar_eval.train.tokenizer import TokenizerOptions, train_tokenizer

    default, colors = ("8,8,8,4", "8,8,8") if kind == "factored" else ("8,8,8,5", None)
    colors = colors if color_levels is None else color_levels
    options = TokenizerOptions(
        levels=_levels(default if levels is None else levels, "--levels"),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        save_every=save_every,
        kind=kind,
        color_levels=() if colors is None else _levels(colors, "--color-levels"),
    )
    with showing("tokenizer", out) as show:
        train_tokenizer(data, out, options, lambda step, loss: show(step, steps, loss))


def _levels(text: str, name: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,4}", part) and int(part) >= 2 for part in parts):
        raise BadInput(f"{name} is {text!r}: whole numbers from 2 to 9999 with commas between them")
    levels = tuple(int(part) for part in parts)
    if math.prod(levels) > MAX_CODES:
        raise BadInput(f"{name} {text} makes {math.prod(levels):,} codes, of at most {MAX_CODES:,}")
    return levels


def need_train() -> None:
    """Refuse to begin without the packages that training needs.

    Raises:
        MissingExtra: one is not installed.
    """
    from sar_eval.discover import need

    for package in ("transformers", "accelerate"):
        need(package, extra="train", what="sar-eval train")
