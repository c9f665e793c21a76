"""Published scores of published pictures: what a scorer with the real weights must give again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sar_eval.documents import convert, parse_json, read_bytes
from sar_eval.errors import BadInput
from sar_eval.tensors.remote_file import RemoteFile
from sar_eval.types import Json

_RAW = "https://raw.githubusercontent.com"
_IMAGEREWARD = f"{_RAW}/THUDM/ImageReward/c1392c6dd0fd6ecd6d416c96959ab744a6d0a8fb"
_HPSV2 = f"{_RAW}/tgxs002/HPSv2/866735ecaae999fa714bd9edfa05aa2672669ee3"


@dataclass(frozen=True, slots=True)
class Anchor:
    """A score that somebody else's code gave a picture.

    Attributes:
        scorer: its name, with its variant.
        picture: fetched, never shipped; or a file.
        prompt: of the picture.
        value: the score.
        tolerance: how far ours may be off, for another card, precision and number of printed digits.
        source: who said so.
        forms: options of the scorer, where it is not known with which the value was made: one must fit.
    """

    scorer: str
    picture: RemoteFile | Path
    prompt: str
    value: float
    tolerance: float
    source: str
    forms: tuple[Mapping[str, Json], ...] = field(default=({},))


def _picture(url: str, folder: str, licence: str) -> RemoteFile:
    return RemoteFile(f"anchors/{folder}/{url.rpartition('/')[2]}", url, "", "a picture", licence=licence)


# ImageReward's README says that the numbers depend slightly on the device.
_IMAGEREWARD_VALUES = (0.5811622738838196, 0.2745276093482971, -1.4131819009780884, -2.029569625854492)
ANCHORS = (
    *(
        Anchor(
            "imagereward",
            _picture(f"{_IMAGEREWARD}/assets/images/{number}.webp", "imagereward", "Apache-2.0"),
            "a painting of an ocean with clouds and birds, day time, low depth field effect",
            value,
            0.01,
            "README of THUDM/ImageReward",
        )
        for number, value in enumerate(_IMAGEREWARD_VALUES, 1)
    ),
    # In half precision (steps of 2^-12), and nobody says with which torchvision: it resized without
    # antialiasing before 0.17.
    Anchor(
        "hps:v2.0",
        _picture(f"{_HPSV2}/assets/demo_image.jpg", "hpsv2", "Apache-2.0"),
        "A cat with two horns on its head",
        0.2876,
        0.001,
        "issue 27 of tgxs002/HPSv2",
        ({"resize": "antialias"}, {"resize": "aliased"}),
    ),
)


@dataclass(frozen=True, slots=True)
class _Line:
    scorer: str
    image: str
    score: float
    prompt: str = ""
    tolerance: float = 1e-4


def read_anchors(path: Path) -> tuple[Anchor, ...]:
    """Anchors from JSON lines with `scorer`, `image` (beside the file), `score`, `prompt`, `tolerance`.

    Raises:
        BadInput: naming file and line.
    """
    found = []
    for number, line in enumerate(read_bytes(path).splitlines(), 1):
        if line.strip():
            where = f"{path}:{number}"
            row = convert(parse_json(line, where), _Line, where)
            picture = path.parent / row.image
            found.append(Anchor(row.scorer, picture, row.prompt, row.score, row.tolerance, where))
    if not found:
        raise BadInput(f"{path} has no line with scorer, image and score")
    return tuple(found)
