"""CLIP's weights from every form they are published in, under open_clip's names.

OpenAI's are TorchScript archives in half precision, LAION's and HPSv2's torch files or safetensors with
open_clip's names, PickScore's and Hugging Face's copies of OpenAI's `CLIPModel` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.tensors.git_lfs import refuse_pointer
from sar_eval.tensors.torchscript import is_torchscript, load_torchscript
from sar_eval.tensors.weight_files import read_tensors

State = dict[str, Tensor]
# Numbers that archives hold beside the weights.
NON_WEIGHTS = {
    *("input_resolution", "context_length", "vocab_size"),
    *("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"),
}
# Beginnings of names, Hugging Face's to open_clip's.
HF_PREFIXES = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.": "visual.conv1.",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",  # so spelt
    "vision_model.post_layernorm.": "visual.ln_post.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "visual_projection.weight": "visual.proj",
    "text_model.embeddings.token_embedding.": "token_embedding.",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.": "ln_final.",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "text_projection.weight": "text_projection",
}
HF_PARTS = {
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
    ".self_attn.": ".attn.",
}


def read_state(path: Path) -> State:
    """Tensors by open_clip's names, in the precision of the file.

    Raises:
        BadInput: the file is unreadable, or holds anything but tensors by name.
    """
    refuse_pointer(path)
    try:
        if path.suffix != ".safetensors" and is_torchscript(path):
            state: State = dict(load_torchscript(path).state_dict())
        else:
            state = read_tensors(path)
    except BadInput as error:
        raise BadInput(f"{path} holds no readable CLIP weights: {error}") from error
    state = {name: tensor for name, tensor in state.items() if name not in NON_WEIGHTS}
    return rename_hf(state) if "visual_projection.weight" in state else state


def rename_hf(state: Mapping[str, Tensor]) -> State:
    """Hugging Face's names to open_clip's: projections transposed; q, k and v in one tensor."""
    renamed: State = {}
    for name, tensor in state.items():
        new = _open_clip_name(name)
        renamed[new] = tensor.T.contiguous() if new in ("visual.proj", "text_projection") else tensor
    for name in [name for name in renamed if ".attn.q_proj." in name]:
        parts = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        if all(part in renamed for part in parts):
            joined = torch.cat([renamed.pop(part) for part in parts])
            renamed[name.replace(".q_proj.", ".in_proj_")] = joined
    return renamed


def _open_clip_name(name: str) -> str:
    for old, new in HF_PREFIXES.items():
        if name.startswith(old):
            name = new + name.removeprefix(old)
            break
    for old, new in HF_PARTS.items():
        name = name.replace(old, new)
    return name
