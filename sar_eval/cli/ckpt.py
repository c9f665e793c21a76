"""`ckpt`: what a checkpoint is, before anything is drawn with it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from sar_eval.cli.options import AsJson, LocalOnly, VisualTokenizer, keep_offline
from sar_eval.cli.terminal import say

app = typer.Typer(help="Look at checkpoints.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Look at checkpoints."""


@app.command()
def info(
    ckpt: Annotated[
        str,
        typer.Argument(help="demo:NAME, a folder, or of the hub ORG/NAME, ORG/NAME/SUBFOLDER, @REVISION."),
    ],
    visual_tokenizer: VisualTokenizer = None,
    local_only: LocalOnly = False,
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = "bfloat16",
    as_json: AsJson = False,
) -> None:
    """Print a checkpoint's shape, vocabulary, digest, and how many images fit in memory at once."""
    from sar_eval.stages.describe_checkpoint import describe

    keep_offline(local_only)
    facts = describe(ckpt, visual_tokenizer or "", dtype)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    for note in facts.pop("notes"):
        say(f"note: {note}", err=True)
    for name, value in facts.items():
        say(f"{name.replace('_', ' '):<26} {_readable(value)}")


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_readable(part)}" for name, part in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
