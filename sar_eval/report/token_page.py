"""Write the page of `train inspect`: decoded token shards in one file that opens from disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sar_eval.report.document import render
from sar_eval.report.pictures import Picture, embed
from sar_eval.storage.files import write_bytes

SIZES_LISTED = 12


@dataclass(frozen=True, slots=True)
class TokenPicture:
    """A row: a decoded picture as PNG (None: the decoder gave no colours) of height x width tokens."""

    key: str
    captions: Sequence[str]
    height: int
    width: int
    image: bytes | None


@dataclass(frozen=True, slots=True)
class TokenPage:
    """What the page shows.

    Attributes:
        place: of the shards.
        rows: of all shards.
        codes: different codes in the sample, of `codebook_size`.
        metadata: what the shards say of themselves.
        sizes: width x height in pixels, and how many pictures have it.
        rejected: pictures without a row, by reason.
        pictures: the sample.
    """

    place: str
    rows: int
    codes: int
    codebook_size: int
    metadata: Mapping[str, str]
    sizes: Sequence[tuple[str, int]]
    rejected: Mapping[str, int]
    pictures: Sequence[TokenPicture]


def write_token_page(path: Path, page: TokenPage) -> None:
    """Write the page.

    Raises:
        StorageFailed: it cannot be written.
    """
    values: dict[str, object] = {
        "page": page,
        "sizes": page.sizes[:SIZES_LISTED],
        "sizes_left_out": len(page.sizes[SIZES_LISTED:]),
        "pictures": [(row, _picture(row)) for row in page.pictures],
    }
    html = render("tokens.html.j2", ("report.css", "tokens.css"), (), values)
    write_bytes(path, html.encode("utf-8", "backslashreplace"))


def _picture(row: TokenPicture) -> Picture:
    return embed(row.image) if row.image else Picture(problem="the decoder gave no colours")
