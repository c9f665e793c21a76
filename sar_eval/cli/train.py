"""`train`: make checkpoints of the demo's kind, step by step."""

from __future__ import annotations

import math
import re
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli.options import with_options
from sar_eval.cli.terminal import say
from sar_eval.cli.train_progress import showing
from sar_eval.errors import BadInput
from sar_eval.options import option

if TYPE_CHECKING:
    from sar_eval.train.decoder import DecoderOptions

app = typer.Typer(
    help="Train checkpoints: tokenizer, tokenize, pretrain, sft, select, dpo, grpo; scenes first.",
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
Visual = Annotated[Path, typer.Option("--tokenizer", help="Folder with encoder.jit and decoder.jit.")]
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


@app.command()
def tokenize(
    data: Data,
    tokenizer: Visual,
    out: Out,
    batch_size: Batch = 256,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Turn captioned images into captioned visual tokens, once, ahead of training."""
    from sar_eval.train.tokenize import tokenize as run

    with showing("tokenize", out) as show:
        rows = run(
            data,
            tokenizer,
            out,
            batch_size=batch_size,
            device=device,
            progress=lambda done: show(done, None, 0.0),
        )
    say(f"{rows} rows of tokens in {out}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderTraining:
    """What `pretrain` and `sft` are asked for."""

    data: list[str] = option(DATA_HELP, "run", default=MISSING)
    tokenizer: Path = option("Folder with encoder.jit and decoder.jit.", "run", default=MISSING)
    out: Path = option("The folder to write.", "run", default=MISSING)
    steps: int = option("Optimiser steps in all.", "run", default=MISSING, low=1)
    batch_size: int = option("Rows of one step on one device.", "run", default=64, low=1, high=MAX_BATCH)
    learning_rate: float | None = option(
        "Peak rate; by default 2e-3 for pretrain, 5e-4 for sft.", "run", above=0
    )
    warmup: int = option("Steps of the rate's linear warm-up.", "run", default=200, low=0)
    seed: int = option("Seed of weights, order and noise.", "run", default=0, low=0, high=MAX_SEED)
    save_every: int = option("Steps between resumable states.", "run", default=500, low=1)
    stop_at: int = option("End after this step of the schedule; 0 is at its end.", "run", default=0, low=0)

    def options(self, learning_rate: float) -> DecoderOptions:
        """As `train.decoder` takes them; `learning_rate` where none was asked for."""
        from sar_eval.train.decoder import DecoderOptions

        return DecoderOptions(
            self.steps,
            self.batch_size,
            learning_rate if self.learning_rate is None else self.learning_rate,
            self.warmup,
            seed=self.seed,
            save_every=self.save_every,
            stop_at=self.stop_at,
        )


@app.command()
@with_options()
def pretrain(training: DecoderTraining) -> None:
    """Train a decoder of the demo's shape from random weights on token shards."""
    need_train()
    from sar_eval.train.pretrain import pretrain as run

    with showing("pretrain", training.out) as show:
        run(training.data, training.tokenizer, training.out, training.options(2e-3), show)
    say(f"checkpoint in {training.out}")


@app.command()
@with_options()
def sft(
    ckpt: Annotated[str, typer.Option("--ckpt", help="Checkpoint to start from: a folder, or demo:NAME.")],
    training: DecoderTraining,
) -> None:
    """Fine-tune a checkpoint on a small clean set of token shards."""
    need_train()
    from sar_eval.families.locate import locate
    from sar_eval.train.sft import sft as run

    folder = locate(ckpt).folder if ckpt.startswith("demo:") else Path(ckpt)
    with showing("sft", training.out) as show:
        run(folder, training.data, training.tokenizer, training.out, training.options(5e-4), show)
    say(f"checkpoint in {training.out}")


def need_train() -> None:
    """Refuse to begin without the packages that training needs.

    Raises:
        MissingExtra: one is not installed.
    """
    from sar_eval.discover import need

    for package in ("transformers", "accelerate"):
        need(package, extra="train", what="sar-eval train")
