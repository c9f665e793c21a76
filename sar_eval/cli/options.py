"""Options that several commands share, and what their words mean."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sar_eval.errors import BadInput

Ckpt = Annotated[
    str,
    typer.Option(
        "--ckpt",
        help="Checkpoint: demo:NAME, a folder, or ORG/NAME[@REVISION] of the hub.",
        rich_help_panel="What",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Run folder; by default runs/<benchmark>-<checkpoint>-<digest>."),
]
Suite = Annotated[Path | None, typer.Option("--suite", help="Another prompt file for the benchmark.")]
Engine = Annotated[str | None, typer.Option("--engine", help="Who draws; see `sar-eval list`.")]
JudgeName = Annotated[str | None, typer.Option("--judge", help="Who looks; see `sar-eval list`.")]
Images = Annotated[int | None, typer.Option("--images-per-prompt", "-n", help="Draws of each prompt.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of the run.")]
Guidance = Annotated[
    float | None, typer.Option("--guidance", help="Guidance scale; 1 is off.", rich_help_panel="Protocol")
]
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", help="0 takes the likeliest token.", rich_help_panel="Protocol"),
]
TopK = Annotated[int | None, typer.Option("--top-k", help="0 keeps all.", rich_help_panel="Protocol")]
TopP = Annotated[float | None, typer.Option("--top-p", help="1 keeps all.", rich_help_panel="Protocol")]
Resolution = Annotated[
    int | None, typer.Option("--resolution", help="Side in pixels.", rich_help_panel="Protocol")
]
Negative = Annotated[
    str | None,
    typer.Option("--negative-prompt", help="Text of the negative branch.", rich_help_panel="Protocol"),
]
ProtocolName = Annotated[
    str | None,
    typer.Option("--protocol", help="A preset: simplear or simplear-paper.", rich_help_panel="Protocol"),
]
FullVocab = Annotated[
    bool | None,
    typer.Option(
        "--full-vocab/--visual-only",
        help="Sample from text tokens too, as the reference does; they become code 0.",
        rich_help_panel="Protocol",
    ),
]
Truncate = Annotated[
    bool | None,
    typer.Option("--truncate/--no-truncate", help="Cut too long prompts.", rich_help_panel="Protocol"),
]
VisualTokenizer = Annotated[
    str | None,
    typer.Option(
        "--visual-tokenizer",
        help="Folder or hub name of encoder.jit and decoder.jit; else the checkpoint's, or Cosmos.",
        rich_help_panel="What",
    ),
]
LocalOnly = Annotated[
    bool,
    typer.Option("--local-only", help="Never ask the hub: folders and its cache.", rich_help_panel="What"),
]
Speculate = Annotated[
    bool | None,
    typer.Option(
        "--speculate/--no-speculate",
        help="Engine native: fewer steps for few images, the same tokens.",
        rich_help_panel="Machine",
    ),
]
ImageFormat = Annotated[
    str | None,
    typer.Option("--image-format", help="png or webp, both lossless.", rich_help_panel="Machine"),
]
EngineOption = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-option",
        metavar="NAME=VALUE",
        help="An option of the engine; may be repeated.",
        rich_help_panel="Machine",
    ),
]
Dtype = Annotated[
    str | None, typer.Option("--dtype", help="float32, bfloat16 or float16.", rich_help_panel="Machine")
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", help="Images of one forward.", rich_help_panel="Machine")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", help="Processes; one a GPU or a core by default.", rich_help_panel="Machine"),
]
Threads = Annotated[
    int, typer.Option("--threads", help="CPU threads of a worker.", rich_help_panel="Machine")
]
Devices = Annotated[
    str | None,
    typer.Option("--devices", help="GPUs, as 0,1,3; `cpu` for none.", rich_help_panel="Machine"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Partial = Annotated[
    bool,
    typer.Option("--partial", help="Score what is there although images are missing, and say so; exit 0."),
]
JudgeOption = Annotated[
    list[str] | None,
    typer.Option("--judge-option", metavar="NAME=VALUE", help="An option of the judge; may be repeated."),
]
Detector = Annotated[
    str | None, typer.Option("--detector", help="Judge geneval: mask2former (ours) or mmdet, if installed.")
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]


def judge_options(given: list[str] | None, detector: str | None) -> dict[str, Any]:
    """`--judge-option` and its short forms as keyword arguments."""
    return _named("--judge-option", given) | ({} if detector is None else {"detector": detector})


def drawing(given: Mapping[str, Any]) -> dict[str, Any]:
    """What `run` and `generate` are told about the engine; `--local-only` holds from here on."""
    keep_offline(given["local_only"])
    short = {name: given[name] for name in ("visual_tokenizer", "speculate", "image_format")}
    named = _named("--engine-option", given["engine_option"])
    return {"engine_options": named | {name: value for name, value in short.items() if value is not None}}


def keep_offline(local_only: bool) -> None:
    """Ask no hub any more, neither this process nor the workers it starts."""
    if local_only:
        os.environ["SAR_EVAL_OFFLINE"] = "1"


def _named(flag: str, words: list[str] | None) -> dict[str, Any]:
    """`NAME=VALUE` words as options; a value that is no TOML is text."""
    options: dict[str, Any] = {}
    for word in words or []:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise BadInput(f"{flag} is {word!r}: NAME=VALUE")
        try:
            options[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            options[name] = value
    return options
