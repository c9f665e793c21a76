"""An image tokenizer whose codes say shape and colour apart, so that the two recombine.

A picture is read as flat shapes on one background: each pixel is `background + coverage * (foreground -
background)`. A region of 8 x 16 pixels gets two codes, side by side in the raster, where `fsq` gives one to
each half of it:

* a *shape code* of its coverage, which has no colour in it: a red and a blue star get equal ones;
* a *colour code* of the background and of the foreground colour of each half.

Each goes through an encoder, a quantizer and a decoder of its own, and the decoder puts the layers together
by the formula above. So a star in a colour that no training image had consists of codes that all of them
had. Files and interface are those of `fsq`; shape codes are numbered first, colour codes behind them.
"""

from typing import Final

import torch
from torch import Tensor, nn

from sar_eval.families.fsq import DOWNSAMPLE, Quantizer, Residual

COLUMNS = 2 * DOWNSAMPLE  # pixels that a region is wide; it is DOWNSAMPLE high
NEAR = 9  # side of the window whose strongest contrast is full coverage: shapes are 4 pixels apart or more
MIN_CONTRAST = 0.3  # of values in [-1, 1], as a distance in RGB; a window with less shows background
GRADES = 16  # of coverage: demo pictures have 4 x 4 samples a pixel, so this undoes the rounding to uint8


def pair_columns(x: Tensor) -> Tensor:
    """`[B, C, h, w]` to `[B, 2C, h, w / 2]`: channels of a left column, then of its right neighbour."""
    batch, channels, height, width = x.shape
    pairs = x.view(batch, channels, height, width // 2, 2).permute(0, 4, 1, 2, 3)
    return pairs.reshape(batch, 2 * channels, height, width // 2)


def part_columns(x: Tensor) -> Tensor:
    """The inverse of `pair_columns`: `[B, 2C, h, w]` to `[B, C, h, 2w]`."""
    batch, channels, height, width = x.shape
    pairs = x.view(batch, 2, channels // 2, height, width).permute(0, 2, 3, 4, 1)
    return pairs.reshape(batch, channels // 2, height, 2 * width)


class Layers(nn.Module):
    """Takes a picture apart: how much of each pixel a shape covers, and the colours of each region.

    Nothing here is trained.
    """

    min_contrast: Final[float]
    grades: Final[int]

    def __init__(self) -> None:
        super().__init__()
        self.min_contrast, self.grades = MIN_CONTRAST, GRADES
        self.strongest = nn.MaxPool2d(NEAR, 1, NEAR // 2)
        self.mean = nn.AvgPool2d(DOWNSAMPLE)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Coverage `[B, 1, H, W]` and colours `[B, 9, H / 8, W / 16]` of images `[B, 3, H, W]`."""
        # The median is the background's: shapes cover less than half of a picture.
        background = images.flatten(2).median(2)[0].unsqueeze(2).unsqueeze(3)
        offset = images - background
        coverage = self.coverage(offset)
        return coverage, self.colors(background, offset, coverage)

    def coverage(self, offset: Tensor) -> Tensor:
        """How much of each pixel a shape covers, 0 to 1, from its offset to the background `[B, 3, H, W]`.

        The contrast of a pixel that is covered by a share of `a` is `a` times its shape's own, which the
        strongest pixel near it has; the quotient is the same for any colour.
        """
        contrast = offset.square().sum(1, keepdim=True).sqrt()
        strongest: Tensor = self.strongest(contrast)
        shares = contrast / strongest.clamp(min=self.min_contrast)
        shows = (strongest > self.min_contrast).to(shares.dtype)
        return shows * (shares * self.grades).round() / self.grades

    def colors(self, background: Tensor, offset: Tensor, coverage: Tensor) -> Tensor:
        """Background and foreground of the left and of the right half of each region.

        The foreground is the least-squares solution of `offset = coverage * (foreground - background)`. A
        half that shows nothing has its neighbour's, which leaves fewer different codes.
        """
        weight = self.mean(coverage.square())
        own = self.mean(coverage * offset) / weight.clamp(min=1e-6)
        left, right = pair_columns(own).chunk(2, 1)
        has_left, has_right = (pair_columns(weight) > 0).chunk(2, 1)
        halves = torch.cat((torch.where(has_left, left, right), torch.where(has_right, right, left)), 1)
        ground = background.expand(-1, -1, halves.shape[2], halves.shape[3])
        return torch.cat((ground, halves + background.repeat(1, 2, 1, 1)), 1)


class PairColumns(nn.Module):
    """`pair_columns` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, h, w]` to `[B, 2C, h, w / 2]`."""
        return pair_columns(x)


class PartColumns(nn.Module):
    """`part_columns` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 2C, h, w]` to `[B, C, h, 2w]`."""
        return part_columns(x)


class FactoredEncoder(nn.Module):
    """Images to quantised shape and colour codes, region by region."""

    def __init__(self, levels: list[int], color_levels: list[int], width: int) -> None:
        super().__init__()
        self.layers = Layers()
        self.shape_quantizer, self.color_quantizer = Quantizer(levels), Quantizer(color_levels)
        self.shapes = nn.Sequential(
            nn.PixelUnshuffle(DOWNSAMPLE),
            PairColumns(),
            nn.Conv2d(DOWNSAMPLE * COLUMNS, 4 * width, 1),
            nn.SiLU(),
            nn.Conv2d(4 * width, 4 * width, 1),
            nn.SiLU(),
            nn.Conv2d(4 * width, width * 3 // 2, 1),
            nn.SiLU(),
            nn.Conv2d(width * 3 // 2, len(levels), 1),
        )
        self.colors = nn.Sequential(
            nn.Conv2d(9, width, 1),
            nn.SiLU(),
            nn.Conv2d(width, width, 1),
            nn.SiLU(),
            nn.Conv2d(width, len(color_levels), 1),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, 3, H, W]` in [-1, 1] to shape and colour codes `[B, C, H / 8, W / 16]` in [-1, 1]."""
        coverage, colors = self.layers(images)
        shapes = self.shape_quantizer(self.shapes(coverage * 2 - 1))
        return shapes, self.color_quantizer(self.colors(colors))


class FactoredDecoder(nn.Module):
    """Shape codes to coverage by convolutions, colour codes to colours, both to images."""

    def __init__(self, levels: list[int], color_levels: list[int], width: int) -> None:
        super().__init__()
        hidden = width * 3 // 2
        self.shapes = nn.Sequential(
            nn.Conv2d(len(levels), hidden, 3, padding=1),
            Residual(hidden),
            nn.Conv2d(hidden, width * 8, 1),
            PartColumns(),
            nn.PixelShuffle(2),
            Residual(width),
            Residual(width),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, 16, 3, padding=1),
            nn.PixelShuffle(4),
            nn.Sigmoid(),
        )
        self.colors = nn.Sequential(
            nn.Conv2d(len(color_levels), width, 1),
            nn.SiLU(),
            nn.Conv2d(width, width, 1),
            nn.SiLU(),
            nn.Conv2d(width, 9, 1),
        )
        self.enlarge = nn.Upsample(scale_factor=DOWNSAMPLE)

    def forward(self, shapes: Tensor, colors: Tensor) -> Tensor:
        """Shape and colour codes `[B, C, h, w]` to images `[B, 3, 8h, 16w]`."""
        ground, halves = self.colors(colors).split([3, 6], 1)
        background = ground.mean([2, 3], keepdim=True)
        foreground = self.enlarge(part_columns(halves))
        images: Tensor = background + self.shapes(shapes) * (foreground - background)
        return images


class FactoredAutoencoder(nn.Module):
    """Pixels to shape and colour codes and back."""

    def __init__(self, levels: list[int], color_levels: list[int], width: int = 64) -> None:
        super().__init__()
        self.encoder = FactoredEncoder(levels, color_levels, width)
        self.decoder = FactoredDecoder(levels, color_levels, width)

    def forward(self, images: Tensor) -> Tensor:
        """Reconstruction of images `[B, 3, H, W]` in [-1, 1]."""
        shapes, colors = self.encoder(images)
        decoded: Tensor = self.decoder(shapes, colors)
        return decoded


class FactoredEncoderContract(nn.Module):
    """`encoder.jit`: the encoder with the interface of the Cosmos discrete image tokenizer."""

    def __init__(self, model: FactoredAutoencoder) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.first_color = model.encoder.shape_quantizer.codebook_size

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, 3, 1, H, W]` in [-1, 1] to `(indices [B, 1, H/8, W/8], codes [B, C, 1, H/8, W/16])`.

        Even columns have shape codes, odd ones the colour codes of the same region.
        """
        shapes, colors = self.encoder(images.squeeze(2))
        of_shape = self.encoder.shape_quantizer.to_indices(shapes)
        of_color = self.encoder.color_quantizer.to_indices(colors) + self.first_color
        indices = torch.stack((of_shape, of_color), 3).flatten(2)
        return indices.unsqueeze(1).to(torch.int32), torch.cat((shapes, colors), 1).unsqueeze(2)


class FactoredDecoderContract(nn.Module):
    """`decoder.jit`: the decoder with the interface of the Cosmos discrete image tokenizer."""

    def __init__(self, model: FactoredAutoencoder) -> None:
        super().__init__()
        self.decoder = model.decoder
        self.shape_quantizer = model.encoder.shape_quantizer
        self.color_quantizer = model.encoder.color_quantizer
        self.first_color = model.encoder.shape_quantizer.codebook_size

    def forward(self, indices: Tensor) -> Tensor:
        """`[B, 1, h, w]` codes to pixels `[B, 3, 1, 8h, 8w]` in [-1, 1].

        A code of the other kind, which a decoder may predict by mistake, counts as some code of this one.
        """
        pairs = indices.squeeze(1).unflatten(2, [-1, 2])
        shapes = self.shape_quantizer.to_codes(pairs[..., 0])
        colors = self.color_quantizer.to_codes(pairs[..., 1] - self.first_color)
        pixels: Tensor = self.decoder(shapes, colors).clamp(-1.0, 1.0)
        return pixels.unsqueeze(2)
