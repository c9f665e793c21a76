"""Feature vectors of pictures by vision transformers: CLIP for CMMD, DINOv2 for FD-DINOv2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sar_eval.discover import need
from sar_eval.errors import BadInput
from sar_eval.tensors.mismatch import describe_mismatch
from sar_eval.tensors.torchscript import is_torchscript, load_torchscript
from sar_eval.tensors.weight_files import read_tensors

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINO_SIZE = 224  # dgm-eval's, whatever the network was trained with
DINO_OFFSET = 0.1  # of DINOv2's position grid, see `_position_grid`
OPENAI_HEAD = 64  # channels of an attention head in all of OpenAI's vision transformers
BICUBIC = Image.Resampling.BICUBIC
# From OpenAI's names of a CLIP picture tower to those of transformers.
_NAMES = (
    (r"^class_embedding$", "embeddings.class_embedding"),
    (r"^conv1\.", "embeddings.patch_embedding."),
    (r"^positional_embedding$", "embeddings.position_embedding.weight"),
    (r"^ln_pre\.", "pre_layrnorm."),
    (r"^ln_post\.", "post_layernorm."),
    (r"^transformer\.resblocks\.(\d+)\.", r"encoder.layers.\1."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)


class ClipTower(nn.Module):
    """CLIP's picture tower with its projection, as CMMD uses it."""

    def __init__(self, path: Path) -> None:
        """Load OpenAI's archive (a file), or a folder of transformers.

        Raises:
            BadInput: unreadable, or no CLIP picture tower.
            MissingExtra: transformers is not installed.
        """
        super().__init__()
        transformers = need("transformers", extra="geneval", what="CMMD")
        kind = transformers.CLIPVisionModelWithProjection
        self.model = _pretrained(kind, path) if path.is_dir() else _from_openai(transformers, path)
        self.size = int(self.model.config.image_size)

    def prepare(self, image: Image.Image) -> Tensor:
        """Square from the middle, Pillow's bicubic filter, CLIP's normalisation (the authors' order)."""
        side = min(image.size)
        left, top = ((length - side) // 2 for length in image.size)
        square = image.crop((left, top, left + side, top + side)).resize((self.size, self.size), BICUBIC)
        return _normalized(square, CLIP_MEAN, CLIP_STD)

    def forward(self, pixels: Tensor) -> Tensor:
        """Unit vectors `[N, D]` of `[N, 3, S, S]`."""
        return F.normalize(self.model(pixel_values=pixels).image_embeds, dim=-1)


class DinoTower(nn.Module):
    """DINOv2's class token, as dgm-eval uses it."""

    def __init__(self, path: Path) -> None:
        """Load a folder of transformers.

        Raises:
            BadInput: no such folder, unreadable, or no DINOv2.
            MissingExtra: transformers is not installed.
        """
        super().__init__()
        if not path.is_dir():
            raise BadInput(f"{path} is no folder of DINOv2 (config.json and model.safetensors)")
        transformers = need("transformers", extra="geneval", what="FD-DINOv2")
        self.model = _pretrained(transformers.Dinov2Model, path)
        embeddings = self.model.embeddings
        cells = DINO_SIZE // int(self.model.config.patch_size)
        embeddings.position_embeddings = nn.Parameter(_position_grid(embeddings.position_embeddings, cells))

    def prepare(self, image: Image.Image) -> Tensor:
        """Squashed to 224 x 224 by Pillow's bicubic filter, ImageNet's normalisation."""
        return _normalized(image.resize((DINO_SIZE, DINO_SIZE), BICUBIC), IMAGENET_MEAN, IMAGENET_STD)

    def forward(self, pixels: Tensor) -> Tensor:
        """Vectors `[N, D]`, not normalised, of `[N, 3, 224, 224]`."""
        return self.model(pixel_values=pixels).last_hidden_state[:, 0]  # type: ignore[no-any-return]


def _position_grid(positions: Tensor, cells: int) -> Tensor:
    """Position embeddings `[1, 1 + N, D]` for a grid of `cells` by `cells`.

    DINOv2's own code stretches the grid by (cells + 0.1) / sqrt(N), not by cells / sqrt(N) as transformers
    does: positions are sampled elsewhere, and features differ. At the trained size nothing is stretched.
    """
    side = int((positions.shape[1] - 1) ** 0.5)
    if side == cells:
        return positions.detach()
    grid = positions[:, 1:].detach().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (cells + DINO_OFFSET) / side
    stretched = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1].detach(), stretched.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def _normalized(image: Image.Image, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Float32 `[3, H, W]` of an RGB picture."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def _pretrained(kind: Any, folder: Path) -> Any:
    """A network of transformers with all its weights.

    Raises:
        BadInput: transformers cannot load it, or weights are missing.
    """
    try:
        model, info = kind.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
    except Exception as error:  # transformers and the libraries below it raise errors of many types
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"transformers cannot load {folder} as {kind.__name__}: {first}") from error
    # transformers initialises missing weights at random, with only a warning.
    if missing := sorted(map(str, {*info["missing_keys"], *info["mismatched_keys"]})):
        raise BadInput(f"{folder} is no {kind.__name__}: it lacks {missing[0]} (and {len(missing) - 1} more)")
    return model.eval().requires_grad_(False)


def _from_openai(transformers: Any, path: Path) -> Any:
    """The picture tower of OpenAI's archive; its sizes are those of its tensors."""
    tensors = load_torchscript(path).state_dict() if is_torchscript(path) else read_tensors(path)
    tower = {n.removeprefix("visual."): t.float() for n, t in tensors.items() if n.startswith("visual.")}
    if "conv1.weight" not in tower or "proj" not in tower:
        raise BadInput(f"{path} holds no CLIP vision transformer: `sar-eval fetch scorers clip-l14-336`")
    model = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**_sizes(tower)))
    state = _renamed(tower)
    if mismatch := describe_mismatch(state, model.state_dict()):
        raise BadInput(f"{path} does not fit CLIP's picture tower: {mismatch}")
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def _sizes(tower: Mapping[str, Tensor]) -> dict[str, Any]:
    width, _, patch, _ = tower["conv1.weight"].shape
    cells = round((len(tower["positional_embedding"]) - 1) ** 0.5)
    layers = {found[1] for name in tower if (found := re.match(r"transformer\.resblocks\.(\d+)\.", name))}
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, width // OPENAI_HEAD),
        "image_size": cells * patch,
        "patch_size": patch,
        "projection_dim": tower["proj"].shape[1],
        "hidden_act": "quick_gelu",
    }


def _renamed(tower: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the names of transformers; query, key and value are apart there."""
    state = {"visual_projection.weight": tower["proj"].T.contiguous()}
    for name, tensor in tower.items():
        renamed = name
        for pattern, replacement in _NAMES:
            renamed = re.sub(pattern, replacement, renamed)
        if found := re.search(r"(.*)\.attn\.in_proj_(weight|bias)$", renamed):
            parts = zip("qkv", tensor.chunk(3), strict=True)
            state |= {f"vision_model.{found[1]}.self_attn.{p}_proj.{found[2]}": t for p, t in parts}
        elif name != "proj":
            state[f"vision_model.{renamed}"] = tensor
    return state
