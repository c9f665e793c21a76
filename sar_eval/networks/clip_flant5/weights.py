"""Load CLIP-FlanT5 from the released files, in whatever form: one file or several, torch or safetensors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sar_eval.discover import need
from sar_eval.documents import read_json
from sar_eval.errors import BadInput
from sar_eval.networks.clip_flant5.network import ClipFlanT5
from sar_eval.tensors.digests import file_digest
from sar_eval.tensors.mismatch import describe_mismatch
from sar_eval.tensors.published_weights import checksum_path, recorded_sha256
from sar_eval.tensors.weight_files import read_tensors

CONFIG = "config.json"
PATTERNS = ("model*.safetensors", "pytorch_model*.bin")  # the first of which a folder has files
TOWER_PREFIX = "vision_tower.vision_tower."
# Copies of `shared.weight`, and a buffer.
COPIES = re.compile(r"((encoder|decoder)\.)?embed_tokens\.weight|tower\.embeddings\.position_ids")
_LAYER = re.compile(r"tower\.encoder\.layers\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Files:
    """Where the parts of the network are.

    Attributes:
        model: folder of T5, projector and (usually) tower.
        tower: folder of the tower's configuration, and of its weights where `model` has none.
        tokenizer: folder of `spiece.model`.
    """

    model: Path
    tower: Path
    tokenizer: Path

    def digest(self) -> str:
        """SHA-256 over everything that scores depend on, 8 hex digits.

        Raises:
            BadInput: a file is missing.
        """
        paths = [self.model / CONFIG, *weight_files(self.model), *sorted(self.tower.glob("*.json"))]
        paths += sorted(self.tokenizer.glob("spiece.model"))
        if not has_tower(self.model):
            paths += weight_files(self.tower)
        return hashlib.sha256("".join(map(_digest, paths)).encode()).hexdigest()[:8]


def weight_files(folder: Path) -> list[Path]:
    """The files of a folder's tensors.

    Raises:
        BadInput: there are none.
    """
    for pattern in PATTERNS:
        if found := sorted(folder.glob(pattern)):
            return found
    raise BadInput(f"no weights in {folder}: `sar-eval fetch scorers vqascore` downloads them")


def has_tower(folder: Path) -> bool:
    """Whether a folder's files hold the tower; an index says so without their being read."""
    for path in folder.glob("*.index.json"):
        index = read_json(path)
        names = index.get("weight_map", {}) if isinstance(index, dict) else {}
        return any(str(name).startswith(TOWER_PREFIX) for name in names)
    return any(
        name.startswith(TOWER_PREFIX) for path in weight_files(folder) for name in read_tensors(path)
    )


def load_network(files: Files, dtype: torch.dtype, device: str) -> ClipFlanT5:
    """The network in evaluation mode.

    Raises:
        BadInput: a configuration of another network, or tensors that are missing, unknown or of another
            shape.
        MissingExtra: transformers is not installed.
    """
    need("transformers", extra="scorers", what="scorer 'vqascore'")
    from transformers import CLIPVisionConfig, T5Config

    config = _read_config(files.model)
    tower = read_json(files.tower / CONFIG)
    with torch.device("meta"):
        network = ClipFlanT5(
            T5Config(**config | {"tie_word_embeddings": False, "model_type": "t5"}),
            CLIPVisionConfig(**tower.get("vision_config", tower)),
            int(config["mm_vision_select_layer"]),
        )
    state = dict(_tensors(files, network.tower.config.num_hidden_layers, dtype))
    if problem := describe_mismatch(state, network.state_dict()):
        raise BadInput(f"{files.model} does not fit CLIP-FlanT5: {problem}")
    network.load_state_dict(state, assign=True)
    embeddings = network.tower.embeddings
    # A buffer that no file has.
    embeddings.register_buffer(
        "position_ids", torch.arange(embeddings.num_positions)[None], persistent=False
    )
    return network.eval().to(device)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    config = read_json(path)
    expected = {
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
    }
    if not isinstance(config, dict) or "mm_vision_select_layer" not in config:
        raise BadInput(f"{path} is no configuration of CLIP-FlanT5: it has no mm_vision_select_layer")
    for name, value in expected.items():
        if config.get(name, value) != value:
            raise BadInput(f"{path}: {name} is {config[name]!r}; VQAScore's network has {value!r}")
    return config


def _tensors(files: Files, layers: int, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """The network's tensors by its names; those of layers that are not run are left out."""
    folders = [files.model] if has_tower(files.model) else [files.model, files.tower]
    for path in (path for folder in folders for path in weight_files(folder)):
        is_tower = path.parent == files.tower and len(folders) > 1
        for name, tensor in read_tensors(path).items():
            own = _own_name(name, is_tower)
            layer = _LAYER.match(own)
            if own and not COPIES.fullmatch(own) and not (layer and int(layer[1]) >= layers):
                yield own, tensor.to(dtype, copy=True) if tensor.is_floating_point() else tensor


def _own_name(name: str, is_tower: bool) -> str:
    """What the network calls a file's tensor; "" for those of CLIP's text half."""
    if not is_tower and not name.startswith(TOWER_PREFIX):
        return name
    own = name.removeprefix(TOWER_PREFIX)
    if is_tower and not own.startswith("vision_model."):
        return ""
    return f"tower.{own.removeprefix('vision_model.')}"


def _digest(path: Path) -> str:
    """SHA-256; that of the download's record unless the file is younger: some have tens of gigabytes."""
    if not path.is_file():
        raise BadInput(f"no {path}: `sar-eval fetch scorers vqascore` downloads it")
    record = checksum_path(path)
    if record.is_file() and record.stat().st_mtime >= path.stat().st_mtime:
        return recorded_sha256(path)
    return file_digest(path)
