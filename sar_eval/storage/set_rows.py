"""Rows of a synthesised set: one of `data` for each kept picture, one of the manifest for each draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FATES = ("kept", "failed", "unjudged", "filtered", "outranked", "duplicate")


@dataclass(frozen=True, slots=True)
class DataRow:
    """A kept picture, as the data objects store it.

    Attributes:
        row: of its prompt in the prompt file, from 0.
        index: of the draw among those of its prompt, from 0.
        id: the prompt's own id.
        caption: the prompt's text.
        seed: of the draw.
        text: what the checkpoint was asked: the protocol's prefix and the caption.
        image: an encoded PNG or lossless WebP; None in a set that keeps tokens alone.
        tokens: visual codes in raster order; None in a set that keeps pixels alone.
        scores: by measure; those without a number are not there.
    """

    row: int
    index: int
    id: str
    caption: str
    seed: int
    text: str = ""
    image: bytes | None = None
    tokens: tuple[int, ...] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Row, slash, index."""
        return f"{self.row}/{self.index}"


@dataclass(frozen=True, slots=True)
class Value:
    """What one measure (a judge or a scorer) says of one draw; all None where it was not asked."""

    score: float | None = None
    passed: bool | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """What became of one draw.

    Attributes:
        row, index, id, seed: as of a `DataRow`.
        fate: one of `FATES`.
        why: the clause of the filter that it fails, the draw that it duplicates, or the error.
        values: by measure, those that were asked.
        pixels: digest of its pixels (16 bytes); empty without a picture.
        phash: 64-bit perceptual hash of its picture; None where it was not needed.
        position: of its row in the block's data object; None unless it is kept.
        embedding: of its picture, as float16 bytes; None where none is stored.
    """

    row: int
    index: int
    id: str
    seed: int
    fate: str
    why: str = ""
    values: Mapping[str, Value] = field(default_factory=dict)
    pixels: bytes = b""
    phash: int | None = None
    position: int | None = None
    embedding: bytes | None = None


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """A committed block, as its done-record stores it: without times, so that it is always the same.

    Attributes:
        block: its number.
        attempt: 0 at first; a block with failures may be committed again, with fewer.
        data: name of its data object; "" where nothing was kept.
        manifest: name of its manifest object.
        prompts, draws: how many are in the block.
        data_bytes, manifest_bytes: sizes of the two objects.
        fates: draws by fate: "kept", "failed", "unjudged", "outranked", "duplicate", and "filtered: CLAUSE"
            for each clause of the filter that draws failed.
        problems: the first few errors, as "ROW/INDEX: why".
        device: what drew it.
    """

    block: int
    attempt: int
    data: str
    manifest: str
    prompts: int
    draws: int
    data_bytes: int
    manifest_bytes: int
    fates: Mapping[str, int]
    problems: tuple[str, ...] = ()
    device: str = ""

    @property
    def lacking(self) -> int:
        """Draws without a picture or without a value that decides."""
        return self.fates.get("failed", 0) + self.fates.get("unjudged", 0)
