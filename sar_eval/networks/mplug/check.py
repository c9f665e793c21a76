"""Checks of `sar-eval doctor dpg`: of the weights on a user's machine, and of the network's answers.

The released weights were not available when this was written. With them, a user can check that they fit the
architecture, and that the network's answers equal those of the original in a table of the user's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from sar_eval.documents import parse_json, read_bytes
from sar_eval.errors import BadInput
from sar_eval.networks.mplug.shape import read_shape
from sar_eval.networks.mplug.vqa import MplugVqa
from sar_eval.networks.mplug.weights import ROLES, TensorReport, compare_tensors, read_state, weights_path
from sar_eval.options import check_name
from sar_eval.tensors.digests import file_digest
from sar_eval.tensors.published_weights import recorded_sha256

REQUIRED = ("used", "unknown")  # roles whose count decides whether the file can be loaded


class Check(NamedTuple):
    """The result of one check; `ok` is None for an oddity without consequences."""

    name: str
    ok: bool | None
    detail: str


class Row(NamedTuple):
    """One line of a reference table; `answer` is the original's."""

    where: str
    image: Path
    question: str
    answer: str


def check_weights(folder: Path) -> Iterator[Check]:
    """Counts by role, shapes, ties and digest of `pytorch_model.bin`.

    Raises:
        BadInput: a file is missing or unreadable.
    """
    shape, path = read_shape(folder), weights_path(folder)
    yield _check_digest(path)
    report = compare_tensors(read_state(path), shape)
    yield from _check_counts(report)
    for name, equal in report.ties.items():
        result = {
            True: "equal to its source",
            None: "not in the file, nothing to compare",
            False: "NOT equal",
        }
        yield Check("tied", equal, f"{name}: {result[equal]}")
    yield Check("fit", not report.problems, "; ".join(report.problems) or "every name and shape")


def check_answers(model: MplugVqa, table: Path) -> Iterator[Check]:
    """Compare the network's answers with a table of the original's, one check for each difference.

    Raises:
        BadInput: an invalid line, or an image that cannot be read.
    """
    rows, agreed = read_table(table), 0
    for image in dict.fromkeys(row.image for row in rows):
        image_rows = [row for row in rows if row.image == image]
        questions = [row.question for row in image_rows]
        [outputs] = model.answer([model.prepare(_read_pixels(image_rows[0]))], [questions])
        for row, output in zip(image_rows, outputs, strict=True):
            text = output.text if output else None
            agreed += text == row.answer
            if text != row.answer:
                detail = f"{row.question!r} of {image.name}: {text!r}, the original says {row.answer!r}"
                yield Check("answer", False, f"{row.where}: {detail}")
    yield Check("answers", agreed == len(rows), f"{agreed} of {len(rows)} are the original's")


def read_table(path: Path) -> list[Row]:
    """JSON lines with `image` (a path, relative to the table), `question` and `answer`.

    Raises:
        BadInput: the file is unreadable or empty, or a line lacks one of the three.
    """
    try:
        lines = read_bytes(path).decode().split("\n")
    except UnicodeDecodeError as error:
        raise BadInput(f"cannot read {path}: {error}") from error
    rows = [_parse_row(line, path, number) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise BadInput(f"{path} has no rows")
    return rows


def _parse_row(line: str, path: Path, number: int) -> Row:
    where, names = f"{path}:{number}", ("image", "question", "answer")
    try:
        data = parse_json(line, where)
    except BadInput as error:
        raise BadInput(f"{where} is no JSON: {error}") from error
    fields = data if isinstance(data, dict) else {}
    if invalid := [name for name in names if not isinstance(fields.get(name), str)]:
        raise BadInput(f"{where}: {invalid[0]} must be text")
    check_name(fields["image"], f"{where}: image")
    return Row(where, path.parent / fields["image"], fields["question"], fields["answer"])


def _read_pixels(row: Row) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """As the original reads an image: ignoring its EXIF orientation, without alpha."""
    try:
        with Image.open(row.image) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise BadInput(f"{row.where}: unreadable image {row.image}: {error}") from error


def _check_digest(path: Path) -> Check:
    actual, recorded = file_digest(path), recorded_sha256(path)
    if not recorded:
        return Check("digest", None, f"SHA-256 {actual}; none is published, none recorded at a download")
    if actual == recorded:
        return Check("digest", True, f"SHA-256 {actual}, as at the download; none is published")
    return Check("digest", False, f"SHA-256 {actual}, but {recorded} at the download: the file has changed")


def _check_counts(report: TensorReport) -> Iterator[Check]:
    for role in ROLES:
        number, expected = report.counts[role], report.expected[role]
        detail = f"{number} {role} tensors"
        if number == expected:
            yield Check("tensors", True, detail)
        else:
            ok = False if role in REQUIRED else None
            yield Check("tensors", ok, f"{detail}, a complete file of this shape has {expected}")
