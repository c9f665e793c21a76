"""A picture as a request to a chat model carries it: the bytes as stored, or encoded anew.

What a judge sees depends on it: JPEG at quality 75 is another picture than PNG, and figures that were
published with one of them mean that one.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.images.files import JPEG, decode_image
from sar_eval.options import check_whole_number
from sar_eval.types import Json

ENCODINGS = ("file", "png", "jpeg")
MIMES = ("image/png", "image/jpeg", "image/webp")
MAX_SIDE = 8192  # pixels, of a picture that is resized
OPTIONS = ("encoding", "mime", "jpeg_quality", "resize")


@dataclass(frozen=True, slots=True)
class PictureForm:
    """How a picture is encoded.

    Attributes:
        encoding: `file` (bytes as stored), `png`, or `jpeg`.
        mime: the type that is stated; "" for the true one. Some official scripts call every file a PNG.
        jpeg_quality: of `jpeg`; Pillow's own default is 75.
        resize: width and height in pixels, by Pillow's bicubic filter, without keeping the shape.
    """

    encoding: str = "file"
    mime: str = ""
    jpeg_quality: int = 95
    resize: tuple[int, int] | None = None


def make_form(options: Mapping[str, Json], label: str) -> PictureForm:
    """The form that a judge's options describe; other options are ignored.

    Raises:
        BadInput: naming `label`, the option and its value.
    """
    given = {name: options[name] for name in OPTIONS if name in options}
    if "resize" in given:
        given["resize"] = _size(given["resize"], label)
    form = PictureForm(**given)
    if form.encoding not in ENCODINGS:
        raise BadInput(f"encoding {shorten(form.encoding)} of {label}: {', '.join(ENCODINGS)}")
    if form.mime not in ("", *MIMES):
        raise BadInput(f"mime {shorten(form.mime)} of {label}: {', '.join(MIMES)}")
    check_whole_number("jpeg_quality", form.jpeg_quality, label, 1, 100)
    if form.encoding == "file" and form.resize:
        raise BadInput(f"resize of {label}: a resized picture needs encoding png or jpeg")
    return form


def encode_picture(data: bytes, form: PictureForm) -> tuple[bytes, str]:
    """The bytes of an image file in this form, and the MIME type to state.

    Pictures that are encoded anew are RGB, upright, without alpha, as `decode_image` gives them.

    Raises:
        BadInput: the file is no readable image, whatever the form.
    """
    pixels = decode_image(data)
    if form.encoding == "file":
        return data, form.mime or _mime(data)
    image = Image.fromarray(pixels)
    if form.resize:
        image = image.resize(form.resize, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    if form.encoding == "png":
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "JPEG", quality=form.jpeg_quality)
    return buffer.getvalue(), form.mime or f"image/{form.encoding}"


def _mime(data: bytes) -> str:
    if data.startswith(JPEG):
        return "image/jpeg"
    return "image/webp" if data[8:12] == b"WEBP" else "image/png"


def _size(value: Json, label: str) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise BadInput(f"resize {shorten(value)} of {label}: a list of two numbers, [WIDTH, HEIGHT]")
    for side in value:
        check_whole_number("resize", side, label, 1, MAX_SIDE)
    return value[0], value[1]
