"""Reading image files that anyone may have written."""

import io
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from test_grids import photo

from sar_eval.errors import BadInput
from sar_eval.images.files import MAX_PIXELS, decode_image, is_transparent, read_file, read_header
from tests.odd_files import dangling, directory, endless, fifo, loop

RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16)
PHOTO = photo(np.random.default_rng(0), (24, 16))


def encoded(image: Image.Image, image_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, rows: bytes = b"", depth: int = 8, color: int = 2) -> bytes:
    """A PNG of which any header can be said."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_sixteen_bits_of_grey_are_scaled_not_cut_off() -> None:
    image = Image.fromarray(RAMP * 257)
    assert image.mode == "I;16"
    np.testing.assert_array_equal(decode_image(encoded(image)), np.stack([RAMP] * 3, -1))


def test_sixteen_bits_of_colour_are_scaled() -> None:
    levels = (PHOTO.astype(">u2") * 257).tobytes()
    rows = b"".join(b"\0" + levels[i : i + 24 * 6] for i in range(0, len(levels), 24 * 6))
    np.testing.assert_array_equal(decode_image(png(24, 16, rows, depth=16)), PHOTO)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "PA"])
def test_other_modes_are_read_as_the_official_scripts_read_them(mode: str) -> None:
    """Alpha is dropped: the colours stay those that are stored."""
    image = Image.fromarray(PHOTO).convert("LA" if mode == "LA" else mode if mode != "PA" else "P")
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.new("L", image.size, 40))
    data = encoded(image, **({"transparency": image.getpixel((0, 0))} if mode == "PA" else {}))
    with Image.open(io.BytesIO(data)) as again:
        expected = np.asarray(again.convert("RGB"))
    np.testing.assert_array_equal(decode_image(data), expected)
    assert is_transparent(data) == (mode in ("RGBA", "LA", "PA"))


def test_an_opaque_alpha_channel_is_not_transparent() -> None:
    assert not is_transparent(encoded(Image.fromarray(PHOTO).convert("RGBA")))
    assert not is_transparent(encoded(Image.fromarray(PHOTO), "JPEG"))
    assert is_transparent(encoded(Image.new("RGBA", (8, 8), (9, 9, 9, 254)), "WEBP", lossless=True))


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_jpegs_keep_their_colours(adobe: bool) -> None:
    """Adobe's are stored inverted; others, which have no Adobe marker, are not."""
    image = Image.new("CMYK", (16, 16), (0, 200, 150, 10))
    data = encoded(image if adobe else Image.eval(image, lambda v: 255 - v), "JPEG", quality=95)
    if not adobe:
        start = data.index(b"\xff\xee")
        data = data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]
    expected = np.asarray(image.convert("RGB"))
    assert np.abs(decode_image(data).astype(int) - expected).max() <= 6


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0Exif\0\0" + Image.Exif().tobytes()[6:],
        # A resolution of 72/0.
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\x01\0\0\0\x1a\0\0\0\0\0\0\0\x48\0\0\0\0\0\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abc\0\0\0\0\0",  # orientation as text
        b"Exif\0\0garbage",
    ],
)
def test_broken_exif_leaves_the_image_as_it_is(exif: bytes) -> None:
    image = Image.fromarray(PHOTO)
    np.testing.assert_array_equal(
        decode_image(encoded(image, "JPEG", quality=90, exif=exif)),
        decode_image(encoded(image, "JPEG", quality=90)),
    )


def test_whatever_reading_exif_raises_leaves_the_image_as_it_is(monkeypatch) -> None:
    """Earlier versions of Pillow raise other errors than this one."""
    data = encoded(Image.fromarray(PHOTO))
    for error in (TypeError, ZeroDivisionError, struct.error, KeyError, SyntaxError):
        monkeypatch.setattr(Image.Image, "getexif", lambda self, error=error: (_ for _ in ()).throw(error))
        np.testing.assert_array_equal(decode_image(data), PHOTO)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(PHOTO), exif=exif)
    turned = PHOTO.transpose(1, 0, 2) if orientation > 4 else PHOTO
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    np.testing.assert_array_equal(decode_image(data), turned)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoded(Image.fromarray(PHOTO), "GIF"), "this is a GIF: convert it to PNG"),
        (encoded(Image.fromarray(PHOTO), "BMP"), "this is a BMP"),
        (encoded(Image.fromarray(PHOTO), "TIFF"), "this is a TIFF"),
        (encoded(Image.fromarray(PHOTO), "EPS"), "this is PostScript"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "this is PostScript"),
        (b"DDS |\0\0\0" + b"\xff" * 120, "this is a DDS"),
        (b"\n <!doctype html><html>", "this is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"", "the file is empty"),
        (bytes(100), "begins with zeros"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"hello", "no PNG, JPEG or WebP"),
        (encoded(Image.fromarray(PHOTO))[:30], "unreadable image"),
        (encoded(Image.fromarray(PHOTO))[:200], "unreadable image"),
    ],
)
def test_what_is_no_readable_image_is_named(data: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        decode_image(data)


@pytest.mark.parametrize("size", [(8193, 8192), (13_370, 13_370), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_pixels_are_bounded_by_the_header(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(*size))
    for read in (lambda: read_header(path), lambda: decode_image(path.read_bytes())):
        with pytest.raises(BadInput, match=f"more than {MAX_PIXELS:,} pixels|unreadable image"):
            read()


def test_animations_are_refused() -> None:
    frames = [Image.fromarray(np.roll(PHOTO, i, 1)) for i in range(3)]
    for image_format in ("PNG", "WEBP"):
        data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:])
        with pytest.raises(BadInput, match="an animation of 3 frames"):
            decode_image(data)


def test_the_preview_in_a_camera_jpeg_is_no_animation() -> None:
    frames = [Image.fromarray(PHOTO), Image.fromarray(PHOTO[::2, ::2])]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert decode_image(data).shape == PHOTO.shape


def test_large_text_in_a_png_does_no_harm() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a photo of a bench" * 100_000, zip=True)
    data = encoded(Image.fromarray(PHOTO), pnginfo=info)
    try:
        np.testing.assert_array_equal(decode_image(data), PHOTO)
    except BadInput as error:
        assert "unreadable image" in str(error)  # noqa: PT017 - either is right, nothing else is


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize("make", [directory, dangling, loop, fifo, endless, _socket])
def test_what_is_no_file_is_an_error_at_once(tmp_path: Path, monkeypatch, make) -> None:
    monkeypatch.chdir(tmp_path)  # the names of sockets must be short
    make(path := Path("x.png"))
    for read in (read_header, read_file):
        with pytest.raises(BadInput, match=r"cannot be read|a directory|a pipe, socket or device"):
            read(path)


def test_links_to_files_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(PHOTO)))
    (tmp_path / "b.png").symlink_to("a.png")
    assert read_header(tmp_path / "b.png").size == (24, 16)
