"""Exports: the layouts other tools read."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sar_eval.decoding.encode_images import encode
from sar_eval.errors import BadInput
from sar_eval.stages.export import export
from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import Prompt
from tests.stored_runs import begin_run, store_generations

CHECKS = {
    "tag": "colors",
    "include": [{"class": "ring", "count": 1, "color": "red"}],
    "prompt": "a red ring",
}
PROMPTS = [Prompt("colors-000", "a red ring", "colors", CHECKS), Prompt("b", "a star", "t")]
IMAGES = {
    f"{prompt.id}/{i}": encode(np.full((4, 4, 3), 100 * n + i, np.uint8), "png")
    for n, prompt in enumerate(PROMPTS)
    for i in range(2)
}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    spec, run = begin_run(tmp_path / "run", PROMPTS, images_per_prompt=3, batch_size=4)
    store_generations(spec, run, IMAGES)
    return run


def test_genevals_layout(folder: RunFolder, tmp_path: Path) -> None:
    assert export(folder, "geneval", tmp_path / "out") == 4
    assert json.loads((tmp_path / "out/00000/metadata.jsonl").read_text()) == CHECKS
    assert (tmp_path / "out/00000/samples/0001.png").read_bytes() == IMAGES["colors-000/1"]
    assert json.loads((tmp_path / "out/00001/metadata.jsonl").read_text())["prompt"] == "a star"


def test_webp_becomes_png_for_genevals_scripts(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    spec, run = begin_run(tmp_path / "run", PROMPTS[:1], images_per_prompt=1)
    store_generations(spec, run, {"colors-000/0": encode(pixels, "webp")})
    export(run, "geneval", tmp_path / "out")
    export(run, "folder", tmp_path / "flat")
    for path in (tmp_path / "out/00000/samples/0000.png", tmp_path / "flat/colors-000_0.webp"):
        with Image.open(path) as image:
            assert image.format == path.suffix[1:].upper()
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), pixels)


def test_flat_folder_with_manifest(folder: RunFolder, tmp_path: Path) -> None:
    assert export(folder, "folder", tmp_path / "out") == 4
    lines = [json.loads(line) for line in (tmp_path / "out/manifest.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == [
        "colors-000_0.png",
        "colors-000_1.png",
        "b_0.png",
        "b_1.png",
    ]
    assert all((tmp_path / "out" / line["file"]).is_file() for line in lines)


def test_what_cannot_be_exported_is_refused(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown layout"):
        export(folder, "zip", tmp_path / "out")
    with pytest.raises(BadInput, match="not empty"):
        export(folder, "folder", folder.path)


@pytest.mark.parametrize("layout", ["folder", "geneval", "dpg"])
@pytest.mark.parametrize("suffix", ["JPEG", "WEBP", "PNG"])
def test_files_are_called_by_their_contents(tmp_path: Path, layout: str, suffix: str) -> None:
    """A JPEG of a scored folder is exported as .jpg; the official layouts get real PNGs."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
        buffer, suffix
    )
    spec, run = begin_run(tmp_path / "run", PROMPTS[1:], images_per_prompt=1)
    store_generations(spec, run, {"b/0": buffer.getvalue()})
    assert export(run, layout, tmp_path / "out") == 1
    [path] = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".png", ".jpg", ".webp")]
    with Image.open(path) as image:
        assert {"JPEG": "jpg"}.get(str(image.format), str(image.format).lower()) == path.suffix[1:]


@pytest.mark.parametrize("layout", ["folder", "geneval", "dpg"])
@pytest.mark.parametrize("name", ["../../pwned.sh", "/tmp/pwned.sh", "b/../../x", "b\0", ""])
def test_names_in_a_part_never_become_paths(tmp_path: Path, layout: str, name: str) -> None:
    """Whoever makes a part chooses what is in it, its digest included."""
    spec, run = begin_run(tmp_path / "run", PROMPTS[1:], images_per_prompt=1)
    store_generations(spec, run, {"b/0": IMAGES["b/0"]})
    [row] = run.generations.rows()
    row["image"]["path"] = name
    run.write_generations(0, [row], spec.digest)
    assert export(run, layout, tmp_path / "a") == 1  # the path of a row is not looked at
    row["prompt_id"], row["key"] = name, f"{name}/0"
    run.write_generations(0, [row], spec.digest)
    with pytest.raises(BadInput, match="where b/0 belongs"):
        export(run, layout, tmp_path / "b")
    assert {path.parent for path in tmp_path.rglob("*.sh")} == set()


def test_bytes_that_are_no_image_are_not_written(tmp_path: Path) -> None:
    spec, run = begin_run(tmp_path / "run", PROMPTS[1:], images_per_prompt=1)
    store_generations(spec, run, {"b/0": b"#!/bin/sh\necho pwned\n"})
    with pytest.raises(BadInput, match="what is stored for b/0 is neither PNG, JPEG nor WebP"):
        export(run, "folder", tmp_path / "out")


def test_two_parts_of_a_block_are_exported_once(tmp_path: Path) -> None:
    """A crash between the rename of a new part and the removal of the older one leaves both."""
    spec, run = begin_run(tmp_path / "run", PROMPTS, images_per_prompt=2)
    store_generations(spec, run, {})
    failed = run.generations.paths()[0]
    data = failed.read_bytes()
    store_generations(spec, run, IMAGES)
    failed.write_bytes(data)
    assert len(run.generations.paths()) == 2
    assert export(run, "folder", tmp_path / "out") == 4
