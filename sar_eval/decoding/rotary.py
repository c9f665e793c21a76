"""Cosines and sines of rotary position embedding (arXiv 2104.09864), of slots or of a picture's places.

Dimension i of a head is paired with i + head_dim / 2. Families that pair neighbours have the rows of their
queries and keys reordered when they are read, so that one rotation serves all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sar_eval.families.decoder_config import DecoderConfig


class SlotRotary:
    """Angles of a token's slot."""

    def __init__(self, config: DecoderConfig, like: Tensor) -> None:
        exponents = torch.arange(0, config.head_dim, 2, device=like.device).float() / config.head_dim
        self.inverse_frequencies = 1.0 / config.rope_theta**exponents

    def __call__(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines `[R, 1, T, head_dim]` of slots `[R, T]`."""
        angles = positions[..., None].float() * self.inverse_frequencies
        angles = torch.cat([angles, angles], -1)[:, None]
        return angles.cos().to(dtype), angles.sin().to(dtype)


class GridRotary:
    """Angles of an image token's place: half of a head's pairs turn by its row, half by its column.

    Source: LlamaGen's `gpt.py` (Sun et al., arXiv 2406.06525). There a prefix has neither angle nor length:
    cosine and sine are both 0, so its queries and keys are zero vectors.
    """

    def __init__(self, config: DecoderConfig, grid: tuple[int, int], like: Tensor) -> None:
        half, (rows, columns) = config.head_dim // 2, grid
        exponents = torch.arange(0, half, 2, device=like.device).float() / half
        inverse_frequencies = 1.0 / config.rope_theta**exponents
        places = torch.arange(rows * columns, device=like.device)[:, None]
        angles = torch.cat(
            [places // columns * inverse_frequencies, places % columns * inverse_frequencies], -1
        )
        angles = torch.cat([angles, angles], -1)
        self.cos, self.sin = angles.cos().to(like.dtype), angles.sin().to(like.dtype)

    def prefix(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines `[R, 1, T, head_dim]` of a prefix in slots `[R, T]`: zeros."""
        zeros = self.cos.new_zeros((*positions.shape, self.cos.shape[1]))[:, None]
        return zeros, zeros

    def __call__(self, positions: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines `[R, 1, T, head_dim]` of image tokens, in the dtype of the weights.

        Args:
            positions: their slots `[R, T]`.
            starts: slots `[R, 1]` of the rows' first image tokens.
        """
        # A window may reach past the last place, where nothing is kept; before the first one is an error.
        places = (positions - starts).clamp(max=len(self.cos) - 1)
        return F.embedding(places, self.cos)[:, None], F.embedding(places, self.sin)[:, None]
