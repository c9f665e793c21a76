"""Where a checkpoint is: shipped, in a folder, or on the Hugging Face hub.

Names: `demo:NAME` ships with sar-eval; a folder; `ORG/NAME` or `ORG/NAME@REVISION` (a branch, tag or
commit) is downloaded into the hub's own cache, tokenizers and weights only, never code. The visual
tokenizer is named by `visual_tokenizer` in the folder's `sar_eval.json`, by `--visual-tokenizer`, or is
the published Cosmos pair.

`SAR_EVAL_OFFLINE=1` or `HF_HUB_OFFLINE=1` takes what the cache holds and asks nobody.
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
    """Folders of a checkpoint; `name` finds the same files again (a hub name is pinned to its commit)."""

    name: str
    folder: Path
    visual_folder: Path


def locate(name: str, visual_tokenizer: str = "") -> Location:
    """Find a checkpoint and its visual tokenizer, downloading what is on the hub only.

    Raises:
        UnknownName: nothing is called so.
        BadInput: the hub has no such repository or revision, or wants a login; or nothing is cached.
        Incomplete: the download broke off; the same command goes on with it.
    """
    pinned, folder = _checkpoint_folder(name)
    return Location(pinned, folder, _visual_folder(folder, visual_tokenizer))


def demo_names() -> list[str]:
    """The checkpoints that ship with sar-eval, as `--ckpt` takes them."""
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
    near = difflib.get_close_matches(name, demo_names(), 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; shipped are {', '.join(demo_names())}"
    return (
        f"unknown checkpoint {name!r}: it is neither a folder nor a shipped checkpoint nor a hub name "
        f"(ORG/NAME or ORG/NAME@REVISION){hint}"
    )


def _visual_folder(folder: Path, given: str) -> Path:
    """The one asked for, else the one beside the checkpoint, else Cosmos from the hub."""
    if given and (Path(given).is_dir() or not HUB_NAME.fullmatch(given)):
        return Path(given).resolve()
    place = folder / "sar_eval.json"
    if given or not place.is_file():
        try:
            return snapshot(given or COSMOS_REPO, VISUAL_TOKENIZER_FILES)
        except (BadInput, Incomplete) as error:
            hint = "name a folder with encoder.jit and decoder.jit: --visual-tokenizer FOLDER"
            raise type(error)(f"no visual tokenizer for {folder}: {error}; or {hint}") from error
    try:
        named: Any = json.loads(place.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"{place} is no JSON: {error}") from error
    named = named.get("visual_tokenizer") if isinstance(named, dict) else None
    if not isinstance(named, str):
        raise BadInput(f"{place} names no visual_tokenizer (a folder, as text)")
    return (folder / named).resolve()
