"""Rewards of pictures and prompts with a loaded ImageReward."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.networks.clip.transforms import openai_square
from sar_eval.networks.clip_pixels import normalize
from sar_eval.networks.image_reward import weights
from sar_eval.networks.image_reward.tokenizer import Encoded, PromptTokenizer

Pixels = NDArray[np.uint8]


class Reward(NamedTuple):
    """A picture's reward for its prompt, and whether the prompt was cut to 35 tokens."""

    value: float
    truncated: bool


class ImageReward:
    """The network with loaded weights and its tokenizer."""

    def __init__(
        self, path: Path, vocabulary: Path, *, device: str = "cpu", dtype: str = "float32"
    ) -> None:
        """Load both.

        Args:
            path: of the weights.
            vocabulary: of bert-base-uncased, a `vocab.txt`.
            device: torch device.
            dtype: of weights and activations; float32 is official on any device.

        Raises:
            BadInput: files that are unreadable, of another network, or do not fit together.
        """
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.tokenizer = PromptTokenizer(vocabulary)
        self.network, shape = weights.load(path, self.dtype)
        if self.tokenizer.size != shape.vocabulary:
            raise BadInput(
                f"{vocabulary} and BLIP's two tokens make {self.tokenizer.size} ids, but {path} has "
                f"{shape.vocabulary}: the file must be bert-base-uncased's vocabulary, unchanged"
            )
        self.side = shape.side
        self.network.to(self.device)

    def prepare(self, image: Image.Image) -> Pixels:
        """The network's input of a picture as stored in its file, uint8 `[side, side, 3]`.

        The transform of image-reward 1.5 is OpenAI CLIP's.

        Raises:
            BadInput: an extreme aspect ratio.
        """
        return np.array(openai_square(image, self.side))

    @torch.inference_mode()
    def score(self, pictures: Sequence[Pixels], prompts: Sequence[str]) -> list[Reward]:
        """Rewards of prepared pictures, as one batch. A value may be NaN in float16."""
        encoded = [self.tokenizer.encode(prompt) for prompt in prompts]
        tokens = self.network.encode_pictures(self.pixels(pictures))
        values = self.network.reward(self.first_tokens(tokens, encoded)).tolist()
        return [Reward(value, text.truncated) for value, text in zip(values, encoded, strict=True)]

    def pixels(self, pictures: Sequence[Pixels]) -> Tensor:
        """Normalised pictures `[B, 3, side, side]` on the device."""
        batch = torch.from_numpy(np.stack(pictures)).to(self.device)
        return normalize(batch).to(self.dtype)

    def first_tokens(self, picture_tokens: Tensor, encoded: Sequence[Encoded]) -> Tensor:
        """Hidden state `[B, text width]` of each prompt's [CLS], which has seen its picture."""
        ids = torch.tensor([text.ids for text in encoded])
        mask = torch.arange(ids.shape[1]) < torch.tensor([[text.length] for text in encoded])
        return self.network.encode_prompts(ids.to(self.device), mask.long().to(self.device), picture_tokens)
