"""What `sar-eval doctor dpg` asks of the weights on a user's machine.

The released weights were never at hand here. So whoever has them can see whether they are what the
architecture says, and whether the network answers as the original did on their own table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from sar_eval.errors import BadInput
from sar_eval.networks.mplug.shape import read_shape
from sar_eval.networks.mplug.vqa import MplugVqa
from sar_eval.networks.mplug.weights import ROLES, Report, read_state, survey, weights_file
from sar_eval.tensors.converted import file_digest
from sar_eval.tensors.published_weights import recorded_sha256

NEEDED = ("used", "unknown")  # roles whose count decides whether the file can be loaded


class Check(NamedTuple):
    """One checked thing, as the doctor tells it: `ok` is None for what is odd but does no harm."""

    name: str
    ok: bool | None
    detail: str


class Row(NamedTuple):
    """One line of a reference table: what the original answered."""

    where: str
    image: Path
    question: str
    answer: str


def check_weights(folder: Path) -> Iterator[Check]:
    """Counts by role, shapes, ties and digest of `pytorch_model.bin`.

    Raises:
        BadInput: a file is missing or unreadable.
    """
    shape, path = read_shape(folder), weights_file(folder)
    yield _digest(path)
    report = survey(read_state(path), shape)
    yield from _counts(report)
    for name, equal in report.ties.items():
        told = {True: "equal to its source", None: "left out, so nothing to compare", False: "NOT equal"}
        yield Check("tied", equal, f"{name}: {told[equal]}")
    yield Check("fit", not report.faults, "; ".join(report.faults) or "every name and shape")


def check_answers(model: MplugVqa, table: Path) -> Iterator[Check]:
    """Answers of the network against a table of the original's, disagreements first.

    Raises:
        BadInput: a line that is no row, or an image that cannot be read.
    """
    rows, agreed = read_table(table), 0
    for image in dict.fromkeys(row.image for row in rows):
        own = [row for row in rows if row.image == image]
        replies = model.answer([model.prepare(_pixels(own[0]))], [[row.question for row in own]])[0]
        for row, reply in zip(own, replies, strict=True):
            said = reply.text if reply else None
            agreed += said == row.answer
            if said != row.answer:
                found = f"{row.question!r} of {image.name}: {said!r}, the original says {row.answer!r}"
                yield Check("answer", False, f"{row.where}: {found}")
    yield Check("answers", agreed == len(rows), f"{agreed} of {len(rows)} are the original's")


def read_table(path: Path) -> list[Row]:
    """JSON lines with `image` (a path, relative to the table), `question` and `answer`.

    Raises:
        BadInput: unreadable, empty, or a line without one of the three.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {error}") from error
    rows = [_row(line, path, number) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise BadInput(f"{path} has no rows")
    return rows


def _row(line: str, path: Path, number: int) -> Row:
    where, names = f"{path}:{number}", ("image", "question", "answer")
    try:
        data: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where} is no JSON: {error}") from error
    given = data if isinstance(data, dict) else {}
    if wrong := [name for name in names if not isinstance(given.get(name), str)]:
        raise BadInput(f"{where}: {wrong[0]} must be text")
    return Row(where, path.parent / given["image"], given["question"], given["answer"])


def _pixels(row: Row) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """As the original opens an image: not turned by its EXIF, without its alpha."""
    try:
        with Image.open(row.image) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise BadInput(f"{row.where}: unreadable image {row.image}: {error}") from error


def _digest(path: Path) -> Check:
    found, noted = file_digest(path), recorded_sha256(path)
    if not noted:
        return Check("digest", None, f"SHA-256 {found}; none is published, none was noted at a download")
    if found == noted:
        return Check("digest", True, f"SHA-256 {found}, as at the download; none is published")
    return Check("digest", False, f"SHA-256 {found}, but {noted} at the download: the file has changed")


def _counts(report: Report) -> Iterator[Check]:
    for role in ROLES:
        found, expected = report.counts[role], report.expected[role]
        told = f"{found} {role} tensors"
        if found == expected:
            yield Check("tensors", True, told)
        else:
            ok = False if role in NEEDED else None
            yield Check("tensors", ok, f"{told}, a whole file of this shape has {expected}")
