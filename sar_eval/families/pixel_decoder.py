"""From visual codes to pixels, one picture at a time: its bits do not depend on its batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.families.decoder_tensors import MatchedDecoder

ToGrey = Callable[[Tensor], Tensor]


class DecodedImages(NamedTuple):
    """Images of a decoder.

    Attributes:
        pixels: RGB uint8 `[B, H, W, 3]`; values outside [-1, 1] are clipped.
        finite: bool `[B]`, whether all values of an image were numbers; NaN has no colour.
    """

    pixels: Tensor
    finite: Tensor


def truncated(pixels: Tensor) -> Tensor:
    """`(x + 1) / 2 * 255` between 0 and 255; made whole, it loses its fraction. Janus and Emu3."""
    return ((pixels + 1) / 2 * 255).clamp(0, 255)


def rounded_half_up(pixels: Tensor) -> Tensor:
    """`127.5 x + 128` between 0 and 255: half a level more than `truncated`. LlamaGen."""
    return (127.5 * pixels + 128.0).clamp(0, 255)


class PixelDecoder:
    """Decodes codes to pixels.

    Attributes:
        codebook_size: how many codes there are.
        downsample: pixels along one side that a code becomes.
    """

    def __init__(
        self,
        matched: MatchedDecoder,
        tensors: Mapping[str, Tensor],
        to_grey: ToGrey,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        at_once: int = 1,
    ) -> None:
        """Load the network.

        Args:
            matched: which tensors are the decoder's.
            tensors: by their names in the file, at least those of `matched.stored.values()`.
            to_grey: from float32 about -1 to 1 to levels 0 to 255, whose fraction is then cut off.
            device: where it computes.
            dtype: in which it computes, whatever the file holds.
            at_once: pictures in one call of the network. With 1 a picture's bits do not depend on what is
                decoded beside it, and memory is that of one picture; more is faster on a GPU, and moves
                values by rounding.

        Raises:
            BadInput: a tensor is missing, or is no plain floating-point number.
        """
        self.where, self.to_grey, self.at_once = matched.where, to_grey, at_once
        self.codebook_size, self.downsample = matched.shape.codes, matched.shape.downsample
        self.network = matched.load(tensors, device, dtype)
        self.device = torch.device(device)

    def for_codes(self, codes: int, pixels: int) -> Self:
        """This decoder, if it is one for a network of so many codes of so many pixels along one side.

        Raises:
            BadInput: it is not; the message names its file.
        """
        if (self.codebook_size, self.downsample) != (codes, pixels):
            raise BadInput(
                f"{self.where}: the picture decoder has {self.codebook_size} codes of {self.downsample} "
                f"pixels, and {codes} of {pixels} are needed"
            )
        return self

    def decode_floats(self, codes: Tensor) -> Tensor:
        """Decode codes `[B, h, w]` to float32 `[B, 3, H, W]` on the CPU, about -1 to 1 and not clipped.

        Raises:
            BadInput: a code is outside the codebook.
        """
        return torch.cat([part.cpu() for part in self._parts(codes)])

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> DecodedImages:
        """Decode codes `[B, h, w]`, any grid, to images on the CPU.

        Raises:
            BadInput: a code is outside the codebook.
        """
        images = [self._to_images(part) for part in self._parts(codes)]
        pixels, finite = (torch.cat(parts) for parts in zip(*images, strict=True))
        return DecodedImages(pixels, finite)

    def _to_images(self, pixels: Tensor) -> DecodedImages:
        """Whole grey levels; where a value is no number, 0."""
        grey = self.to_grey(pixels).nan_to_num(0.0).to(torch.uint8)
        return DecodedImages(grey.permute(0, 2, 3, 1).cpu(), pixels.isfinite().flatten(1).all(1).cpu())

    @torch.inference_mode()
    def _parts(self, codes: Tensor) -> Iterator[Tensor]:
        """Float32 pixels of `at_once` pictures after the other."""
        low, high = (int(code) for code in codes.aminmax())
        if low < 0 or high >= self.codebook_size:
            # On a GPU a look-up outside the table ends the process.
            wrong = low if low < 0 else high
            raise BadInput(
                f"{self.where}: code {wrong} is none of the codebook's 0..{self.codebook_size - 1}"
            )
        for part in codes.split(self.at_once):
            yield self.network(part.to(self.device, torch.long)).float()
