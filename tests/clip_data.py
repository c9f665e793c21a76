"""The reference data of the scorers on CLIP: unpacked weights, pictures, and score matrices."""

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from sar_eval.images.picture import Picture
from tests.parity_data import needs


class ClipData:
    """One scorer's folder; the committed part has the pictures once, in that of HPSv2."""

    def __init__(self, folder: Path, out: Path, cases: str = "cases.json") -> None:
        self.folder, self.out = folder, out
        self.cases = json.loads((folder / cases).read_text())
        self.texts, self.images = self.cases.get("texts", {}), self.cases.get("images", {})

    def unpacked(self, name: str) -> Path:
        """A file that the full folder has packed."""
        if (self.folder / name).exists():
            return self.folder / name
        packed, path = needs(self.folder / f"{name}.gz"), self.out / self.folder.name / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(gzip.decompress(packed.read_bytes()))
        return path

    def picture_path(self, name: str) -> Path:
        file = self.images[name]["file"]
        own = self.folder / file
        return own if own.exists() else self.folder.parent / "hpsv2" / file

    def picture(self, name: str) -> Picture:
        return Picture.open(needs(self.picture_path(name)))

    def pictures(self) -> dict[str, Picture]:
        """Those that are here: all of the full data, a dozen of the committed part."""
        return {name: self.picture(name) for name in self.images if self.picture_path(name).exists()}


def check_pixels(data: ClipData) -> None:
    """The decoded pictures are the reference's: a decoder that differs would show here first."""
    for name, picture in data.pictures().items():
        digest = hashlib.sha256(picture.rgb.tobytes()).hexdigest()
        assert digest == data.images[name]["rgb_sha256"], name


def score_matrix(scorer, pictures: Sequence[Picture], texts: Sequence[str]) -> torch.Tensor:
    """Float64 `[pictures, texts]`, by the scorer's own interface; pictures are encoded once."""
    columns = [[s.value for s in scorer.score(pictures, [text] * len(pictures))] for text in texts]
    return torch.tensor(columns, dtype=torch.float64).T


def padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Token ids int64 `[N, 77]`, padded with zeros."""
    return torch.tensor([[*row, *[0] * (77 - len(row))] for row in rows])
