"""Strict loading of `ImageReward.pt`.

The official package loads with `strict=False`, so that a wrong file leaves random weights without an error.
Here every tensor of the file must be the network's or match `DROPPED`.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from sar_eval.errors import BadInput
from sar_eval.networks.image_reward.network import ImageRewardNetwork
from sar_eval.networks.image_reward.shape import TEXT, VISION, Shape, read_shape
from sar_eval.tensors.mismatch import describe_mismatch
from sar_eval.tensors.weight_files import read_tensors

# BLIP's projections for retrieval and a list of positions: the reward needs neither.
DROPPED = r"blip\.(vision_proj|text_proj)\..+|blip\.text_encoder\.embeddings\.position_ids"
# Parts of transformers' names and of the official ones.
RENAMED = (
    ("vision.embeddings.class_embedding", f"{VISION}cls_token"),
    ("vision.embeddings.position_embedding", f"{VISION}pos_embed"),
    ("vision.embeddings.patch_embedding", f"{VISION}patch_embed.proj"),
    ("vision.encoder.layers.", f"{VISION}blocks."),
    ("vision.post_layernorm", f"{VISION}norm"),
    (".layer_norm1.", ".norm1."),
    (".layer_norm2.", ".norm2."),
    (".self_attn.qkv.", ".attn.qkv."),
    (".self_attn.projection.", ".attn.proj."),
    ("text.", TEXT),
    ("head.", "mlp.layers."),
)


def load(path: Path, dtype: torch.dtype) -> tuple[ImageRewardNetwork, Shape]:
    """The network with the weights of a file, on the CPU.

    Args:
        path: of the official file, or of safetensors with its names; the files in its folder that
            `shape.read_shape` reads tell the numbers of heads.
        dtype: of the weights.

    Raises:
        BadInput: the file is unreadable, holds more than tensors, or is another network's.
    """
    state = {name: t for name, t in read_tensors(path).items() if not re.fullmatch(DROPPED, name)}
    try:
        shape = read_shape(state, path.parent)
    except BadInput as error:
        raise BadInput(f"{path} is no ImageReward: {error}") from error
    with torch.device("meta"):
        network = ImageRewardNetwork(shape)
    expected = {official_name(name): tensor for name, tensor in network.state_dict().items()}
    if mismatch := describe_mismatch(state, expected):
        raise BadInput(f"{path} is no ImageReward: {mismatch}")
    # A position's number is in no file under this name, so the one made on "meta" has no content.
    numbers = torch.arange(shape.positions)[None]
    network.text.embeddings.register_buffer("position_ids", numbers, persistent=False)
    ours = {name: state[official_name(name)].to(dtype) for name in network.state_dict()}
    network.load_state_dict(ours, strict=True, assign=True)
    return network.eval().requires_grad_(False), shape


def official_name(name: str) -> str:
    """The official name of one of our network's tensors."""
    for ours, theirs in RENAMED:
        if ours.startswith("."):
            name = name.replace(ours, theirs)
        elif name.startswith(ours):
            name = theirs + name.removeprefix(ours)
    return name
