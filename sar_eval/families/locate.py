"""Where a checkpoint is: shipped, in a folder, or on the Hugging Face hub.

Names: `demo:NAME` ships with sar-eval; a folder; `ORG/NAME` or `ORG/NAME@REVISION` (a branch, tag or
commit) is downloaded into the hub's own cache, tokenizers and weights only, never code. The visual
tokenizer is specified by `visual_tokenizer` in the folder's `sar_eval.json`, by `--visual-tokenizer`, or is
the published Cosmos tokenizer.

`SAR_EVAL_OFFLINE=1` or `HF_HUB_OFFLINE=1` uses the cache alone, without any request.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sar_eval.errors import BadInput, Incomplete, UnknownName
from sar_eval.tensors.hub import HUB_NAME, snapshot, snapshot_with_weights

DEMO = Path(__file__).parents[1] / "demo"
COSMOS_REPO = "nvidia/Cosmos-1.0-Tokenizer-DV8x16x16"
CHECKPOINT_FILES = ["*.json", "*.safetensors", "merges.txt", "vocab.txt"]
VISUAL_TOKENIZER_FILES = ["config.json", "encoder.jit", "decoder.jit"]


@dataclass(frozen=True, slots=True)
class Location:
    """Folders of a checkpoint; `name` identifies the same files later (a hub name has its commit)."""

    name: str
    folder: Path
    visual_folder: Path


def locate(name: str, visual_tokenizer: str = "") -> Location:
    """Find a checkpoint and its visual tokenizer; what is only on the hub is downloaded.

    Raises:
        UnknownName: there is no checkpoint of that name.
        BadInput: the hub has no such repository or revision, or requires a login; or offline and
            not cached.
        Incomplete: the download was interrupted; the same command resumes it.
    """
    pinned, folder = _checkpoint_folder(name)
    return Location(pinned, folder, _visual_folder(folder, visual_tokenizer))


def demo_names() -> list[str]:
    """Names of the checkpoints that ship with sar-eval, as accepted by `--ckpt`."""
    return sorted(f"demo:{path.parent.name}" for path in DEMO.glob("*/model.safetensors"))


def _checkpoint_folder(name: str) -> tuple[str, Path]:
    if name.startswith("demo:"):
        if name not in demo_names():
            raise UnknownName(_unknown(name))
        return name, DEMO / name.removeprefix("demo:")
    if Path(name).is_dir():
        return str(Path(name).resolve()), Path(name)
    if not HUB_NAME.fullmatch(name):
        raise UnknownName(_unknown(name))
    folder = snapshot_with_weights(name, CHECKPOINT_FILES)
    return f"{name.partition('@')[0]}@{folder.name}", folder


def _unknown(name: str) -> str:
    matches = difflib.get_close_matches(name, demo_names(), 1)
    hint = f"; did you mean {matches[0]!r}?" if matches else f"; shipped are {', '.join(demo_names())}"
    return (
        f"unknown checkpoint {name!r}: it is neither a folder nor a shipped checkpoint nor a hub name "
        f"(ORG/NAME or ORG/NAME@REVISION){hint}"
    )


def _visual_folder(folder: Path, requested: str) -> Path:
    """The requested one, else the one that `sar_eval.json` names, else Cosmos from the hub."""
    if requested and (Path(requested).is_dir() or not HUB_NAME.fullmatch(requested)):
        return Path(requested).resolve()
    path = folder / "sar_eval.json"
    if requested or not path.is_file():
        try:
            return snapshot(requested or COSMOS_REPO, VISUAL_TOKENIZER_FILES)
        except (BadInput, Incomplete) as error:
            hint = "name a folder with encoder.jit and decoder.jit: --visual-tokenizer FOLDER"
            raise type(error)(f"no visual tokenizer for {folder}: {error}; or {hint}") from error
    try:
        config: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is no JSON: {error}") from error
    name = config.get("visual_tokenizer") if isinstance(config, dict) else None
    if not isinstance(name, str):
        raise BadInput(f"{path} names no visual_tokenizer (a folder, as text)")
    return (folder / name).resolve()
