"""Sizes of an ImageReward network: from its tensors, and the numbers of heads from two small files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sar_eval.documents import read_json
from sar_eval.errors import BadInput

HEAD_WIDTH = 64  # of ViT-L (1024 / 16) and BERT-base (768 / 12)
VISION, TEXT = "blip.visual_encoder.", "blip.text_encoder."


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of both halves.

    Attributes:
        side: of the input, in pixels.
        patch: side of a patch, in pixels.
        vision_width, vision_layers, vision_heads, vision_inner: of the ViT; inner of its feed-forward part.
        text_width, text_layers, text_heads, text_inner: of BERT.
        vocabulary: number of token ids.
        positions: number of text positions.
        head: tensors of the head, by their index in its list of layers: (outputs, inputs).
    """

    side: int
    patch: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    vision_inner: int
    text_width: int
    text_layers: int
    text_heads: int
    text_inner: int
    vocabulary: int
    positions: int
    head: Mapping[int, tuple[int, int]]


def read_shape(state: Mapping[str, Tensor], folder: Path) -> Shape:
    """Sizes of the network that has these tensors.

    Args:
        state: the file's tensors.
        folder: may have `med_config.json` (`num_attention_heads` of BERT) and, for a network of other
            sizes than the released one, `sizes.json` (`num_heads` of the ViT). Without them a head is 64
            wide, as in the released network.

    Raises:
        BadInput: a tensor that tells a size is missing or malformed, or heads that do not divide a width.
    """
    positions, width = _sizes(state, f"{VISION}pos_embed", 3)[1:]
    patch = _sizes(state, f"{VISION}patch_embed.proj.weight", 4)[-1]
    vocabulary, text_width = _sizes(state, f"{TEXT}embeddings.word_embeddings.weight", 2)
    return Shape(
        side=math.isqrt(max(positions - 1, 0)) * patch,
        patch=patch,
        vision_width=width,
        vision_layers=_count(state, rf"{re.escape(VISION)}blocks\.(\d+)\."),
        vision_heads=_heads(folder / "sizes.json", "num_heads", width),
        vision_inner=_sizes(state, f"{VISION}blocks.0.mlp.fc1.weight", 2)[0],
        text_width=text_width,
        text_layers=_count(state, rf"{re.escape(TEXT)}encoder\.layer\.(\d+)\."),
        text_heads=_heads(folder / "med_config.json", "num_attention_heads", text_width),
        text_inner=_sizes(state, f"{TEXT}encoder.layer.0.intermediate.dense.weight", 2)[0],
        vocabulary=vocabulary,
        positions=_sizes(state, f"{TEXT}embeddings.position_embeddings.weight", 2)[0],
        head=_head(state, text_width),
    )


def _sizes(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise BadInput(f"it has no tensor {name!r}")
    shape = tuple(state[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise BadInput(f"tensor {name!r} is {list(shape)}, not one of {dimensions} dimensions")
    return shape


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """Number of layers; of a gap between them, the comparison with the network tells."""
    return len({found[1] for name in state if (found := re.match(pattern, name))})


def _head(state: Mapping[str, Tensor], width: int) -> dict[int, tuple[int, int]]:
    """Linear layers by index; the indices between are dropout's, which does nothing here."""
    names = [name for name in state if re.fullmatch(r"mlp\.layers\.\d{1,4}\.weight", name)]
    if not names:
        raise BadInput("it has no tensor 'mlp.layers.0.weight': BLIP without ImageReward's head")
    layers = {int(name.split(".")[2]): _sizes(state, name, 2) for name in names}
    shapes = {index: (shape[0], shape[1]) for index, shape in sorted(layers.items())}
    outputs = [width, *(out for out, _ in shapes.values())]
    if outputs[:-1] != [inputs for _, inputs in shapes.values()] or outputs[-1] != 1:
        raise BadInput(
            f"the layers of its head do not lead from {width} numbers to one: {list(shapes.values())}"
        )
    return shapes


def _heads(path: Path, key: str, width: int) -> int:
    """Number of attention heads: from a file if there is one, else for heads of the released width."""
    heads: Any = width // HEAD_WIDTH
    if path.is_file():
        content = read_json(path)
        heads = content.get(key) if isinstance(content, dict) else None
    if type(heads) is not int or heads < 1 or width % heads:
        raise BadInput(f"{key} is {heads!r}, which does not divide the width {width} (see {path})")
    return heads
