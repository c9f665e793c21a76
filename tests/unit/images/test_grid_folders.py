"""Folders of 2x2 grids and of single files: detected, imported, exported and read back."""

import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_grids import make_grid, noise, photo

from sar_eval.decoding.encode_images import encode
from sar_eval.errors import BadInput
from sar_eval.images.files import decode_image, is_lossy
from sar_eval.images.folder import HowToRead, find_images
from sar_eval.images.grids import Grid
from sar_eval.recipe import load_recipe
from sar_eval.stages.export import export
from sar_eval.stages.import_images import import_images
from sar_eval.stages.resolve import resolve_images
from sar_eval.stages.resume import prepare
from sar_eval.storage.run_folder import RunFolder
from sar_eval.suites.shapes.render import render
from sar_eval.suites.shapes.scenes import sample_scene
from sar_eval.types import Prompt
from tests.stored_runs import begin_run, store_generations

# Ids as in DPG-Bench: some end like an index.
PROMPTS = [
    Prompt(name, f"image {name}") for name in ("12", "stanford_2", "stanford_21", "COCOval_0", "vrd7")
]
SIZE = (40, 32)


def photos(seed: int, number: int = 4, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [photo(rng, size) for _ in range(number)]


def write_grids(root: Path, suffix: str = ".png", **layout) -> dict[str, list[np.ndarray]]:
    """A grid of every prompt; returns the tiles."""
    root.mkdir(exist_ok=True)
    tiles_of = {prompt.id: photos(seed) for seed, prompt in enumerate(PROMPTS)}
    for name, tiles in tiles_of.items():
        Image.fromarray(make_grid(tiles, **layout)).save(root / f"{name}{suffix}")
    return tiles_of


def imported(tmp_path: Path, images, prompts=PROMPTS, each: int = 4, notes: list[str] | None = None):
    """The rows that the stage stores, by draw key."""
    suite = tmp_path / "suite.jsonl"
    suite.write_text("\n".join(json.dumps({"id": p.id, "text": p.text}) for p in prompts))
    (tmp_path / "r.toml").write_text('suite = "suite.jsonl"\nbatch_size = 6\n')  # no multiple of 4
    spec = resolve_images(
        load_recipe(str(tmp_path / "r.toml")),
        tmp_path,
        images.digest(),
        str(images),
        images.resolution,
        {"images_per_prompt": each},
    )
    folder = RunFolder(tmp_path / "imported")
    prepare(spec, folder)
    said = import_images(spec, folder, images)
    if notes is not None:
        notes += said
    return {row["key"]: row for row in folder.generations.rows()}


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ({}, "2x2 grids (PNG), no padding, 40x32"),
        ({"padding": 2}, "2x2 grids (PNG), 2 px padding and border, 40x32"),
        ({"padding": 3, "value": 255, "border": False}, "2x2 grids (PNG), 3 px padding, 40x32"),
    ],
)
def test_every_tile_of_a_png_grid_is_stored_bit_for_bit(tmp_path, layout, text) -> None:
    tiles = write_grids(tmp_path / "in", **layout)
    images = find_images(tmp_path / "in", PROMPTS, HowToRead(4))
    assert (images.layout, str(images), images.resolution, images.notes) == ("grids", text, 40, [])
    assert images.missing(PROMPTS) == []
    rows = imported(tmp_path, images)
    assert len(rows) == 20
    for key, row in rows.items():
        name, _, index = key.rpartition("/")
        data = row["image"]["bytes"]
        assert data.startswith(b"\x89PNG")
        np.testing.assert_array_equal(decode_image(data), tiles[name][int(index)])


def test_jpeg_grids_as_simplear_writes_them(tmp_path) -> None:
    tiles = write_grids(tmp_path / "in", ".jpg", padding=2)
    images = find_images(tmp_path / "in", PROMPTS, HowToRead(4))
    assert str(images) == "2x2 grids (JPEG), 2 px padding and border, 40x32"
    for key, row in imported(tmp_path, images).items():
        name, _, index = key.rpartition("/")
        error = np.abs(
            np.subtract(decode_image(row["image"]["bytes"]), tiles[name][int(index)], dtype=float)
        )
        assert error.mean() < 12


def test_the_grid_is_in_the_protocol_and_in_the_digest(tmp_path) -> None:
    write_grids(tmp_path, padding=2)
    images = find_images(tmp_path, PROMPTS, HowToRead(4))
    digest, resolution = images.digest(), images.resolution
    spec = resolve_images(load_recipe("shapes"), tmp_path, digest, str(images), resolution, {})
    assert spec.protocol.name == "images as they are, 2x2 grids (PNG), 2 px padding and border, 40x32"
    assert spec.protocol.resolution == 40
    images.grid = Grid((42, 34))
    assert images.digest() != digest


def test_a_file_unlike_the_other_grids_is_an_error_of_its_draws(tmp_path) -> None:
    write_grids(tmp_path / "in", padding=2)
    (single,) = photos(9, 1, (86, 70))  # as large as the grids
    Image.fromarray(single).save(tmp_path / "in" / "12.png")
    Image.fromarray(photos(9, 1, (64, 64))[0]).save(tmp_path / "in" / "stanford_2.png")
    (tmp_path / "in" / "COCOval_0.png").unlink()
    images = find_images(tmp_path / "in", PROMPTS, HowToRead(4))
    assert images.missing(PROMPTS) == ["COCOval_0"]
    rows = imported(tmp_path, images)
    for index in range(4):
        error = rows[f"12/{index}"]["error"]
        assert "is no grid like the others (2 px padding and border, 40x32): a single" in error
        assert "stanford_2.png is 64x64 pixels, most are 86x70" in rows[f"stanford_2/{index}"]["error"]
        assert rows[f"COCOval_0/{index}"]["error"] == "missing: the folder has no such image"
        assert rows[f"stanford_21/{index}"]["error"] is None
    assert all(row["image"] is None for row in rows.values() if row["error"])


def test_a_black_tile_is_an_error_of_its_draw(tmp_path) -> None:
    write_grids(tmp_path / "in")
    tiles = photos(0)
    tiles[2] = np.zeros_like(tiles[2])
    Image.fromarray(make_grid(tiles)).save(tmp_path / "in" / "12.png")
    rows = imported(tmp_path, find_images(tmp_path / "in", PROMPTS, HowToRead(4)))
    assert rows["12/2"]["error"].endswith("12.png, tile 2 is blank: one colour all over")
    assert [rows[f"12/{index}"]["error"] for index in (0, 1, 3)] == [None] * 3


def test_an_unreadable_grid_is_an_error_of_its_draws(tmp_path) -> None:
    write_grids(tmp_path / "in")
    path = tmp_path / "in" / "12.png"
    path.write_bytes(path.read_bytes()[:2000])
    rows = imported(tmp_path, find_images(tmp_path / "in", PROMPTS, HowToRead(4)))
    assert all("unreadable image" in rows[f"12/{index}"]["error"] for index in range(4))


def test_files_that_cannot_be_cut_are_refused(tmp_path) -> None:
    for prompt in PROMPTS:
        Image.fromarray(noise(1, (31, 31), 1)[0]).save(tmp_path / f"{prompt.id}.png")
    with pytest.raises(BadInput, match=r"31x31 pixels cannot be cut .* use --images-per-prompt 1"):
        find_images(tmp_path, PROMPTS, HowToRead(4))
    for path in tmp_path.iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(BadInput, match="none of the images can be read"):
        find_images(tmp_path, PROMPTS, HowToRead(4))


def test_single_images_where_four_are_expected_are_refused(tmp_path) -> None:
    for seed, prompt in enumerate(PROMPTS):
        Image.fromarray(photos(seed, 1, (64, 64))[0]).save(tmp_path / f"{prompt.id}.png")
    with pytest.raises(BadInput, match=r"5 of 5: no edge in the middle.*--images-per-prompt 1.*--grid 2x2"):
        find_images(tmp_path, PROMPTS, HowToRead(4))
    single = find_images(tmp_path, PROMPTS, HowToRead(1))
    assert (single.layout, str(single), single.notes) == ("named", "64x64", [])
    assert sorted(single.files) == sorted(f"{prompt.id}/0" for prompt in PROMPTS)
    forced = find_images(tmp_path, PROMPTS, HowToRead(4, grid=(2, 2)))
    assert str(forced) == "2x2 grids (PNG), no padding, 32x32"


def test_an_id_may_end_like_an_index(tmp_path) -> None:
    for seed, prompt in enumerate(PROMPTS):
        for index, tile in enumerate(photos(seed, 2)):
            Image.fromarray(tile).save(tmp_path / f"{prompt.id}_{index}.png")
    found = find_images(tmp_path, PROMPTS, HowToRead(2))
    assert found.files["stanford_2/1"].name == "stanford_2_1.png"
    assert found.files["stanford_21/0"].name == "stanford_21_0.png"
    assert len(found.files) == 10


def test_mixed_and_unknown_names_are_refused(tmp_path) -> None:
    for name in ("12_0", "stanford_2"):
        Image.fromarray(photos(1, 1)[0]).save(tmp_path / f"{name}.png")
    with pytest.raises(BadInput, match=r"stanford_2\.png without an index, where other files have one"):
        find_images(tmp_path, PROMPTS, HowToRead(4))
    for number in range(7):
        Image.fromarray(photos(1, 1)[0]).save(tmp_path / f"cat{number}.png")
    (tmp_path / "stanford_2.png").unlink()
    with pytest.raises(BadInput, match=r"cat0\.png, .*cat4\.png and 2 more names no prompt of this suite"):
        find_images(tmp_path, PROMPTS, HowToRead(4))


def test_jpeg_and_most_webp_are_lossy() -> None:
    (pixels,) = photos(1, 1)
    assert is_lossy(_encoded(pixels, "JPEG"))
    assert is_lossy(_encoded(pixels, "WEBP", quality=80))
    assert not is_lossy(_encoded(pixels, "WEBP", lossless=True))
    assert not is_lossy(_encoded(pixels, "PNG"))


def _encoded(pixels: np.ndarray, image_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


def make_run(path: Path, images: dict[str, bytes | None], each: int) -> RunFolder:
    """A run whose draws have these encoded images, or failed."""
    spec, run = begin_run(path, PROMPTS, images_per_prompt=each)
    store_generations(spec, run, images)
    return run


@pytest.mark.parametrize(("each", "image_format"), [(1, "png"), (1, "webp"), (4, "png"), (4, "webp")])
def test_exported_files_are_read_back_to_the_same_pixels(tmp_path, each, image_format) -> None:
    """Scenes of the demo world, whose uniform background leaves no edge in the middle of a grid."""
    rng = random.Random(8)
    drawn = {
        f"{prompt.id}/{index}": render(sample_scene(rng, style="clean"))
        for prompt in PROMPTS
        for index in range(each)
    }
    images = {key: encode(pixels, image_format) for key, pixels in drawn.items()}
    run = make_run(tmp_path / "run", images, each)
    assert export(run, "dpg", tmp_path / "out") == 5 * each
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"{prompt.id}.png" for prompt in PROMPTS
    )
    with Image.open(tmp_path / "out" / "12.png") as image:
        assert (image.format, image.size) == ("PNG", (64, 64) if each == 1 else (128, 128))
    exported = find_images(tmp_path / "out", PROMPTS, HowToRead(each))
    assert exported.notes == []
    rows = imported(tmp_path, exported, each=each)
    for key, pixels in drawn.items():
        np.testing.assert_array_equal(decode_image(rows[key]["image"]["bytes"]), pixels)


def test_a_prompt_with_a_failed_draw_gets_no_grid(tmp_path) -> None:
    images = {
        f"{prompt.id}/{index}": encode(tile, "png")
        for seed, prompt in enumerate(PROMPTS)
        for index, tile in enumerate(photos(seed))
    }
    run = make_run(tmp_path / "run", {**images, "12/1": None}, 4)
    assert export(run, "dpg", tmp_path / "out") == 16
    assert not (tmp_path / "out" / "12.png").exists()


def test_runs_that_the_official_layout_cannot_hold_are_refused(tmp_path) -> None:
    images = {
        f"{prompt.id}/{index}": encode(photos(index, 1, (32, 32 + 2 * index))[0], "png")
        for prompt in PROMPTS
        for index in range(4)
    }
    with pytest.raises(BadInput, match=r"layout dpg holds 1 or 4 images a prompt, not 2"):
        export(make_run(tmp_path / "two", images, 2), "dpg", tmp_path / "out-two")
    with pytest.raises(BadInput, match=r"prompt '12' are of several sizes \(32x32, 32x34, 32x36, 32x38\)"):
        export(make_run(tmp_path / "four", images, 4), "dpg", tmp_path / "out-four")
