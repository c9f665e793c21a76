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
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sar_eval.errors import BadInput, Incomplete, UnknownName

DEMO = Path(__file__).parents[1] / "demo"
COSMOS_REPO = "nvidia/Cosmos-1.0-Tokenizer-DV8x16x16"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
COMMIT = re.compile(r"[0-9a-f]{40}")
WANTED = {
    "checkpoint": ["*.json", "*.safetensors", "merges.txt", "vocab.txt"],
    "torch checkpoint": ["pytorch_model*.bin"],
    "answering network": ["*.json", "*.jinja", "*.safetensors", "*.txt", "*.model"],
    "visual tokenizer": ["config.json", "encoder.jit", "decoder.jit"],
}


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
    folder = snapshot(name, WANTED["checkpoint"])
    if not list(folder.glob("*.safetensors")):
        folder = snapshot(name, WANTED["torch checkpoint"])
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
            return snapshot(given or COSMOS_REPO, WANTED["visual tokenizer"])
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


def snapshot(name: str, patterns: list[str]) -> Path:
    """The folder of a hub repository's files in the hub's cache; it is called by the commit.

    Args:
        name: ORG/NAME or ORG/NAME@REVISION.
        patterns: of the files that are wanted.

    Raises:
        BadInput: the hub has no such repository or revision, or wants a login; or nothing is cached.
        Incomplete: the download broke off; the same command goes on with it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    offline = any(os.environ.get(key) == "1" for key in ("SAR_EVAL_OFFLINE", "HF_HUB_OFFLINE"))
    try:
        return Path(
            snapshot_download(
                repository, revision=revision or None, allow_patterns=patterns, local_files_only=offline
            )
        )
    except LocalEntryNotFoundError as error:
        told = "nothing of it is cached and the hub is not asked" if offline else "the hub does not answer"
        raise BadInput(f"cannot get {name!r}: it is no folder, and {told}") from error
    except HFValidationError as error:
        raise BadInput(f"cannot get {name!r}: {error}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        told = _told(name, status)
        raise (BadInput(told) if 400 <= status < 500 else Incomplete(told)) from error
    except OSError as error:
        told = f"the download of {name!r} broke off ({error}): run the same command again"
        raise Incomplete(told) from error


def _told(name: str, status: int) -> str:
    if status in (401, 403):
        return f"the hub keeps {name!r} from us ({status}): accept its terms there, then set HF_TOKEN"
    if status == 404:
        return f"the hub has no {name!r}: check the name and the revision"
    return f"the hub answers {status} for {name!r}: run the same command again"
