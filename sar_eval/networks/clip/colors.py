"""Zero-shot colour classification of objects with OpenAI's CLIP, as in GenEval's script.

Crops are scored against three texts for each colour (`evaluation/evaluate_images.py` of
https://github.com/djghosh13/geneval, which calls CLIP_benchmark's zero-shot classifier):
text features are normalised, averaged over the three, normalised again; logits are 100 times the
cosine. OpenAI trained with QuickGELU; with plain GELU the same weights give other logits, so a model
without it is refused. The network is shared with the scorers that use the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sar_eval.discover import need
from sar_eval.networks.clip.held import HeldClip
from sar_eval.networks.clip.source import OPENAI_L14, ClipSource

TEMPLATES = (
    "a photo of a {color} {name}",
    "a photo of a {color}-colored {name}",
    "a photo of a {color} object",
)
OFFICIAL = OPENAI_L14.architecture
LOGIT_SCALE = 100.0  # of CLIP_benchmark's run_classification


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
        """Hold a CLIP network, loaded if nobody has it; `close` gives it back.

        Args:
            colors: the classes.
            weights: OpenAI's TorchScript archive, a torch file without code, or safetensors.
            model: the architecture, a name in open_clip or a .json file in its format.
            device: torch device.
            dtype: float32 is official on the CPU; bfloat16 and float16 are faster on a GPU.

        Raises:
            BadInput: unknown architecture, one without QuickGELU, or weights that do not fit it.
        """
        self.colors = tuple(colors)
        open_clip = need("open_clip", extra="geneval", what="judge 'geneval'")
        self._held = HeldClip(ClipSource(OPENAI_L14, weights, model, device, dtype))
        self.network = self._held.__enter__()
        self.model = self.network.model
        self.transform = open_clip.image_transform(self.model.visual.image_size, is_train=False)
        self.tokenize = open_clip.get_tokenizer(OFFICIAL)  # OpenAI's BPE, the same for every size
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

    def close(self) -> None:
        """Give the network back."""
        self._held.__exit__()

    def image_features(self, images: Tensor) -> Tensor:
        """Unit vectors float32 `[N, D]` of preprocessed images `[N, 3, H, W]`."""
        features = self.model.encode_image(images.to(self.network.device, self.network.dtype))
        return _normalize(features.float())

    def text_features(self, name: str) -> Tensor:
        """One unit vector for each colour, float32 `[colours, D]`, for objects of class `name`; cached."""
        if name not in self._text_features:
            texts = [t.format(color=color, name=name) for color in self.colors for t in TEMPLATES]
            features: Tensor = self.model.encode_text(self.tokenize(texts).to(self.network.device))
            grouped = _normalize(features.float()).view(len(self.colors), len(TEMPLATES), -1)
            self._text_features[name] = _normalize(grouped.mean(1))
        return self._text_features[name]


def _normalize(features: Tensor) -> Tensor:
    return F.normalize(features, dim=-1)
