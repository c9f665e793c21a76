"""Exports: the layouts other tools read."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sar_eval.decoding.encode_images import encode
from sar_eval.errors import BadInput
from sar_eval.stages.export import export
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import generation_row
from sar_eval.types import Generation, Prompt

CHECKS = {
    "tag": "colors",
    "include": [{"class": "ring", "count": 1, "color": "red"}],
    "prompt": "a red ring",
}
PROMPTS = [Prompt("colors-000", "a red ring", "colors", CHECKS), Prompt("b", "a star", "t")]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.write_prompts(PROMPTS)
    made = [
        (p, Generation(f"{p.id}/{i}", 5, (1,), f"{p.id}{i}".encode())) for p in PROMPTS for i in range(2)
    ]
    made.append((PROMPTS[1], Generation("b/2", 5, error="broken")))
    run.generations.write(0, [generation_row(prompt, generation, "d") for prompt, generation in made])
    return run


def test_genevals_layout(folder: RunFolder, tmp_path: Path) -> None:
    assert export(folder, "geneval", tmp_path / "out") == 4
    assert json.loads((tmp_path / "out/00000/metadata.jsonl").read_text()) == CHECKS
    assert (tmp_path / "out/00000/samples/0001.png").read_bytes() == b"colors-0001"
    assert json.loads((tmp_path / "out/00001/metadata.jsonl").read_text())["prompt"] == "a star"


def test_webp_becomes_png_for_genevals_scripts(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    run = RunFolder(tmp_path / "run")
    run.write_prompts(PROMPTS[:1])
    made = Generation("colors-000/0", 5, (1,), encode(pixels, "webp"))
    run.generations.write(0, [generation_row(PROMPTS[0], made, "d")])
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
