"""What becomes of the images of a folder: one bad file is an error of its draws and of nothing else."""

import resource
import struct
from pathlib import Path

import pytest
from PIL import Image
from test_files import encoded, png
from test_grid_folders import imported, photos
from test_names import save

from sar_eval.images.folder import HowToRead, find_images
from sar_eval.types import Prompt
from tests.odd_files import dangling, directory, endless, fifo, loop

PROMPTS = [Prompt(f"{i:05d}", f"prompt {i}") for i in range(8)]


def write_images(root: Path) -> Path:
    root.mkdir(exist_ok=True)
    for prompt, image in zip(PROMPTS, photos(1, 8), strict=True):
        Image.fromarray(image).save(root / f"{prompt.id}_0.png")
    return root


def rows_of(tmp_path: Path, **how) -> dict[str, dict]:
    images = find_images(tmp_path / "in", PROMPTS, HowToRead(1, **how))
    assert len(images.digest()) == 16
    return imported(tmp_path, images, PROMPTS, 1)


def _bomb(path: Path) -> None:
    path.write_bytes(png(20_000, 20_000))


def _gif(path: Path) -> None:
    path.write_bytes(encoded(Image.new("RGB", (8, 8)), "GIF"))


def _false_size(path: Path) -> None:
    """A header that the rest does not keep."""
    data = bytearray(encoded(Image.new("RGB", (8, 8), "red")))
    data[16:24] = struct.pack(">II", 4000, 4000)
    path.write_bytes(bytes(data))


BAD = {
    directory: "a directory, not an image",
    dangling: "no such file, or a link to none",
    loop: "cannot be read: Too many levels of symbolic links",
    fifo: "a pipe, socket or device",
    endless: "a pipe, socket or device",
    _bomb: "more than 67,108,864 pixels",
    _gif: "this is a GIF: convert it to PNG",
    _false_size: "unreadable image",
}


def test_bad_files_are_errors_of_their_own_draws_only(tmp_path) -> None:
    root = write_images(tmp_path / "in")
    for prompt, make in zip(PROMPTS[:7], [m for m in BAD if m is not _false_size], strict=True):
        (root / f"{prompt.id}_0.png").unlink()
        make(root / f"{prompt.id}_0.png")
    rows = rows_of(tmp_path)
    for prompt, message in zip(PROMPTS[:7], [BAD[m] for m in BAD if m is not _false_size], strict=True):
        assert message in rows[f"{prompt.id}/0"]["error"]
        assert f"{prompt.id}_0.png" in rows[f"{prompt.id}/0"]["error"]
    assert rows["00007/0"]["error"] is None


def test_a_false_header_is_an_error_of_its_draw(tmp_path) -> None:
    _false_size(write_images(tmp_path / "in") / "00000_0.png")
    rows = rows_of(tmp_path)
    assert [key for key, row in rows.items() if row["error"]] == ["00000/0"]


def test_images_of_many_sizes_are_taken_unless_refused(tmp_path) -> None:
    root = write_images(tmp_path / "in")
    save(root / "00003_0.png", size=(80, 48))
    assert all(row["error"] is None for row in rows_of(tmp_path).values())
    same = find_images(root, PROMPTS, HowToRead(1, same_size=True))
    (tmp_path / "again").mkdir()
    rows = imported(tmp_path / "again", same, PROMPTS, 1)
    assert "is 80x48 pixels, most are 40x32" in rows["00003/0"]["error"]
    assert sum(row["error"] is not None for row in rows.values()) == 1


def test_transparency_is_said_once(tmp_path) -> None:
    root = write_images(tmp_path / "in")
    for name in ("00000_0", "00001_0"):
        image = Image.open(root / f"{name}.png")
        image.putalpha(Image.new("L", image.size, 120))
        image.save(root / f"{name}.png")
    notes: list[str] = []
    rows = imported(tmp_path, find_images(root, PROMPTS, HowToRead(1)), PROMPTS, 1, notes)
    assert [note[:32] for note in notes] == ["2 images are partly transparent:"]
    assert '"transparent": true' in rows["00001/0"]["provenance"]
    assert "transparent" not in rows["00002/0"]["provenance"]


@pytest.mark.slow
def test_large_images_are_decoded_one_at_a_time(tmp_path) -> None:
    """Eight of 549 kB took 9.9 GB when four were decoded at once, and before their size was looked at."""
    root = write_images(tmp_path / "in")
    rows = b"".join(b"\0" + bytes(8192 * 3) for _ in range(8192))
    data = png(8192, 8192, rows)
    for prompt in PROMPTS[:4]:
        (root / f"{prompt.id}_0.png").write_bytes(data)
    for prompt in PROMPTS[4:]:
        (root / f"{prompt.id}_0.png").write_bytes(png(13_370, 13_370))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    errors = [row["error"] for row in rows_of(tmp_path).values()]
    assert ["is blank" in error for error in errors] == [True] * 4 + [False] * 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2_500_000  # kilobytes
