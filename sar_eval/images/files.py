"""Reads image files that anyone may have written, to RGB pixels or to an error that says why.

No file can do more than fail: other formats are not opened (Pillow would hand PostScript to Ghostscript),
the number of pixels is bounded before any is decoded, and whatever a decoder raises is a `BadInput`.
"""

from __future__ import annotations

import io
import stat
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, UnidentifiedImageError

from sar_eval.errors import BadInput
from sar_eval.types import Generation

DECODING_THREADS = 4  # decoding releases the GIL, so judges decode ahead of their networks
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 2**26  # of one image: 8192 x 8192
LARGE = 2**23  # pixels; larger images are decoded one at a time, as each takes hundreds of megabytes
MAX_BYTES = 512_000_000  # of one file
JPEG = b"\xff\xd8\xff"
# First bytes of what is often called .png: what it is, and how to go on.
_CONVERT = "convert it to PNG"
OTHER_FORMATS = (
    (b"GIF8", "a GIF", _CONVERT),
    (b"BM", "a BMP", _CONVERT),
    (b"II*\0", "a TIFF", _CONVERT),
    (b"MM\0*", "a TIFF", _CONVERT),
    (b"%!PS", "PostScript", _CONVERT),
    (b"\xc5\xd0\xd3\xc6", "PostScript", _CONVERT),
    (b"%PDF", "a PDF", _CONVERT),
    (b"8BPS", "a Photoshop file", _CONVERT),
    (b"DDS ", "a DDS texture", _CONVERT),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000", _CONVERT),
    (b"\0\0\0\x0cJXL ", "a JPEG XL", _CONVERT),
    (b"\xff\x0a", "a JPEG XL", _CONVERT),
    (b"\0\0\1\0", "an icon", _CONVERT),
    (b"\x93NUMPY", "a NumPy array", _CONVERT),
    (b"<svg", "an SVG", _CONVERT),
    (b"<?xml", "XML, perhaps an SVG", _CONVERT),
    (b"<!DOCTYPE", "a web page", "download the image itself"),
    (b"<html", "a web page", "download the image itself"),
    (b"version https://git-lfs", "a git-lfs pointer", "run `git lfs pull` to get the image"),
    (b"PK\3\4", "a zip archive", "unpack it"),
)
ORIENTATION = 0x0112  # EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
NO_IMAGE = "no PNG, JPEG or WebP, or a damaged one"
_one_large = threading.Lock()
Decoded = TypeVar("Decoded")


@dataclass(frozen=True, slots=True)
class Header:
    """What a file's header says of its image.

    Attributes:
        size: (width, height) in pixels.
        image_format: "PNG", "JPEG" or "WebP".
    """

    size: tuple[int, int]
    image_format: str


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode an image to RGB uint8 `[H, W, 3]`, rotated by its EXIF orientation, without alpha.

    Sixteen bits are scaled to eight, as v / 257. Alpha is dropped, not blended, as the official scripts
    of GenEval and DPG-Bench do (`convert("RGB")`); `is_transparent` tells where that matters.

    Raises:
        BadInput: the bytes are no readable image, or one that is animated or larger than `MAX_PIXELS`.
    """
    return _load(data, lambda image: np.asarray(_to_rgb(_upright(image))))


def decode_stored(data: bytes) -> Image.Image:
    """Decode an image in its own mode, neither turned nor converted; sixteen bits are scaled to eight.

    Raises:
        BadInput: as `decode_image`.
    """
    return _load(data, lambda image: _to_eight_bits(image) if image.mode.startswith("I") else image.copy())


def turn_of(size: tuple[int, int]) -> AbstractContextManager[Any]:
    """To work on an image of this size: a large one waits until no other is worked on."""
    return _one_large if size[0] * size[1] > LARGE else nullcontext()


def _load(data: bytes, convert: Callable[[Image.Image], Decoded]) -> Decoded:
    try:
        with _open(io.BytesIO(data)) as image, turn_of(image.size):
            image.load()
            return convert(image)
    except BadInput:
        raise
    except Exception as error:  # decoders raise anything from struct.error to MemoryError
        raise BadInput(f"unreadable image: {error or type(error).__name__}") from error


def read_image(generation: Generation) -> NDArray[np.uint8]:
    """Decode a generation's image to RGB uint8 `[H, W, 3]`.

    Raises:
        BadInput: no image, an unreadable one, or one of a single colour.
    """
    if generation.image is None:
        raise BadInput(f"no image: {generation.error}")
    pixels = decode_image(generation.image)
    if bool((pixels == pixels[0, 0]).all()):
        raise BadInput("blank image")
    return pixels


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode RGB uint8 `[H, W, 3]` as PNG, with fast compression."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def read_header(path: Path) -> Header:
    """Size and format of an image file; reads no more than its header.

    Raises:
        BadInput: the file cannot be read, or is no image that `decode_image` takes.
    """
    try:
        check_regular(path)
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that are refused here, and of broken EXIF
            with _open(file) as image:
                return Header(image.size, _format_name(image))
    except BadInput:
        raise
    except (OSError, ValueError) as error:
        raise BadInput(_os_message(error)) from error


def read_file(path: Path) -> bytes:
    """The bytes of a regular file of at most `MAX_BYTES`.

    Raises:
        BadInput: it cannot be read, is no regular file, or is longer.
    """
    try:
        check_regular(path)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise BadInput(_os_message(error)) from error


def is_lossy(data: bytes) -> bool:
    """Whether an encoded image is lossily compressed (JPEG, most WebP)."""
    return data.startswith(JPEG) or (data[8:12] == b"WEBP" and b"VP8L" not in data[12:64])


def is_transparent(data: bytes) -> bool:
    """Whether any pixel of a readable image is not opaque."""
    if data.startswith(JPEG):
        return False
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        if not has_alpha or image.mode.startswith("I"):
            return False
        return bool((np.asarray(image.convert("RGBA").getchannel("A")) < 255).any())


def _open(file: IO[bytes]) -> Image.Image:
    """An image of which only the header is read, or BadInput."""
    start = file.read(64)
    file.seek(0)
    try:
        image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadInput(f"more than {MAX_PIXELS:,} pixels, the most that are read ({error})") from error
    except Exception as error:  # see decode_image
        found = _what_it_is(start) or (NO_IMAGE if isinstance(error, UnidentifiedImageError) else error)
        raise BadInput(f"unreadable image: {found}") from error
    if problem := _header_problem(image):
        image.close()
        raise BadInput(problem)
    return image


def _header_problem(image: Image.Image) -> str:
    width, height = image.size
    if width * height > MAX_PIXELS:
        return f"{width}x{height} is more than {MAX_PIXELS:,} pixels, the most that are read"
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # a camera's JPEG holds a preview too
        return f"an animation of {getattr(image, 'n_frames', 0)} frames: save the one that is to be judged"
    return ""


def _format_name(image: Image.Image) -> str:
    return {"MPO": "JPEG", "WEBP": "WebP"}.get(str(image.format), str(image.format))


def _what_it_is(start: bytes) -> str:
    """What bytes that are no readable image look like; "" if nobody knows."""
    if not start.strip(b"\0"):
        return "the file is empty" if not start else "the file begins with zeros: an interrupted copy?"
    if start[4:8] == b"ftyp":
        return f"this is HEIC, AVIF or a video: {_CONVERT}"
    known = start.lstrip() if start.lstrip().startswith(b"<") else start
    for begin, name, mend in OTHER_FORMATS:
        if known.lower().startswith(begin.lower()):
            return f"this is {name}: {mend}"
    return ""


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        return _to_eight_bits(image).convert("RGB")
    if image.mode == "CMYK" and "adobe" not in image.info:
        image = ImageChops.invert(
            image
        )  # Pillow takes every CMYK JPEG for one of Adobe's, which are inverted
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, of which convert() would clip all above 255."""
    levels = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))


def _upright(image: Image.Image) -> Image.Image:
    """Turned by its EXIF orientation; not by Pillow's function, which also writes the EXIF anew."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # noqa: BLE001 - broken EXIF raises anything; such an image stays as it is stored
        return image
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def check_regular(path: Path) -> None:
    """Refuse what must not be opened: reading a pipe or a device may never end.

    Raises:
        BadInput: no regular file, or one of more than `MAX_BYTES`.
        OSError: it cannot be looked at.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise BadInput("a directory, not an image")
    if not stat.S_ISREG(status.st_mode):
        raise BadInput("a pipe, socket or device, not an image")
    if status.st_size > MAX_BYTES:
        raise BadInput(f"{status.st_size:,} bytes: more than {MAX_BYTES:,} are not read")


def _os_message(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "cannot be read: no such file, or a link to none"
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"
