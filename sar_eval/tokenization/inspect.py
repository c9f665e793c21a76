"""Decode a sample of token shards, to look at what a training would see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from sar_eval.documents import convert
from sar_eval.errors import BadInput
from sar_eval.images.files import encode_png
from sar_eval.report.token_page import TokenPage, TokenPicture
from sar_eval.storage.objects import open_store
from sar_eval.storage.token_folder import MANIFEST, TokenFolder
from sar_eval.storage.token_rows import TokenRows
from sar_eval.storage.token_shards import TokenShards

if TYPE_CHECKING:
    from sar_eval.families.cosmos import VisualTokenizer


def look_at(place: str, tokenizer: Path, rows: int, seed: int = 0) -> TokenPage:
    """A sample of token shards as pictures, with what the folder says of itself.

    Args:
        place: of the shards; any that training reads.
        tokenizer: folder of their visual tokenizer.
        rows: so many at most, evenly spread; only their row groups are read.
        seed: of the sample.

    Raises:
        BadInput: no shards, shards of another tokenizer, or rows that are no pictures.
    """
    from sar_eval.families.cosmos import VisualTokenizer

    shards, visual = TokenShards([place]), VisualTokenizer(tokenizer)
    _check_same(shards, visual, place)
    counts = _counts(TokenFolder(open_store(place)))
    pictures, used = list[TokenPicture](), set[int]()
    for group, numbers in _sample(shards, rows, seed):
        found = shards.read(group)
        pictures += _decode(found, numbers, visual)
        used.update(np.unique(np.concatenate(found.codes(numbers))).tolist())
    return TokenPage(
        place=place,
        rows=int(shards.rows.sum()),
        codes=len(used),
        codebook_size=visual.codebook_size,
        metadata=shards.metadata,
        sizes=_pixels(counts.sizes, visual.downsample),
        rejected=counts.rejected,
        pictures=pictures,
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    """Of a manifest, what the page shows: pictures by size in tokens, those left out by reason."""

    sizes: dict[Annotated[str, Meta(pattern=r"^[0-9]{1,5}x[0-9]{1,5}$")], int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)


def _counts(folder: TokenFolder) -> _Counts:
    """Raises BadInput for a manifest that is none."""
    found, where = folder.manifest(), folder.store.where(MANIFEST)
    return _Counts() if found is None else convert(found, _Counts, where, "remove it, and tokenize again")


def _sample(shards: TokenShards, most: int, seed: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Row groups, and the numbers of the chosen rows in each."""
    starts = np.concatenate([[0], np.cumsum(shards.rows)])
    number = int(starts[-1])
    chosen = np.sort(np.random.default_rng(seed).choice(number, min(most, number), replace=False))
    groups = np.searchsorted(starts, chosen, side="right") - 1
    return [(int(group), chosen[groups == group] - starts[group]) for group in np.unique(groups)]


def _check_same(shards: TokenShards, visual: VisualTokenizer, place: str) -> None:
    found = shards.metadata.get("encoder")
    if found and found != visual.encoder_digest:
        raise BadInput(
            f"{place} was made with encoder {found}, {visual.folder} has {visual.encoder_digest}: name the "
            "tokenizer of these shards with --tokenizer"
        )


def _decode(rows: TokenRows, numbers: NDArray[np.int64], visual: VisualTokenizer) -> Iterator[TokenPicture]:
    """Pictures of some rows, one at a time: they may be of several sizes."""
    import torch

    for number, key, codes in zip(numbers.tolist(), rows.keys(numbers), rows.codes(numbers), strict=True):
        if int(codes.max()) >= visual.codebook_size:
            raise BadInput(f"{key} has code {codes.max()}, the tokenizer has {visual.codebook_size}")
        height, width = int(rows.heights[number]), int(rows.widths[number])
        decoded = visual.decode(torch.from_numpy(codes).view(1, height, width))
        image = encode_png(decoded.pixels[0].numpy()) if bool(decoded.finite[0]) else None
        yield TokenPicture(key, rows.all_captions(number), height, width, image)


def _pixels(sizes: Mapping[str, int], patch: int) -> Sequence[tuple[str, int]]:
    """Sizes in pixels (width x height), the most frequent first."""
    found = []
    for name, number in sizes.items():
        height, _, width = name.partition("x")
        found.append((f"{int(width) * patch}x{int(height) * patch}", number))
    return sorted(found, key=lambda pair: -pair[1])
