"""`ckpt`: what a checkpoint is, before anything is drawn with it; and how an adapter becomes one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sar_eval.cli.options import AsJson, LocalOnly, VisualTokenizer, keep_offline
from sar_eval.cli.terminal import say
from sar_eval.discover import need

app = typer.Typer(help="Look at checkpoints, merge adapters.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Look at checkpoints, merge adapters."""


@app.command()
def info(
    ckpt: Annotated[
        str,
        typer.Argument(
            help="demo:NAME, a folder or file, or of the hub ORG/NAME, ORG/NAME/SUBFOLDER or FILE, "
            "@REVISION."
        ),
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


@app.command()
def merge(
    adapter: Annotated[
        str, typer.Argument(help="An adapter of LoRA: peft's folder, or ORG/NAME of the hub.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")],
    base: Annotated[
        str, typer.Option("--base", help="Its base, where it is not the one that the adapter names.")
    ] = "",
    visual_tokenizer: VisualTokenizer = None,
    local_only: LocalOnly = False,
) -> None:
    """Add a LoRA adapter to its base and write the checkpoint, which every engine loads."""
    for package in ("transformers", "peft"):
        need(package, extra="train", what="sar-eval ckpt merge")
    from sar_eval.train.merge_adapter import merge as run

    keep_offline(local_only)
    merged = run(adapter, out, base, visual_tokenizer or "")
    say(f"checkpoint in {out}: {adapter} on {merged.name}")


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_readable(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
