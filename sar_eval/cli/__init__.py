"""The command line. Everything heavy is imported inside the commands, so `--help` is fast."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from sar_eval import __version__
from sar_eval.cli import ckpt, fetch, inspect, manifest, prompts, run, score, train
from sar_eval.errors import SarEvalError

app = typer.Typer(
    name="sar-eval",
    help="Generate, score and compare images of autoregressive text-to-image checkpoints.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
run.register(app)
score.register(app)
manifest.register(app)
fetch.register(app)
inspect.register(app)
app.add_typer(ckpt.app, name="ckpt")
app.add_typer(prompts.app, name="prompts")
app.add_typer(train.app, name="train")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"sar-eval {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


def main() -> None:
    """Run the command line; errors of the user's making end in one message and an exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except SarEvalError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt
