"""The committed part of the reference data of the scorers on CLIP, for `scripts.make_golden_data`."""

from __future__ import annotations

import shutil
from pathlib import Path

# The same pictures lie in all four folders; here they lie in one.
PICTURES = (
    *("cmyk.jpg", "exactwide.png", "exif.jpg", "grey.png", "half.jpg", "odd.jpg", "palette.png"),
    *("rgba.png", "small.png", "strip.png", "tall.jpg", "wide.png"),
)
FILES = (
    *(f"hpsv2/images/{name}" for name in PICTURES),
    *(f"hpsv2/{name}.json" for name in ("cases", "config", "simplear_cases")),
    "hpsv2/expected.safetensors",
    "hpsv2/model.safetensors.gz",
    *(f"clipscore/{name}.json" for name in ("cases", "openai_tiny", "hf_tiny")),
    *(f"clipscore/torchmetrics_cases{name}.json" for name in ("", "_transformers5")),
    "clipscore/expected.safetensors",
    *(f"clipscore/{name}.safetensors.gz" for name in ("openai_tiny", "hf_tiny")),
    *(f"aesthetic/{name}" for name in ("cases.json", "expected.safetensors", "tiny_heads.safetensors.gz")),
    "aesthetic/tiny_v1_linear.pth",
    *(f"pickscore/{name}" for name in ("cases.json", "config.json", "expected.safetensors")),
    "pickscore/model.safetensors.gz",
)
LEFT_OUT = {
    "hpsv2, clipscore, aesthetic, pickscore: seven pictures": "0.3 MB; twelve show every rule",
    "the same weights in other forms (torch files, TorchScript)": "2.5 MB",
    "aesthetic/heads": "3.7 MB, published; expected.safetensors has v2 folded, and v1",
    "hpsv2, simplear, clipscore, pickscore: pixels": "1.6 MB; scores depend on them",
}


def write(full: Path, out: Path) -> None:
    """Copy the files."""
    for name in FILES:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(full / name, out / name)
