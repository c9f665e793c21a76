"""The committed part of ImageReward's and HPSv3's reference data, a part of `scripts.make_golden_data`.

What scores do not need is left out, so that each is under 900 kB: ImageReward's projections for retrieval
and text positions that no test reaches, HPSv3's output layer, pixels (scores depend on all of them), and
some pictures with their cases. Cases keep their numbers; tests take those whose pictures are there.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_REWARD, HPSV3 = "imagereward", "hpsv3"
PICTURES = {
    IMAGE_REWARD: (
        "alpha.png",
        "exif.jpg",
        "grey.png",
        "palette.png",
        "square.png",
        "tiny.png",
        "wide.jpg",
    ),
    HPSV3: ("exact.jpg", "exif.jpg", "grey.png", "keep.jpg", "palette.png"),
}
COPIED = {
    IMAGE_REWARD: ("bert-base-uncased/vocab.txt", "med_config.json", "sizes.json"),
    HPSV3: ("base/config.json",),
}
PACKED = {
    IMAGE_REWARD: ("cases.json",),
    HPSV3: ("base/tokenizer.json", "cases.json", "real_vocabulary_ids.json"),
}
POSITIONS = 77  # a test shows what more than 35 tokens would cost
BY_HAND = ("hpsv3/qwen_words.tiktoken", "hpsv3/texts.json")  # made by tests/qwen_vocabulary.py
LEFT_OUT = {
    "imagereward, hpsv3: pixels, picture tokens, some pictures": "a test compares them in the full folder",
    "imagereward/ImageReward.pt, parts": "projections for retrieval; text positions beyond 77",
    "hpsv3/HPSv3.safetensors, lm_head.weight": "the score does not use it",
}


def write(full: Path, out: Path) -> None:
    """Write both folders."""
    for folder in (IMAGE_REWARD, HPSV3):
        pictures = tuple(f"images/{name}" for name in PICTURES[folder])
        for name in (*COPIED[folder], *pictures):
            shutil.copyfile(full / folder / name, _with_folder(out / folder / name))
        for name in PACKED[folder]:
            _pack((full / folder / name).read_bytes(), out / folder / f"{name}.gz")
    _pack(
        _image_reward(full / IMAGE_REWARD / "ImageReward.pt"),
        out / IMAGE_REWARD / "ImageReward.safetensors.gz",
    )
    _pack(_hpsv3(full / HPSV3 / "HPSv3.safetensors"), out / HPSV3 / "HPSv3.safetensors.gz")
    numbers = "|".join(_numbers(full / HPSV3))
    by_number = rf"(input_ids|position_ids|pixel_row_means)/({numbers})"
    for folder, pattern in {
        IMAGE_REWARD: "scores|cls",
        HPSV3: f"scores|hidden_at_reward|{by_number}",
    }.items():
        expected = load_file(full / folder / "expected.safetensors")
        _pack(save(_matching(expected, pattern)), out / folder / "expected.safetensors.gz")


def _numbers(folder: Path) -> list[str]:
    """Of the cases whose pictures are kept."""
    cases = json.loads((folder / "cases.json").read_text())["cases"]
    pictures = {f"images/{name}" for name in PICTURES[folder.name]}
    return [str(number) for number, case in enumerate(cases) if case["image"] in pictures]


def _image_reward(path: Path) -> bytes:
    import torch

    state = torch.load(path, weights_only=True)
    kept = _matching(state, r"(?!blip\.(vision_proj|text_proj)\.).+")
    name = "blip.text_encoder.embeddings.position_embeddings.weight"
    return save(kept | {name: state[name][:POSITIONS].contiguous()})


def _hpsv3(path: Path) -> bytes:
    return save(_matching(load_file(path), r"(?!lm_head\.).+"))


def _matching(tensors: dict[str, Tensor], pattern: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if re.fullmatch(pattern, name)}


def _pack(data: bytes, path: Path) -> None:
    """A gzip file without a timestamp."""
    _with_folder(path).write_bytes(gzip.compress(data, 9, mtime=0))


def _with_folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
