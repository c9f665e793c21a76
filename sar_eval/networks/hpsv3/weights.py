"""Strict loading of `HPSv3.safetensors`, one tensor at a time: the network has 8 billion numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2VLConfig

from sar_eval.documents import read_json
from sar_eval.errors import BadInput
from sar_eval.networks.hpsv3.network import Hpsv3Network
from sar_eval.networks.hpsv3.picture import FRAMES, MERGE, PATCH
from sar_eval.tensors.mismatch import describe_mismatch
from sar_eval.tensors.weight_files import read_tensors

DROPPED = r"lm_head\.weight"  # the output layer, which the score does not use
RENAMED = (("language_model.", "model."), ("head.", "rm_head."))  # ours and the official class's


def load(path: Path, base: Path, vocabulary: int, dtype: torch.dtype, device: torch.device) -> Hpsv3Network:
    """The network with the weights of a file, on the device.

    Tensors are mapped from the file and converted one by one, so that no second copy of the network is
    made on the way. The head is float32 in any dtype, as officially.

    Args:
        path: of the official file, or a torch file with its names.
        base: folder with the `config.json` of Qwen2-VL-7B-Instruct.
        vocabulary: number of the tokenizer's ids; officially the embedding is cut to them.
        dtype: of the body.
        device: of all weights.

    Raises:
        BadInput: a file is unreadable, holds more than tensors, or is another network's.
    """
    network = _build(base / "config.json", vocabulary)
    state = {name: t for name, t in read_tensors(path).items() if not re.fullmatch(DROPPED, name)}
    names = {official_name(name): name for name in network.state_dict()}
    expected = {name: network.state_dict()[ours] for name, ours in names.items()}
    if mismatch := describe_mismatch(state, expected):
        raise BadInput(f"{path} is no HPSv3 on the base in {base}: {mismatch}")
    converted = {}
    for name, ours in names.items():
        kept = torch.float32 if ours.startswith("head.") else dtype
        converted[ours] = state.pop(name).to(device, kept)
    network.load_state_dict(converted, strict=True, assign=True)
    network.make_rotary()
    return network.eval().requires_grad_(False).to(device)


def official_name(name: str) -> str:
    """The official name of one of our network's tensors."""
    for ours, theirs in RENAMED:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _build(path: Path, vocabulary: int) -> Hpsv3Network:
    """The network of the base's configuration with a vocabulary of another size, without weights.

    Raises:
        BadInput: the file is unreadable or no configuration of HPSv3's base.
    """
    content: Any = read_json(path)
    if not isinstance(content, dict) or content.get("model_type") != "qwen2_vl":
        raise BadInput(f"{path} is no configuration of Qwen2-VL (model_type qwen2_vl)")
    try:
        config: Any = Qwen2VLConfig.from_dict(content)
        config.text_config.vocab_size = vocabulary
        with torch.device("meta"):
            network = Hpsv3Network(config)
    except Exception as error:
        # The library raises errors of many types.
        raise BadInput(f"{path} is no configuration of Qwen2-VL: {error}") from error
    vision, rope = config.vision_config, config.text_config.rope_parameters
    if (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size) != (PATCH, MERGE, FRAMES):
        raise BadInput(f"{path} is not of HPSv3's base: {PATCH} pixels a patch, merged {MERGE} x {MERGE}")
    if rope["rope_type"] != "default":
        raise BadInput(f"{path} is not of HPSv3's base: it stretches positions ({rope})")
    return network
