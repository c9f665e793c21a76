"""Write tests/golden/data, the committed part of the reference data, from the full folder.

    python -m scripts.make_golden_data ../shared/parity [OUT]

Run from the repository's root. The output is reproducible, and a test compares it with the committed files.
README.md and the licence there are written by hand and not touched.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from safetensors.numpy import load_file, save_file

from scripts import golden_clip, golden_rewards
from tests.mplug_recipe import digest, read_weights

OUT = Path(__file__).parents[1] / "tests" / "golden" / "data"
SIMPLEAR = ("config.json", "expected.json", "model.safetensors")
VARIANT = "mplug/stride6_distill"  # as the released judge: momentum copies, no connected layer
COPIED = (
    "geneval/evaluation_metadata.jsonl",
    "geneval/object_names.txt",
    "geneval/verdicts.jsonl.gz",
    "dpg/scores.jsonl.gz",
    *(f"folds/{name}/dev.jsonl.gz" for name in ("longtext", "oneig", "unigenbench")),
    *(f"simplear/{name}/{file}" for name in ("dev_tied", "dev_untied") for file in SIMPLEAR),
    "mask2former/config.json",
    "mask2former/mask2former_tiny_mmdet.pth",
    "mplug/beam_search.json",
    "mplug/reference_env.txt",
    *(f"mplug/images/{name}.png" for name in ("noise", "rgba", "shapes")),
    *(
        f"{VARIANT}/{file}"
        for file in ("config.yaml", "config_bert.json", "configuration.json", "vocab.txt")
    ),
    *(f"{VARIANT}/{file}" for file in ("expected.json", "expected.safetensors", "keys.json")),
    "folds/geneval2/tiny-qwen3-vl/tokenizer.json",
    "folds/geneval2/tiny-qwen3-vl/tokenizer_config.json",
    *(f"vqascore/{name}.json" for name in ("cases", "config", "clip/config", "clip/preprocessor_config")),
    "vqascore/tokenizer/tokenizer_config.json",
    *(f"vqascore/images/{name}" for name in ("palette.png", "grey.png", "exif.jpg", "wide.jpg")),
)
COMPRESSED = (
    "dpg/prompts.jsonl",
    "mplug/manifest_large.json",
    "vqascore/pytorch_model.bin",
    "vqascore/tokenizer/spiece.model",
)
IMAGES = ("image1", "image2")  # of Mask2Former
FIRST_OF_EACH_MODE = ("dsg", "hpsv2", "imagereward")  # folds of which one case of each mode is kept
FOLDS = {  # cases of each kind and form that are kept
    "geneval2": {"row": 8, "suite": 8, "model": 0},  # a request has words that are not ours to pass on
    "paircomp": {"probability": 24, "suite": 3},
    "tiif": {"reply": 120, "suite": 12, "ocr": 12},
    "wise": {"reply": 999, "replies": 1, "lines": 2},
}
LEFT_OUT = {
    "mask2former/image0.png, image3.png": "with their outputs: image3's instances alone are 1.5 MB",
    "mask2former, mask logits of image1 and image2": "9.9 MB; the instances' masks are computed from them",
    "mplug/stride3_plain": "another 5 MB with its weights",
    f"{VARIANT}/pytorch_model.bin": "8.8 MB; tests/mplug_recipe.py generates it, bit for bit",
    "mplug/detweights.py, regen.py": "tests/mplug_recipe.py replaces them",
    **golden_clip.LEFT_OUT,
    **golden_rewards.LEFT_OUT,
    "folds": "most of the larger cases",
    "vqascore": "five of nine pictures, and the tensors of single stages",
    "all other folders": "no test reads them yet",
}


def main(full: Path, out: Path = OUT) -> None:
    """Write every file of the committed part to `out`, and print what is left out."""
    for name in COPIED:
        shutil.copyfile(full / name, _with_folder(out / name))
    for name in COMPRESSED:
        _compress((full / name).read_bytes(), out / f"{name}.gz")
    for name in FIRST_OF_EACH_MODE:
        cases = _first_of_each_mode(full / "folds" / name / "dev.jsonl.gz")
        _compress(cases, out / "folds" / name / "dev.jsonl.gz")
    for name, kept in FOLDS.items():
        cases = _first_cases(full / "folds" / name / "dev.jsonl.gz", kept)
        _compress(cases, out / "folds" / name / "dev.jsonl.gz")
    instances = json.loads((full / "mask2former" / "expected_instances.json").read_text())
    of_images = json.dumps({image: instances[image] for image in IMAGES})
    _compress(of_images.encode(), out / "mask2former" / "expected_instances.json.gz")
    logits = load_file(full / "mask2former" / "expected_logits.safetensors")
    classes = {f"{image}.cls_logits": logits[f"{image}.cls_logits"] for image in IMAGES}
    save_file(classes, out / "mask2former" / "expected_logits.safetensors")
    for image in IMAGES:
        shutil.copyfile(full / "mask2former" / f"{image}.png", out / "mask2former" / f"{image}.png")
    weights = read_weights(full / VARIANT / "pytorch_model.bin")
    (out / VARIANT / "weights.sha256").write_text(digest(weights) + "\n")
    golden_clip.write(full, out)
    golden_rewards.write(full, out)
    for name, reason in LEFT_OUT.items():
        print(f"left out: {name} ({reason})")


def _first_of_each_mode(path: Path) -> bytes:
    """The lines of the first case of each kind and mode of a benchmark."""
    first: dict[tuple[str, str], bytes] = {}
    for line in gzip.decompress(path.read_bytes()).splitlines(keepends=True):
        case = json.loads(line)
        first.setdefault((case["kind"], case["mode"]), line)
    return b"".join(first.values())


def _first_cases(path: Path, kept: Mapping[str, int]) -> bytes:
    """The lines of the first cases of each kind and form of a benchmark."""
    found: Counter[tuple[str, str]] = Counter()
    lines = []
    for line in gzip.decompress(path.read_bytes()).splitlines(keepends=True):
        case = json.loads(line)
        form = case["kind"], case.get("benchmark", "")
        found[form] += 1
        if found[form] <= kept[case["kind"]]:
            lines.append(line)
    return b"".join(lines)


def _compress(data: bytes, path: Path) -> None:
    """Write a gzip file without a timestamp, so that the same data give the same file."""
    _with_folder(path).write_bytes(gzip.compress(data, 9, mtime=0))


def _with_folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
