"""The visual tokenizer: Cosmos' two TorchScript files, or any two with the same interface.

`encoder.jit` maps `[B, 3, 1, H, W]` in [-1, 1] to `(indices [B, 1, h, w], codes)`, `decoder.jit`
maps indices back to `[B, 3, 1, H, W]`. `config.json` beside them contains `codebook_size` and
`downsample` (pixels per token, along one side), and `columns`, where a picture's width is a multiple of
more pixels; without it the values of Cosmos-1.0-Tokenizer-DV8x16x16 are used.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.families.pixel_decoder import DecodedImages
from sar_eval.families.simplear import visual_setting
from sar_eval.tensors.out_of_memory import is_out_of_memory
from sar_eval.tensors.torchscript import load_torchscript


class VisualTokenizer:
    """Pixels to visual codes and back. Encoder and decoder are loaded when they are first used.

    Both are programs of their publisher; `tensors.torchscript_check` refuses what is more than arithmetic.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Read the folder's `config.json`.

        Raises:
            BadInput: the folder or one of the two files is missing.
        """
        for name in ("encoder.jit", "decoder.jit"):
            if not (folder / name).is_file():
                raise BadInput(
                    f"no {name} in {folder}: a visual tokenizer is a folder with both .jit files"
                )
        self.folder, self.device = folder, torch.device(device)
        self.codebook_size = visual_setting(folder, "codebook_size")
        self.downsample = visual_setting(folder, "downsample")
        self.columns = visual_setting(folder, "columns")

    @cached_property
    def encoder_digest(self) -> str:
        """SHA-256 of `encoder.jit`, 16 hex digits; codes of different encoders are not interchangeable."""
        with (self.folder / "encoder.jit").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    @cached_property
    def _encoder(self) -> Any:
        return load_torchscript(self.folder / "encoder.jit", self.device)

    @cached_property
    def _decoder(self) -> Any:
        return load_torchscript(self.folder / "decoder.jit", self.device)

    def load_decoder(self) -> None:
        """Load the decoder now, so that a file which cannot be used is told before anything is drawn.

        Raises:
            BadInput: `decoder.jit` is damaged, or its program is not allowed.
        """
        _ = self._decoder

    def _pixels(self, grid: Tensor) -> Tensor:
        """Decode codes `[B, 1, h, w]` to pixels `[B, 3, H, W]`.

        Raises:
            BadInput: `decoder.jit` returns something else.
        """
        try:
            pixels = self._decoder(grid)
        except RuntimeError as error:
            # Raised by a TorchScript function that is not a decoder; a device's own errors read otherwise.
            if "The following operation failed in the TorchScript interpreter" not in str(error):
                raise
            if is_out_of_memory(error):
                raise
            pixels = None
        shape = (len(grid), 3, 1, *(side * self.downsample for side in grid.shape[2:]))
        if not isinstance(pixels, Tensor) or tuple(pixels.shape) != shape:
            raise BadInput(
                f"{self.folder / 'decoder.jit'} does not turn codes into pixels {list(shape)}: is it "
                "another file, or are encoder.jit and decoder.jit swapped?"
            )
        return pixels.squeeze(2)

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """RGB uint8 `[B, H, W, 3]` to codes int32 `[B, h * w]` in raster order."""
        pixels = images.to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        indices: Tensor = self._encoder(pixels.unsqueeze(2))[0]
        return indices.flatten(1).cpu()

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> DecodedImages:
        """Decode codes `[B, h, w]` to images on the CPU."""
        pixels = self._pixels(codes.to(self.device).unsqueeze(1)).float()
        finite = pixels.isfinite().flatten(1).all(1)
        # Rounding as in torchvision's save_image: scale to 255, add one half, truncate.
        scaled = ((pixels + 1) / 2).clamp(0, 1).mul(255).add(0.5).clamp(0, 255)
        return DecodedImages(scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu(), finite.cpu())
