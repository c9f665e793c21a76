"""Decode a sample of token shards, to look at what a training would see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sar_eval.errors import BadInput
from sar_eval.images.files import encode_png
from sar_eval.report.token_page import TokenPage, TokenPicture
from sar_eval.storage.token_samples import TokenSample, open_samples

if TYPE_CHECKING:
    from sar_eval.families.cosmos import VisualTokenizer


def look_at(place: str, tokenizer: Path, rows: int, seed: int = 0) -> TokenPage:
    """A sample of a folder of token shards as pictures, with what the folder says of itself.

    Raises:
        BadInput: no shards, shards of another tokenizer, or rows that are no pictures.
    """
    from sar_eval.families.cosmos import VisualTokenizer

    samples = open_samples(place)
    visual = VisualTokenizer(tokenizer)
    _check_same(samples.metadata, visual, place)
    chosen = samples.rows(rows, seed)
    pictures = tuple(_decode(row, visual) for row in chosen)
    codes = {code for row in chosen for code in row.codes.tolist()}
    return TokenPage(
        place=place,
        rows=samples.number,
        codes=len(codes),
        codebook_size=visual.codebook_size,
        metadata=samples.metadata,
        sizes=_pixels(samples.manifest.get("sizes", {}), visual.downsample),
        rejected=samples.manifest.get("rejected", {}),
        pictures=pictures,
    )


def _check_same(metadata: dict[str, str], visual: VisualTokenizer, place: str) -> None:
    found = metadata.get("encoder")
    if found and found != visual.encoder_digest:
        raise BadInput(
            f"{place} was made with encoder {found}, {visual.folder} has {visual.encoder_digest}: name the "
            "tokenizer of these shards with --tokenizer"
        )


def _decode(row: TokenSample, visual: VisualTokenizer) -> TokenPicture:
    import torch

    codes = np.asarray(row.codes, np.int64)
    if codes.size and int(codes.max()) >= visual.codebook_size:
        raise BadInput(f"{row.key} has code {codes.max()}, the tokenizer has {visual.codebook_size}")
    decoded = visual.decode(torch.from_numpy(codes)[None], row.height)
    image = encode_png(decoded.pixels[0].numpy()) if bool(decoded.finite[0]) else None
    return TokenPicture(row.key, row.captions, row.height, row.width, image)


def _pixels(sizes: dict[str, int], patch: int) -> Sequence[tuple[str, int]]:
    """Sizes in pixels (width x height), the most frequent first."""
    found = []
    for name, number in sizes.items():
        height, _, width = name.partition("x")
        found.append((f"{int(width) * patch}x{int(height) * patch}", number))
    return sorted(found, key=lambda pair: -pair[1])
