"""The command line. Everything heavy is imported inside the commands, so `--help` is fast."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from sar_eval import __version__
from sar_eval.cli import (
    ckpt,
    compare,
    distance,
    doctor,
    draw,
    fetch,
    gate,
    history,
    inspect,
    last_handler,
    manifest,
    prompts,
    run,
    score,
    synth,
    track,
    train,
    train_decoder,
    train_grpo,
    train_rivals,
    train_tokenize,
)

app = typer.Typer(
    name="sar-eval",
    help="Generate, score and compare images of autoregressive text-to-image checkpoints.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
run.register(app)
score.register(app)
track.register(app)
manifest.register(app)
compare.register(app)
distance.register(app)
gate.register(app)
fetch.register(app)
history.register(app)
inspect.register(app)
doctor.register(app)
app.add_typer(ckpt.app, name="ckpt")
app.add_typer(prompts.app, name="prompts")
train_decoder.register(train.app)
train_rivals.register(train.app)
train_grpo.register(train.app)
train_tokenize.register(train.app)
app.add_typer(train.app, name="train")
draw.register(app)
app.add_typer(synth.app, name="synth")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"sar-eval {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error, too.")] = False,
) -> None:
    del version
    if debug:
        os.environ[last_handler.DEBUG] = "1"  # the workers' too


def main() -> None:
    """Run the command line; every error ends in one message and an exit code."""
    sys.exit(last_handler.run(app))
