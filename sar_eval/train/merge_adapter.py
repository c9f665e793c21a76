"""Merge a LoRA adapter with its base into a checkpoint that draws: `sar-eval ckpt merge`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sar_eval.documents import convert, read_json
from sar_eval.errors import BadInput
from sar_eval.families.locate import locate_folder
from sar_eval.families.simplear import Checkpoint, find_checkpoint
from sar_eval.families.tensor_names import EMBEDDING, HEAD
from sar_eval.tensors.hub import HUB_NAME
from sar_eval.train.checkpoint_writer import ABOUT, ADAPTER, save_checkpoint
from sar_eval.train.model import TrainedDecoder
from sar_eval.train.published import published
from sar_eval.train.start import CheckpointStart
from sar_eval.train.state import make_folder
from sar_eval.types import Json

CONFIG, WEIGHTS = "adapter_config.json", ADAPTER
_AGAIN = "is it the adapter of another base? Name its own with --base"


@dataclass(frozen=True, slots=True)
class _AdapterConfig:
    """What of peft's `adapter_config.json` is looked at here."""

    peft_type: str
    base_model_name_or_path: str | None = None
    revision: str | None = None
    megatron_config: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _About:
    """What of our `sar_eval.json` in an adapter's folder is looked at here; another trainer's has none.

    Attributes:
        base: name of the checkpoint that it was trained on.
        base_digest: of its files.
        visual_tokenizer: folder, from this one, or a name of the hub.
        sizes: height and width in visual tokens of the pictures it was trained on.
        training: what made it.
    """

    base: str = ""
    base_digest: str = ""
    visual_tokenizer: str = ""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    training: dict[str, Json] = field(default_factory=dict)


def merge(adapter: str, out: Path, base: str = "", visual_tokenizer: str = "") -> Checkpoint:
    """Write the base with the adapter's differences added, in float32 and then rounded to bfloat16.

    Args:
        adapter: a folder of peft's, or a name of the hub.
        out: the folder to write.
        base: the checkpoint that it was trained on; by default the one that the adapter names.
        visual_tokenizer: by default the base's.

    Returns:
        The base.

    Raises:
        UnknownName: there is no such adapter or base.
        BadInput: it is no LoRA adapter, or not of this base, or `out` is a finished checkpoint.
        Incomplete: a download was interrupted.
        StorageFailed: the checkpoint cannot be written.
    """
    if (out / ABOUT).exists():
        raise BadInput(f"{out} is already a finished checkpoint: use another --out")
    name, folder = locate_folder(adapter, "adapter", [CONFIG, WEIGHTS, ABOUT])
    config, about = _read_config(folder), _read_about(folder)
    visual = visual_tokenizer or _visual_tokenizer(about, folder)
    found = find_checkpoint(base or _base(config, about, folder), visual)
    if about.base_digest and about.base_digest != found.digest:
        raise BadInput(
            f"{folder} was trained on a base of digest {about.base_digest} ({about.base}), {found.name} "
            f"has {found.digest}: name the right one with --base"
        )
    loaded = CheckpointStart(found).load("sdpa")
    model = merge_into(loaded.model, folder, tied=found.decoder_config.tie_word_embeddings)
    make_folder(out)
    side = found.native_resolution // found.downsample
    training = _training(about, found, name)
    save_checkpoint(
        model, loaded.tokenizer, found.visual_folder, {*about.sizes} or {(side, side)}, out, training
    )
    return found


def merge_into(model: TrainedDecoder, folder: Path, *, tied: bool) -> TrainedDecoder:
    """The decoder with an adapter's differences added to its weights, computed in their precision.

    Raises:
        BadInput: the adapter does not fit, or has numbers that are none.
    """
    from peft import PeftConfig, PeftModel

    tensors = _read_tensors(folder)
    if tied and any(part in name for name in tensors for part in ("embed_tokens", "lm_head")):
        raise BadInput(
            f"{folder} has an adapter of {EMBEDDING} or {HEAD}, which are one in this base: merged with "
            "one use it would change the other. Train it again without them"
        )
    try:
        adapted = PeftModel(model, PeftConfig.from_pretrained(str(folder)))
    except Exception as error:  # whatever peft does not like about a configuration
        first = (str(error).splitlines() or [""])[0]
        raise BadInput(f"{folder / CONFIG}: {type(error).__name__}: {first}; {_AGAIN}") from error
    _load(adapted, tensors, folder)
    try:
        merged: TrainedDecoder = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise BadInput(f"{folder / WEIGHTS} cannot be merged: {error}") from error
    return merged


def _load(adapted: Any, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Put an adapter's tensors into a model that has places for them."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    # Asked for embeddings, peft would ask the hub about the base.
    wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    for name in sorted(wanted.keys() ^ tensors.keys()):
        what = "lacks the tensor" if name in wanted else "has a tensor that the base has no place for,"
        raise BadInput(f"{folder / WEIGHTS} {what} {name}: {_AGAIN}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            shapes = f"{tuple(tensor.shape)}, {tuple(wanted[name].shape)} is needed"
            raise BadInput(f"{folder / WEIGHTS}: {name} is {shapes}: {_AGAIN}")
    set_peft_model_state_dict(adapted, dict(tensors))


def _read_config(folder: Path) -> _AdapterConfig:
    path = folder / CONFIG
    if not path.is_file():
        raise BadInput(f"no {CONFIG} in {folder}: it is no adapter of peft")
    config = convert(read_json(path), _AdapterConfig, str(path))
    if config.peft_type != "LORA":
        raise BadInput(f"{path}: peft_type is {config.peft_type!r}, only 'LORA' can be merged")
    if config.megatron_config:  # peft would import the module that it names
        raise BadInput(f"{path}: adapters of Megatron's layers are not supported")
    return config


def _read_about(folder: Path) -> _About:
    path = folder / ABOUT
    return convert(read_json(path), _About, str(path)) if path.is_file() else _About()


def _base(config: _AdapterConfig, about: _About, folder: Path) -> str:
    """The base's name, in our own file with its commit."""
    if about.base:
        return about.base
    name = config.base_model_name_or_path
    if not name:
        raise BadInput(f"{folder / CONFIG} names no base: name it with --base")
    return f"{name}@{config.revision}" if config.revision and not Path(name).is_dir() else name


def _visual_tokenizer(about: _About, folder: Path) -> str:
    """The visual tokenizer that it was trained with, if it is still there; else the base's is taken."""
    name = about.visual_tokenizer
    if name and (folder / name / "decoder.jit").is_file():
        return str(folder / name)
    return name if HUB_NAME.fullmatch(name) else ""


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error


def _training(about: _About, base: Checkpoint, adapter: str) -> dict[str, Json]:
    """What made the checkpoint, and prompts of test suites that either was trained on."""
    found: dict[str, Json] = {**about.training, "base": published(base.name), "base_digest": base.digest}
    found["adapter"] = published(adapter)
    tested = about.training.get("test_prompts")
    if count := max(base.test_prompts, tested if isinstance(tested, int) else 0):
        found["test_prompts"] = count
    return found
