"""Zero-shot colour classification of objects with OpenAI's CLIP, as in GenEval's script.

Crops are scored against three texts for each colour (`evaluation/evaluate_images.py` of
https://github.com/djghosh13/geneval, which calls CLIP_benchmark's zero-shot classifier):
text features are normalised, averaged over the three, normalised again; logits are 100 times the
cosine. OpenAI trained with QuickGELU, x * sigmoid(1.702 x); with plain GELU the same weights give
other logits, so a model without QuickGELU is refused.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sar_eval.discover import need
from sar_eval.errors import BadInput
from sar_eval.tensors.git_lfs import refuse_pointer
from sar_eval.tensors.mismatch import describe_mismatch
from sar_eval.tensors.torchscript import load_torchscript
from sar_eval.tensors.weight_files import unpickling_error

TEMPLATES = (
    "a photo of a {color} {name}",
    "a photo of a {color}-colored {name}",
    "a photo of a {color} object",
)
OFFICIAL = "ViT-L-14-quickgelu"
LOGIT_SCALE = 100.0  # of CLIP_benchmark's run_classification
NON_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # buffers in OpenAI's archives


class ColorClassifier:
    """Classifies the colour of cropped objects."""

    def __init__(
        self,
        colors: Sequence[str],
        weights: Path,
        *,
        model: str = OFFICIAL,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        """Build a CLIP model and load its weights.

        Args:
            colors: the classes.
            weights: OpenAI's TorchScript archive, a torch file without code, or safetensors.
            model: the architecture, a name in open_clip or a .json file in its format.
            device: torch device.
            dtype: float32 is official on the CPU; bfloat16 and float16 are faster on a GPU.

        Raises:
            BadInput: unknown architecture, one without QuickGELU, or weights that do not fit it.
        """
        self.colors, self.device, self.dtype = tuple(colors), torch.device(device), getattr(torch, dtype)
        self.open_clip = need("open_clip", extra="geneval", what="judge 'geneval'")
        self.model = _build(self.open_clip, model)
        _check_activation(self.model, model)
        _load(self.model, weights)
        self.model.eval().to(self.device, self.dtype)
        self.transform = self.open_clip.image_transform(self.model.visual.image_size, is_train=False)
        self.tokenize = self.open_clip.get_tokenizer(OFFICIAL)  # OpenAI's BPE, the same for every size
        self._text_features: dict[str, Tensor] = {}  # by class name

    @torch.inference_mode()
    def classify(
        self, crops: Sequence[Image.Image], names: Sequence[str], batch_size: int = 64
    ) -> list[dict[str, float]]:
        """Probability of every colour for each crop; `names[i]` is the class of the object in crop i."""
        probabilities: list[dict[str, float]] = []
        for start in range(0, len(crops), batch_size):
            stop = start + batch_size
            images = torch.stack([self.transform(crop) for crop in crops[start:stop]])
            texts = torch.stack([self.text_features(name) for name in names[start:stop]])
            logits = LOGIT_SCALE * torch.einsum("nd,ncd->nc", self.image_features(images), texts)
            rows = logits.softmax(-1).tolist()
            probabilities += [dict(zip(self.colors, row, strict=True)) for row in rows]
        return probabilities

    def image_features(self, images: Tensor) -> Tensor:
        """Unit vectors float32 `[N, D]` of preprocessed images `[N, 3, H, W]`."""
        features = self.model.encode_image(images.to(self.device, self.dtype))
        return _normalize(features.float())

    def text_features(self, name: str) -> Tensor:
        """One unit vector for each colour, float32 `[colours, D]`, for objects of class `name`; cached."""
        if name not in self._text_features:
            texts = [t.format(color=color, name=name) for color in self.colors for t in TEMPLATES]
            features: Tensor = self.model.encode_text(self.tokenize(texts).to(self.device))
            grouped = _normalize(features.float()).view(len(self.colors), len(TEMPLATES), -1)
            self._text_features[name] = _normalize(grouped.mean(1))
        return self._text_features[name]


def _normalize(features: Tensor) -> Tensor:
    return F.normalize(features, dim=-1)


def _build(open_clip: Any, model: str) -> Any:
    """The architecture with random weights."""
    name = Path(model).stem if model.endswith(".json") else model
    if model.endswith(".json"):
        if not Path(model).is_file():
            raise BadInput(f"no CLIP configuration {model}")
        open_clip.add_model_config(Path(model))
    if name not in open_clip.list_models():
        raise BadInput(f"open_clip has no model {name!r}; the official one is {OFFICIAL}")
    logging.disable(logging.WARNING)  # open_clip warns that no weights were loaded
    try:
        return open_clip.create_model(name)
    finally:
        logging.disable(logging.NOTSET)


def _check_activation(model: Any, name: str) -> None:
    """Both towers must use QuickGELU in every block.

    Raises:
        BadInput: a block uses another activation.
    """
    towers = {"image": model.visual.transformer, "text": model.transformer}
    for tower, transformer in towers.items():
        for block in transformer.resblocks:
            activation = type(block.mlp.gelu).__name__
            if activation != "QuickGELU":
                raise BadInput(
                    f"CLIP model {name!r} has {activation} in its {tower} tower, but OpenAI's weights were "
                    f'trained with QuickGELU: use {OFFICIAL}, or a configuration with "quick_gelu": true'
                )


def _load(model: Any, weights: Path) -> None:
    """Load strictly, as float32.

    Raises:
        BadInput: the file is unreadable, or its tensors do not fit the model.
    """
    if not weights.is_file():
        raise BadInput(f"no CLIP weights {weights}: get them with `sar-eval fetch geneval`")
    state = {k: v.float() for k, v in _read(weights).items() if k not in NON_WEIGHTS}
    if mismatch := describe_mismatch(state, model.state_dict()):
        raise BadInput(f"{weights} does not fit the CLIP model: {mismatch}")
    model.load_state_dict(state, strict=True)


def _read(weights: Path) -> Mapping[str, Tensor]:
    from safetensors.torch import load_file

    refuse_pointer(weights)
    try:
        if weights.suffix == ".safetensors":
            return load_file(weights)
        if _is_torchscript(weights):
            return dict(load_torchscript(weights).state_dict())
        checkpoint = torch.load(weights, map_location="cpu", weights_only=True)
        return dict(checkpoint.get("state_dict", checkpoint))
    except BadInput:
        raise
    except Exception as error:
        # On invalid data the unpickler may raise any exception.
        raise BadInput(f"{weights} holds no readable CLIP weights: {unpickling_error(error)}") from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
