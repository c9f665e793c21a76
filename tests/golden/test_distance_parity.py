"""Set distances against clean-fid, pytorch-fid, torch-fidelity and cmmd-pytorch."""

import json

import numpy as np
import pytest
import torch

from sar_eval.images.picture import Picture
from sar_eval.networks.set_features import InceptionFeatures
from sar_eval.stats import kernel_distances as kernels
from sar_eval.stats.frechet import Moments, frechet_distance
from tests.inception_case import FOLDER, features, pictures, random_state

EXPECTED = json.loads((FOLDER / "expected.json").read_text())
SEED, STORED = 11, 2  # as scripts/make_distance_data.py has them
FORMS = {"fid-clean": "clean", "fid-torch": "torch", "fid-tf": "tf"}


def _case(name):
    """Vectors of either set, and the official figures."""
    case = EXPECTED["cases"][name]
    n, m, width = case["sizes"]
    return features(n, width, 1), features(m, width, 2, case["shift"]), case


@pytest.mark.parametrize("name", EXPECTED["cases"])
def test_frechet_distance(name) -> None:
    x, y, case = _case(name)
    found = frechet_distance(*(Moments.of(v).gaussian() for v in (x, y)))
    assert found == pytest.approx(case["torch-fidelity fid"], rel=1e-6)
    assert found == pytest.approx(case["clean-fid fid"], rel=1e-6)


@pytest.mark.parametrize("name", EXPECTED["cases"])
def test_kid_of_given_vectors(name) -> None:
    x, y, case = _case(name)
    m = min(len(x), len(y))
    found = kernels.unbiased_mmd2(x[:m], y[:m], kernels.cubic)
    assert found == pytest.approx(case["clean-fid kid of the first vectors"], rel=1e-6)
    # In float32, as clean-fid computes, the same formula is off in the third digit.
    official = case["clean-fid kid of the first vectors in float32"]
    assert found != pytest.approx(official, rel=1e-6)
    assert found == pytest.approx(official, abs=1e-6)


@pytest.mark.parametrize("name", EXPECTED["cases"])
def test_kid_over_torch_fidelitys_subsets(name) -> None:
    x, y, case = _case(name)
    rng, size, values = np.random.RandomState(2020), min(len(x), len(y)) - 1, []
    for _ in range(5):
        rows = [rng.choice(len(v), size, replace=False) for v in (x, y)]
        values.append(kernels.unbiased_mmd2(x[rows[0]], y[rows[1]], kernels.cubic))
    found = kernels.KidEstimate.of(values)
    assert found.value == pytest.approx(case["torch-fidelity kid"], rel=1e-6)
    assert found.subset_deviation == pytest.approx(case["torch-fidelity kid sd"], rel=1e-6)


@pytest.mark.parametrize("name", EXPECTED["cases"])
def test_cmmd(name) -> None:
    *sets, case = _case(name)
    x, y = (v.astype(float) / np.linalg.norm(v.astype(float), axis=1, keepdims=True) for v in sets)
    units = (np.arange(len(x)), np.arange(len(y)))
    found = kernels.cmmd(kernels.KernelSums.of((x, y), units, kernels.gaussian, 0))
    assert found == pytest.approx(case["cmmd"], rel=1e-6)
    assert found == pytest.approx(case["cmmd in float32"], abs=3e-4)  # as the authors' code computes it


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """pytorch-fid's form of the network, full size, with random numbers."""
    shapes = json.loads((FOLDER / "shapes.json").read_text())
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save({n: torch.from_numpy(v) for n, v in random_state(shapes, SEED).items()}, path)
    return path


def _features(weights, form, images):
    with InceptionFeatures(weights, "cpu", form=FORMS[form]) as network:
        return network.embed([network.prepare(Picture(image)) for image in images])


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_features_of_pictures(weights, form) -> None:
    expected = np.load(FOLDER / "features.npz")
    found = _features(weights, form, pictures(STORED, 21))
    np.testing.assert_allclose(found, expected[form][:STORED], atol=1e-5 * np.abs(found).max())
    for other in FORMS.keys() - {form}:  # the forms resize otherwise, and that is seen
        assert np.abs(found - expected[other][:STORED]).max() > 1e-3 * np.abs(found).max()


@pytest.mark.slow
def test_distances_of_singular_sets() -> None:
    """Seven pictures have a singular covariance, whose roots the packages take with rounding
    (2,042 of them that should be 0), so their figures are off by some 1e-5; ours is exact."""
    stored = np.load(FOLDER / "features.npz")
    sets = stored["fid-clean"], stored["fid-clean second"]
    case = EXPECTED["pictures"]["fid-clean"]
    found = frechet_distance(*(Moments.of(v).gaussian() for v in sets))
    assert found == pytest.approx(case["clean-fid fid"], rel=1e-4)
    assert found == pytest.approx(_of_few(*sets), rel=1e-9)
    m = min(map(len, sets))
    kid = kernels.unbiased_mmd2(sets[0][:m], sets[1][:m], kernels.cubic)
    assert kid == pytest.approx(case["clean-fid kid of the first vectors"], rel=1e-6)


def _of_few(x, y):
    """The distance of fewer vectors than dimensions, by a nuclear norm of a small matrix."""
    a, b = ((v - v.mean(0)) / (len(v) - 1) ** 0.5 for v in (x.astype(float), y.astype(float)))
    step = x.astype(float).mean(0) - y.astype(float).mean(0)
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return step @ step + (a * a).sum() + (b * b).sum() - 2 * root


def test_forms_of_fid_differ_in_the_official_figures() -> None:
    """Why the form is part of a metric's name."""
    figures = [EXPECTED["pictures"][form]["clean-fid fid"] for form in FORMS]
    assert min(abs(a - b) for a in figures for b in figures if a != b) > 1
