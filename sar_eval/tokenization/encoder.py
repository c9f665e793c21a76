"""Pictures to visual codes, in batches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sar_eval.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor


class CodeEncoder:
    """The encoder of a visual tokenizer, whose codes are checked. Loaded when it is first used."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Read the tokenizer's `config.json`.

        Raises:
            BadInput: there is no tokenizer in this folder.
        """
        from sar_eval.families.cosmos import VisualTokenizer

        self.visual = VisualTokenizer(folder, device)

    @property
    def patch(self) -> int:
        """Pixels that a token covers along a side."""
        return self.visual.downsample

    @property
    def multiples(self) -> tuple[int, int]:
        """Pixels of whose multiples a picture's height and width are."""
        return self.visual.downsample, self.visual.columns

    @property
    def metadata(self) -> dict[str, str]:
        """What shards say of their codes."""
        return {
            "codebook_size": str(self.visual.codebook_size),
            "encoder": self.visual.encoder_digest,
            "downsample": str(self.visual.downsample),
        }

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.integer]:
        """Codes `[B, h * w]` in raster order of RGB uint8 `[B, H, W, 3]`, sides multiples of the patch.

        Where the device's memory does not suffice, the batch is halved.

        Raises:
            BadInput: `encoder.jit` is none, or gives codes that its `config.json` does not know.
        """
        import torch

        from sar_eval.tensors.out_of_memory import is_out_of_memory

        try:
            codes = self.visual.encode(torch.from_numpy(images))
        except (RuntimeError, TypeError, IndexError, AttributeError) as error:
            if not is_out_of_memory(error):
                raise self._no_encoder(str(error).splitlines()[-1]) from error
            if len(images) == 1:
                raise
            half = len(images) // 2
        else:
            return self._checked(codes, images.shape)
        return np.concatenate([self.encode(images[:half]), self.encode(images[half:])])

    def _checked(self, codes: Tensor, shape: tuple[int, ...]) -> NDArray[np.integer]:
        tokens = (shape[1] // self.patch) * (shape[2] // self.patch)
        if tuple(codes.shape) != (shape[0], tokens):
            raise self._no_encoder(
                f"{list(codes.shape)} codes for pictures {list(shape)}, not {[shape[0], tokens]}"
            )
        low, high = int(codes.min()), int(codes.max())
        if low < 0 or high >= self.visual.codebook_size:
            raise BadInput(
                f"{self.visual.folder / 'encoder.jit'} gives codes from {low} to {high}, the config.json "
                f"beside it says that there are {self.visual.codebook_size}"
            )
        return codes.numpy()

    def _no_encoder(self, why: str) -> BadInput:
        return BadInput(f"{self.visual.folder / 'encoder.jit'} does not turn images into codes: {why}")
