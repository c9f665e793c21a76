"""Make the reference data of set distances with the official code.

    python -m scripts.make_distance_data CMMD tests/golden/distance

CMMD is the folder of a clone of sayakpaul/cmmd-pytorch (commit 49fb717). Needs clean-fid 0.1.35,
pytorch-fid 0.3.0 and torch-fidelity 0.4.0 beside torch and torchvision; SciPy before 1.18, as clean-fid
calls `sqrtm(disp=False)`. Versions go into the data.
"""

# ruff: noqa: PLC0415, TID253 - the packages are imported where they are asked, and patched before
from __future__ import annotations

import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.inception_case import features, pictures, random_state

SEED, NUMBERS = 11, (7, 6)  # of the weights; pictures of the two sets
STORED = 2  # pictures of the first set whose features are stored, but for fid-clean: all of both sets
# Name, vectors of either set, dimensions, shift of the second set.
CASES = (
    ("full rank", 300, 220, 48, 0.03),
    ("equal sizes", 120, 120, 64, 0.0),
    ("singular", 40, 55, 192, 0.01),
)


def main(cmmd_folder: str, out: str) -> None:
    """Write `expected.json`, `shapes.json` and `features.npz`."""
    sys.path.insert(0, cmmd_folder)
    cmmd = importlib.import_module("distance")
    folder = Path(out)
    expected: dict[str, Any] = {"versions": _versions(), "cases": {}, "pictures": {}}
    for name, n, m, dimensions, shift in CASES:
        x, y = features(n, dimensions, 1), features(m, dimensions, 2, shift)
        expected["cases"][name] = {"sizes": [n, m, dimensions], "shift": shift, **_distances(x, y, cmmd)}
    with tempfile.TemporaryDirectory() as temporary:
        weights = Path(temporary) / "weights.pth"
        extractor, shapes = _torch_fidelity(weights)
        (folder / "shapes.json").write_text(json.dumps(shapes, indent=0) + "\n")
        found = _features_of_pictures(extractor, weights)
    for name, (x, y) in found.items():
        expected["pictures"][name] = _distances(x, y, cmmd)
    stored = {name: x[:STORED] for name, (x, _) in found.items()}
    stored |= dict(zip(("fid-clean", "fid-clean second"), found["fid-clean"], strict=True))
    np.savez_compressed(folder / "features.npz", **stored)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def _versions() -> dict[str, str]:
    names = (
        "clean-fid",
        "pytorch-fid",
        "torch-fidelity",
        "torch",
        "torchvision",
        "numpy",
        "scipy",
        "pillow",
    )
    return {name: version(name) for name in names}


def _distances(x: Any, y: Any, cmmd: ModuleType) -> dict[str, float]:
    """Of float32 features, as the packages take them, and KID also of float64."""
    from cleanfid.fid import frechet_distance, kernel_distance
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    statistics = [(np.mean(v, axis=0), np.cov(v, rowvar=False)) for v in (x, y)]
    exact = [torch.from_numpy(v.astype(np.float64)) for v in (x, y)]
    moments = [fid_features_to_statistics(v) for v in exact]
    subset = min(len(x), len(y)) - 1
    options = {"kid_subsets": 5, "kid_subset_size": subset, "rng_seed": 2020, "verbose": False}
    kid64 = kid_features_to_metric(*exact, **options)
    np.random.seed(0)  # clean-fid draws from it
    whole = min(len(x), len(y))
    return {
        "clean-fid fid": float(frechet_distance(*statistics[0], *statistics[1])),
        "torch-fidelity fid": fid_statistics_to_metric(*moments, verbose=False)[
            "frechet_inception_distance"
        ],
        "clean-fid kid of the first vectors": kernel_distance(*(v.numpy()[:whole] for v in exact), 1),
        "clean-fid kid of the first vectors in float32": kernel_distance(x[:whole], y[:whole], 1),
        "torch-fidelity kid": kid64["kernel_inception_distance_mean"],
        "torch-fidelity kid sd": kid64["kernel_inception_distance_std"],
        "cmmd": float(cmmd.mmd(*(_unit(v.numpy()) for v in exact))),
        "cmmd in float32": float(cmmd.mmd(_unit(x), _unit(y))),
    }


def _unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _torch_fidelity(weights: Path) -> tuple[Any, dict[str, list[int]]]:
    """Its Inception with random weights, which are left in the file, and the shapes of these."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    module.load_state_dict_from_url = lambda url, progress: {}  # nothing is downloaded
    load, module.nn.Module.load_state_dict = module.nn.Module.load_state_dict, lambda self, state: None
    try:
        empty = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    finally:
        module.nn.Module.load_state_dict = load
    shapes = {name: list(tensor.shape) for name, tensor in empty.state_dict().items()}
    torch.save({n: torch.from_numpy(v) for n, v in random_state(shapes, SEED).items()}, weights)
    options = {"feature_extractor_weights_path": str(weights)}
    return module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], **options), shapes


def _features_of_pictures(extractor: Any, weights: Path) -> dict[str, tuple[Any, Any]]:
    """By form of FID, of both sets. clean-fid's network file cannot be had, so torch-fidelity's layers
    stand in for it, behind clean-fid's own resizing and normalisation."""
    from cleanfid.resize import build_resizer
    from pytorch_fid import inception

    inception.load_state_dict_from_url = lambda url, progress: torch.load(weights, weights_only=True)
    legacy = inception.InceptionV3().eval()
    clean = build_resizer("clean")
    layers = _layers(extractor)

    def clean_fid(image: Image.Image) -> torch.Tensor:
        resized = torch.from_numpy(clean(np.array(image)).transpose(2, 0, 1))[None]
        return layers((resized - 128) / 128)

    def pytorch_fid(image: Image.Image) -> torch.Tensor:
        from torchvision.transforms.functional import to_tensor

        return legacy(to_tensor(image)[None])[0].flatten(1)

    def torch_fidelity(image: Image.Image) -> torch.Tensor:
        return extractor(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])[0]

    forms = {"fid-clean": clean_fid, "fid-torch": pytorch_fid, "fid-tf": torch_fidelity}
    return {name: (_set(form, NUMBERS[0], 21), _set(form, NUMBERS[1], 22)) for name, form in forms.items()}


@torch.no_grad()
def _set(form: Callable[[Image.Image], torch.Tensor], number: int, seed: int) -> Any:
    return torch.cat([form(image) for image in pictures(number, seed)]).numpy()


def _layers(extractor: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """torch-fidelity's network behind its own resizing and normalisation."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    def run(prepared: torch.Tensor) -> torch.Tensor:
        own = module.interpolate_bilinear_2d_like_tensorflow1x
        module.interpolate_bilinear_2d_like_tensorflow1x = lambda x, size, align_corners: (
            prepared * 128 + 128
        )
        try:
            return extractor(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))[0]
        finally:
            module.interpolate_bilinear_2d_like_tensorflow1x = own

    return run


if __name__ == "__main__":
    main(*sys.argv[1:])
