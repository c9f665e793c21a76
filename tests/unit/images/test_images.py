"""Matching the files of a folder to draws, in every layout."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sar_eval.errors import BadInput
from sar_eval.images.files import decode_image
from sar_eval.images.folder import HowToRead, find_images, match_files
from sar_eval.stages.write_manifest import write_manifest
from sar_eval.types import Prompt

PROMPTS = [
    Prompt("00000", "a photo of a dog", "single_object", {"include": [{"class": "dog", "count": 1}]}),
    Prompt("00001", "a photo of a cup", "single_object", {"include": [{"class": "cup", "count": 1}]}),
]


def save(path: Path, size: tuple[int, int] = (8, 6), color: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), color, np.uint8)
    pixels[0, 0] = 0
    Image.fromarray(pixels).save(path)
    return path


def folders(root: Path, numbers: tuple[str, ...] = ("0000", "0001"), suffix: str = ".png") -> Path:
    """The official layout, with the folders in another order than the suite."""
    for folder, prompt in zip(("00000", "00001"), reversed(PROMPTS), strict=True):
        for number in numbers:
            save(root / folder / "samples" / f"{number}{suffix}")
        metadata = {**prompt.checks, "prompt": prompt.text}
        (root / folder / "metadata.jsonl").write_text(json.dumps(metadata))
    return root


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".PNG"])
def test_official_folders_are_matched_by_their_metadata(tmp_path, suffix) -> None:
    images = find_images(folders(tmp_path, suffix=suffix), PROMPTS, HowToRead(2))
    assert images.layout == "geneval"
    assert images.files["00000/1"] == tmp_path / "00001" / "samples" / f"0001{suffix}"
    assert sorted(images.files) == ["00000/0", "00000/1", "00001/0", "00001/1"]
    assert images.size == (8, 6)


def test_official_folders_may_lie_deeper_or_without_samples(tmp_path) -> None:
    """Not by the folders' numbers: they are another order than the suite's."""
    folders(tmp_path / "out" / "step-9")
    (tmp_path / "__MACOSX" / "00000").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "00000" / "metadata.jsonl").write_text("x")
    images = find_images(tmp_path, PROMPTS, HowToRead(2))
    assert images.layout == "geneval"
    assert images.files["00000/1"] == tmp_path / "out/step-9/00001/samples/0001.png"
    matched = match_files(tmp_path, PROMPTS, HowToRead(2))
    (tmp_path / "manifest.jsonl").write_text(write_manifest(matched, PROMPTS, None))
    assert find_images(tmp_path, PROMPTS, HowToRead(2)).files == images.files
    for name in ("00000", "00001"):
        inner = tmp_path / "out/step-9" / name
        (inner / "samples").rename(inner / "Samples" if name == "00000" else inner / "x")
    for path in (inner / "x").iterdir():
        path.rename(inner / path.name)
    images = find_images(tmp_path / "out", PROMPTS, HowToRead(2))
    assert images.files["00000/1"] == tmp_path / "out/step-9/00001/0001.png"
    folders(tmp_path / "out" / "step-10")
    with pytest.raises(BadInput, match=r"2 folders of images: name one, as .*step-10"):
        find_images(tmp_path / "out", PROMPTS, HowToRead(2))


def test_numbers_may_start_at_one_and_have_any_width(tmp_path) -> None:
    assert sorted(find_images(folders(tmp_path, ("1", "2")), PROMPTS, HowToRead(2)).files)[:2] == [
        "00000/0",
        "00000/1",
    ]


def test_a_missing_number_keeps_its_index(tmp_path) -> None:
    folder = folders(tmp_path, ("00000", "00001", "00002"))
    (folder / "00000" / "samples" / "00001.png").unlink()
    assert "00001/1" not in find_images(folder, PROMPTS, HowToRead(3)).files
    assert "00001/2" in find_images(folder, PROMPTS, HowToRead(3)).files


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("by", ["prompt_id", "prompt"])
def test_manifests(tmp_path, kind, by) -> None:
    rows = []
    for i, prompt in enumerate([*PROMPTS, PROMPTS[0]]):
        save(tmp_path / f"{i}.webp")
        rows.append({"file": f"{i}.webp", by: prompt.id if by == "prompt_id" else prompt.text})
    if kind == "jsonl":
        (tmp_path / "manifest.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    else:
        lines = [f"file,{by}", *(f"{row['file']},{row[by]}" for row in rows)]
        (tmp_path / "manifest.csv").write_text("\n".join(lines))
    images = find_images(tmp_path, PROMPTS, HowToRead(2))
    assert images.layout == "manifest"
    assert {key: path.name for key, path in images.files.items()} == {
        "00000/0": "0.webp",
        "00001/0": "1.webp",
        "00000/1": "2.webp",
    }


@pytest.mark.parametrize("pattern", ["{}_{}.png", "{}/{}.png"])
def test_names(tmp_path, pattern) -> None:
    for prompt in PROMPTS:
        for index in range(2):
            save(tmp_path / pattern.format(prompt.id, index))
    images = find_images(tmp_path, PROMPTS, HowToRead(2))
    assert images.layout == "named"
    assert sorted(images.files) == ["00000/0", "00000/1", "00001/0", "00001/1"]


def test_the_digest_is_of_names_and_bytes(tmp_path) -> None:
    digest = find_images(folders(tmp_path / "a"), PROMPTS, HowToRead(2)).digest()
    assert digest == find_images(folders(tmp_path / "b"), PROMPTS, HowToRead(2)).digest()
    save(tmp_path / "b" / "00000" / "samples" / "0001.png", color=8)
    assert digest != find_images(tmp_path / "b", PROMPTS, HowToRead(2)).digest()


def test_the_size_is_the_most_common_one(tmp_path) -> None:
    folder = folders(tmp_path)
    other = save(folder / "00000" / "samples" / "0001.png", size=(9, 9))
    (folder / "00001" / "samples" / "0001.png").write_bytes(b"no image")
    images = find_images(folder, PROMPTS, HowToRead(2))
    assert images.size == (8, 6)
    assert images.sizes[other] == (9, 9)
    assert images.sizes[folder / "00001" / "samples" / "0001.png"] is None


def _unknown_prompt(folder: Path) -> None:
    (folder / "00000" / "metadata.jsonl").write_text('{"prompt": "a photo of a yak"}')


def _invalid_json(folder: Path) -> None:
    (folder / "00000" / "metadata.jsonl").write_text("{")


def _no_number(folder: Path) -> None:
    save(folder / "00000" / "samples" / "grid.png")


def _too_many(folder: Path) -> None:
    save(folder / "00000" / "samples" / "0002.png")


def _same_index(folder: Path) -> None:
    save(folder / "00000" / "samples" / "1.png")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_unknown_prompt, "belongs to no prompt of this suite: 'a photo of a yak'"),
        (_invalid_json, "broken JSON"),
        (_no_number, r"grid\.png: a sample's name must be a number"),
        (_too_many, "--images-per-prompt"),
        (_same_index, "are both image 1"),
    ],
)
def test_invalid_folders_are_refused(tmp_path, damage, message) -> None:
    folder = folders(tmp_path)
    damage(folder)
    with pytest.raises(BadInput, match=message):
        find_images(folder, PROMPTS, HowToRead(2))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file": "0.png"}', r"manifest\.jsonl:1: neither `prompt_id` nor `prompt` names"),
        ('{"file": "9.png", "prompt_id": "00000"}', "manifest.jsonl:1: no file"),
        ('{"file": "../0.png", "prompt_id": "00000"}', "no `file` inside"),
        ('{"file": "0.png", "prompt_id": "00000", "index": "x"}', "`index` is 'x'"),
        ("3", "manifest.jsonl:1: each line must be a JSON object"),
    ],
)
def test_invalid_manifests_are_refused_with_their_line(tmp_path, line, message) -> None:
    save(tmp_path / "0.png")
    (tmp_path / "manifest.jsonl").write_text(line)
    with pytest.raises(BadInput, match=message):
        find_images(tmp_path, PROMPTS, HowToRead(2))


def test_unknown_layouts_and_missing_folders_are_refused(tmp_path) -> None:
    with pytest.raises(BadInput, match="no folder"):
        find_images(tmp_path / "absent", PROMPTS, HowToRead(2))
    with pytest.raises(BadInput, match=r"known layouts are geneval: .*; manifest: .*; named: "):
        find_images(tmp_path, PROMPTS, HowToRead(2))
    save(tmp_path / "cat_0.png")
    with pytest.raises(BadInput, match=r"cat_0\.png names no prompt of this suite"):
        find_images(tmp_path, PROMPTS, HowToRead(2))


def test_decoding_applies_exif_orientation_and_drops_alpha() -> None:
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[..., 0], pixels[..., 3] = 200, 10
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    decoded = decode_image(buffer.getvalue())
    assert decoded.shape == (6, 4, 3)
    assert (decoded[..., 0] == 200).all()


def test_a_truncated_image_is_unreadable(tmp_path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    with pytest.raises(BadInput, match="unreadable image"):
        decode_image(data[: len(data) // 2])
