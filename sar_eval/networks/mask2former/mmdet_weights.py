"""Strict conversion of mmdet's Mask2Former checkpoints to transformers' names and layout.

mmdet 2 and 3 name the parts of the transformer layers differently; both are read. Two layouts differ:
mmdet stores q, k and v of an attention as one matrix, and its patch merging orders the input by
channel, then row, then column, where transformers has the pixels (0, 0), (1, 0), (0, 1), (1, 1) one
after the other, each with all its channels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sar_eval.documents import parse_json
from sar_eval.errors import BadInput
from sar_eval.tensors.converted import ConvertedWeights, State, convert_once, read_converted
from sar_eval.tensors.digests import file_digest
from sar_eval.tensors.git_lfs import refuse_pointer
from sar_eval.tensors.weight_files import unpickling_error

NAME = "Mask2Former"  # in error messages
LEVELS, POINTS = 3, 4  # of the deformable attention in every published Mask2Former

_MMDET2_TO_MMDET3 = (
    (r"(pixel_decoder\.encoder\.layers\.\d+)\.attentions\.0\.", r"\1.self_attn."),
    (r"(transformer_decoder\.layers\.\d+)\.attentions\.0\.", r"\1.cross_attn."),
    (r"(transformer_decoder\.layers\.\d+)\.attentions\.1\.", r"\1.self_attn."),
    (r"\.ffns\.0\.", r".ffn."),
)
_SWIN = "model.pixel_level_module.encoder."
_PIXELS = "model.pixel_level_module.decoder."
_PREFIXES = ("model.", "class_predictor.")  # of all tensors of transformers' model
_QUERIES = "model.transformer_module."
# The decoder's layers have cross-attention first, then self-attention.
_MMDET3_TO_TRANSFORMERS = (
    (r"backbone\.patch_embed\.projection\.", _SWIN + r"swin.embeddings.patch_embeddings.projection."),
    (r"backbone\.patch_embed\.norm\.", _SWIN + r"swin.embeddings.norm."),
    (r"backbone\.norm0\.", _SWIN + r"hidden_states_norms.stage1."),
    (r"backbone\.norm1\.", _SWIN + r"hidden_states_norms.stage2."),
    (r"backbone\.norm2\.", _SWIN + r"hidden_states_norms.stage3."),
    (r"backbone\.norm3\.", _SWIN + r"hidden_states_norms.stage4."),
    (r"backbone\.stages\.(\d+)\.downsample\.", _SWIN + r"swin.encoder.layers.\1.downsample."),
    (r"backbone\.stages\.(\d+)\.blocks\.(\d+)\.", _SWIN + r"swin.encoder.layers.\1.blocks.\2."),
    (
        r"attn\.w_msa\.relative_position_bias_table",
        "attention.relative_position_bias.relative_position_bias_table",
    ),
    (r"attn\.w_msa\.([qkv])\.", r"attention.\1_proj."),
    (r"attn\.w_msa\.proj\.", "attention.o_proj."),
    (r"(blocks\.\d+)\.norm1\.", r"\1.layernorm_before."),
    (r"(blocks\.\d+)\.norm2\.", r"\1.layernorm_after."),
    (r"(blocks\.\d+)\.ffn\.layers\.0\.0\.", r"\1.mlp.fc1."),
    (r"(blocks\.\d+)\.ffn\.layers\.1\.", r"\1.mlp.fc2."),
    (r"panoptic_head\.pixel_decoder\.input_convs\.(\d+)\.conv\.", _PIXELS + r"input_projections.\1.0."),
    (r"panoptic_head\.pixel_decoder\.input_convs\.(\d+)\.gn\.", _PIXELS + r"input_projections.\1.1."),
    (
        r"panoptic_head\.pixel_decoder\.encoder\.layers\.(\d+)\.norms\.0\.",
        _PIXELS + r"encoder.layers.\1.self_attn_layer_norm.",
    ),
    (
        r"panoptic_head\.pixel_decoder\.encoder\.layers\.(\d+)\.norms\.1\.",
        _PIXELS + r"encoder.layers.\1.final_layer_norm.",
    ),
    (r"panoptic_head\.pixel_decoder\.encoder\.", _PIXELS + "encoder."),
    (r"panoptic_head\.pixel_decoder\.level_encoding\.weight", _PIXELS + "level_embed"),
    (r"panoptic_head\.pixel_decoder\.lateral_convs\.0\.conv\.", _PIXELS + "adapter_1.0."),
    (r"panoptic_head\.pixel_decoder\.lateral_convs\.0\.gn\.", _PIXELS + "adapter_1.1."),
    (r"panoptic_head\.pixel_decoder\.output_convs\.0\.conv\.", _PIXELS + "layer_1.0."),
    (r"panoptic_head\.pixel_decoder\.output_convs\.0\.gn\.", _PIXELS + "layer_1.1."),
    (r"panoptic_head\.pixel_decoder\.mask_feature\.", _PIXELS + "mask_projection."),
    (
        r"panoptic_head\.transformer_decoder\.layers\.(\d+)\.norms\.0\.",
        _QUERIES + r"decoder.layers.\1.cross_attn_layer_norm.",
    ),
    (
        r"panoptic_head\.transformer_decoder\.layers\.(\d+)\.norms\.1\.",
        _QUERIES + r"decoder.layers.\1.self_attn_layer_norm.",
    ),
    (
        r"panoptic_head\.transformer_decoder\.layers\.(\d+)\.norms\.2\.",
        _QUERIES + r"decoder.layers.\1.final_layer_norm.",
    ),
    (
        r"panoptic_head\.transformer_decoder\.layers\.(\d+)\.cross_attn\.attn\.",
        _QUERIES + r"decoder.layers.\1.cross_attn.",
    ),
    (
        r"panoptic_head\.transformer_decoder\.layers\.(\d+)\.self_attn\.attn\.([qkv])\.",
        _QUERIES + r"decoder.layers.\1.self_attn.\2_proj.",
    ),
    (
        r"panoptic_head\.transformer_decoder\.layers\.(\d+)\.self_attn\.attn\.",
        _QUERIES + r"decoder.layers.\1.self_attn.",
    ),
    (r"panoptic_head\.transformer_decoder\.layers\.(\d+)\.", _QUERIES + r"decoder.layers.\1."),
    (r"panoptic_head\.transformer_decoder\.post_norm\.", _QUERIES + "decoder.layernorm."),
    (r"(layers\.\d+)\.ffn\.layers\.0\.0\.", r"\1.fc1."),
    (r"(layers\.\d+)\.ffn\.layers\.1\.", r"\1.fc2."),
    (r"panoptic_head\.mask_embed\.0\.", _QUERIES + "decoder.mask_predictor.mask_embedder.0.0."),
    (r"panoptic_head\.mask_embed\.2\.", _QUERIES + "decoder.mask_predictor.mask_embedder.1.0."),
    (r"panoptic_head\.mask_embed\.4\.", _QUERIES + "decoder.mask_predictor.mask_embedder.2.0."),
    (r"panoptic_head\.query_embed\.", _QUERIES + "queries_embedder."),
    (r"panoptic_head\.query_feat\.", _QUERIES + "queries_features."),
    (r"panoptic_head\.level_embed\.", _QUERIES + "level_embed."),
    (r"panoptic_head\.cls_embed\.", "class_predictor."),
)
# Recomputed by transformers, or used in training only.
_DROPPED = re.compile(r".*relative_position_index$|panoptic_head\.loss_cls\..*")


def convert(state: Mapping[str, Tensor]) -> State:
    """mmdet's tensors under transformers' names."""
    converted: State = {}
    for name, tensor in state.items():
        if not _DROPPED.match(name):
            parts = _convert_layout(mmdet3_name(name), tensor)
            converted |= {_transformers_name(part): t for part, t in parts.items()}
    return converted


def mmdet3_name(name: str) -> str:
    """A tensor's name in mmdet 3 from that in mmdet 2 or 3."""
    for old, new in _MMDET2_TO_MMDET3:
        name = re.sub(old, new, name)
    return name


def _transformers_name(name: str) -> str:
    for old, new in _MMDET3_TO_TRANSFORMERS:
        name = re.sub(old, new, name)
    return name


def _convert_layout(name: str, tensor: Tensor) -> State:
    """Split q, k and v, and reorder patch merging; other tensors are unchanged."""
    if ".w_msa.qkv." in name:
        return {
            name.replace(".qkv.", f".{part}."): t for part, t in zip("qkv", tensor.chunk(3), strict=True)
        }
    if ".self_attn.attn.in_proj_" in name:
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {name.replace(".in_proj_", f".{part}."): t for part, t in parts}
    if ".downsample." in name:
        return {name: _reorder_patch_merging(tensor)}
    return {name: tensor}


def _reorder_patch_merging(tensor: Tensor) -> Tensor:
    """The last axis from (channel, row, column) to (column, row, channel)."""
    channels = tensor.shape[-1] // 4
    blocks = tensor.unflatten(-1, (channels, 2, 2))
    reordered: Tensor = blocks.movedim((-1, -2, -3), (-3, -2, -1)).flatten(-3).contiguous()
    return reordered


def infer_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Keyword arguments of `Mask2FormerConfig` (and of `SwinConfig`, as `backbone_config`).

    `state` has transformers' names. The tensors' shapes determine all of it, also the number of attention
    heads: each has 4 points on each of 3 levels.
    """
    swin = f"{_SWIN}swin.encoder.layers"
    depths = [
        _count(state, rf"{swin}\.{stage}\.blocks\.(\d+)\.")
        for stage in range(_count(state, rf"{swin}\.(\d+)\."))
    ]
    tables = [
        state[f"{swin}.{stage}.blocks.0.attention.relative_position_bias.relative_position_bias_table"]
        for stage in range(len(depths))
    ]
    backbone = {
        "embed_dim": state[f"{_SWIN}swin.embeddings.norm.weight"].numel(),
        "depths": depths,
        "num_heads": [table.shape[1] for table in tables],
        "window_size": (round(tables[0].shape[0] ** 0.5) + 1) // 2,
        "out_features": [f"stage{i + 1}" for i in range(len(depths))],
    }
    queries, hidden = state[f"{_QUERIES}queries_features.weight"].shape
    points = state[f"{_PIXELS}encoder.layers.0.self_attn.attention_weights.weight"].shape[0]
    return {
        "backbone_config": backbone,
        "feature_size": hidden,
        "mask_feature_size": state[f"{_PIXELS}mask_projection.weight"].shape[0],
        "hidden_dim": hidden,
        "num_attention_heads": points // (LEVELS * POINTS),
        "encoder_feedforward_dim": state[f"{_PIXELS}encoder.layers.0.fc1.weight"].shape[0],
        "encoder_layers": _count(state, rf"{_PIXELS}encoder\.layers\.(\d+)\."),
        "dim_feedforward": state[f"{_QUERIES}decoder.layers.0.fc1.weight"].shape[0],
        # transformers counts the prediction before the first layer as a layer.
        "decoder_layers": _count(state, rf"{_QUERIES}decoder\.layers\.(\d+)\.") + 1,
        "num_queries": queries,
        "num_labels": state["class_predictor.weight"].shape[0] - 1,
    }


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    numbers = [int(match[1]) for match in (re.match(pattern, name) for name in state) if match]
    if not numbers:
        raise KeyError(pattern)
    return max(numbers) + 1


class Weights(NamedTuple):
    """A detector's tensors under transformers' names.

    Attributes:
        state: the tensors.
        config: see `infer_config`.
        digest: SHA-256 of mmdet's file, whether that or its conversion was read; of a conversion
            without a record of its source, its own.
    """

    state: State
    config: dict[str, Any]
    digest: str


def read_weights(path: Path) -> Weights:
    """Read mmdet's checkpoint (`.pth`) or a converted one (`.safetensors`).

    mmdet's file is converted once (see `tensors.converted`).

    Raises:
        BadInput: the file is missing, unreadable, or no Mask2Former.
    """
    _require_file(path)
    if path.suffix == ".safetensors":
        weights = read_converted(path, NAME)
    else:
        weights = convert_once(path, lambda: _read_mmdet(path), NAME)
    try:
        config = parse_json(weights.metadata["config"], f"{path}: config")
    except KeyError as error:
        raise BadInput(f"{path} is no converted {NAME} ({error})") from error
    if not isinstance(config, dict):
        raise BadInput(f"{path} is no converted {NAME} (its configuration is no table)")
    return Weights(weights.state, config, weights.metadata.get("source") or file_digest(path))


def read_checkpoint(path: Path) -> State:
    """The tensors of mmdet's checkpoint under mmdet's names; no code in the file is run.

    Raises:
        BadInput: the file is missing or unreadable, or holds something else than tensors by name.
    """
    _require_file(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # On invalid data the unpickler may raise any exception.
        raise BadInput(
            f"{path} is no Mask2Former checkpoint of mmdet: {unpickling_error(error)}"
        ) from error
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise BadInput(f"{path} is no Mask2Former checkpoint of mmdet: no tensors by name in it")
    return state


def _read_mmdet(path: Path) -> ConvertedWeights:
    state = convert(read_checkpoint(path))
    if unknown := sorted(name for name in state if not name.startswith(_PREFIXES)):
        raise BadInput(
            f"{path} is no Mask2Former checkpoint of mmdet with a Swin backbone: "
            f"{len(unknown)} of its tensors are no part of one ({unknown[0]}, ...)"
        )
    try:
        return ConvertedWeights(state, {"config": json.dumps(infer_config(state))})
    except (LookupError, ValueError) as error:
        raise BadInput(f"{path} is no Mask2Former checkpoint of mmdet: it has no {error}") from error


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise BadInput(f"no detector weights {path}: get them with `sar-eval fetch geneval`")
    refuse_pointer(path)
