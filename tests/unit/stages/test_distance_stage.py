"""The stage `distance`: run folders, folders and statistics, and pictures that cannot be read."""

import os
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from sar_eval.errors import BadInput
from sar_eval.images.picture import Picture
from sar_eval.stages import set_collection
from sar_eval.stages.distance import distance
from sar_eval.stages.set_metrics import Settings
from sar_eval.stages.set_statistics import read_statistics, write_statistics
from sar_eval.types import Prompt
from tests.small_inception import save_inception, save_pictures
from tests.stored_runs import begin_run, store_generations

NUMBERS = (4, 3)


@pytest.fixture(scope="module", autouse=True)
def single_thread():
    """As the fixture `one_thread`, also while figures are measured that several tests use."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("distance")
    save_inception(root / "weights.pth")
    for name, number, seed in zip("ab", NUMBERS, (21, 22), strict=True):
        save_pictures(root / name, number, seed)
    return root


def _settings(root):
    paths = dict.fromkeys(("inception-clean", "inception-fid"), root / "weights.pth")
    return Settings(metrics=("fid-clean", "kid"), weights=paths, batch_size=4)


@pytest.fixture
def settings(root):
    return _settings(root)


def _values(found):
    return [figure.value for figure in found.metrics]


@pytest.fixture(scope="module")
def measured(root):
    return distance([root / "a", root / "b"], _settings(root))


def test_two_folders(measured) -> None:
    found = measured
    assert [figure.metric for figure in found.metrics] == ["fid-clean", "kid"]
    assert all(figure.n == NUMBERS for figure in found.metrics)
    fid, kid = found.metrics
    assert fid.value > 0
    assert fid.low is None
    assert kid.low < kid.value < kid.high
    assert fid.version.startswith("fid-clean-1+resize-clean+")
    assert any("4 pictures for 128 dimensions" in note for note in found.notes)


@pytest.mark.slow
def test_neither_order_nor_batches_nor_another_run_change_a_figure(root, settings, measured) -> None:
    first = measured
    assert distance([root / "a", root / "b"], settings) == first
    back = distance([root / "b", root / "a"], settings)
    assert _values(back) == pytest.approx(_values(first), rel=1e-9)
    one_by_one = replace(settings, batch_size=1)
    assert _values(distance([root / "a", root / "b"], one_by_one)) == pytest.approx(
        _values(first), rel=1e-5
    )


def test_equal_sets_are_at_0(root, settings) -> None:
    forms = replace(settings, metrics=("fid-clean", "fid-torch", "fid-tf"))
    assert _values(distance([root / "b", root / "b"], forms)) == [0, 0, 0]


def test_forms_of_fid_differ_and_a_picture_is_decoded_once(root, settings, monkeypatch) -> None:
    decoded, decode = [], Picture.from_bytes
    monkeypatch.setattr(Picture, "from_bytes", lambda data: decoded.append(1) or decode(data))
    every = replace(settings, metrics=("fid-clean", "fid-torch", "fid-tf", "kid"))
    found = distance([root / "a", root / "b"], every)
    assert len(decoded) == sum(NUMBERS)
    assert len({round(value, 3) for value in _values(found)}) == 4


def test_a_run_is_the_same_as_its_pictures_in_a_folder(root, settings, measured, tmp_path) -> None:
    prompts = [Prompt(f"p{number}", "a dog", "") for number in range(2)]
    spec, run = begin_run(tmp_path / "run", prompts, images_per_prompt=2, batch_size=4)
    files = sorted((root / "a").iterdir())
    keys = [f"{prompt.id}/{index}" for prompt in prompts for index in range(2)]
    images = {key: file.read_bytes() for key, file in zip(keys, files, strict=True)}
    store_generations(spec, run, images)
    of_run, of_folder = distance([run.path, root / "b"], settings), measured
    assert _values(of_run) == _values(of_folder)
    assert of_run.metrics[1].high != of_folder.metrics[1].high  # two prompts are resampled, not four images

    spec, run = begin_run(tmp_path / "holes", prompts, images_per_prompt=2, batch_size=4)
    store_generations(spec, run, images | {"p1/1": None})
    found = distance([run.path, root / "b"], settings)
    assert found.sets[0].problems == {"p1/1": "broken"}
    assert found.metrics == ()


def test_unreadable_pictures_are_named_and_give_no_figure(root, settings, tmp_path) -> None:
    shutil.copytree(root / "a", tmp_path / "a")
    whole = (tmp_path / "a" / "001.png").read_bytes()
    (tmp_path / "a" / "001.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "a" / "003.png").write_bytes(b"")
    found = distance([tmp_path / "a", root / "b"], settings)
    assert found.metrics == ()
    assert found.failed == 2
    assert sorted(name[-7:] for name in found.sets[0].problems) == ["001.png", "003.png"]
    partial = distance([tmp_path / "a", root / "b"], replace(settings, partial=True))
    assert partial.partial
    assert partial.metrics[0].n == (2, 3)
    for name in ("001.png", "003.png"):
        (tmp_path / "a" / name).unlink()
    assert _values(distance([tmp_path / "a", root / "b"], settings)) == pytest.approx(_values(partial))


def test_statistics_stand_for_their_pictures(root, settings, measured, tmp_path) -> None:
    file = tmp_path / "a.npz"
    distance([root / "a"], settings, save=lambda found: write_statistics(file, found))
    assert distance([file, root / "b"], settings).metrics == measured.metrics
    fid, kid = distance([file, root / "b"], replace(settings, intervals=False)).metrics
    assert (fid, kid.value, kid.low) == (measured.metrics[0], measured.metrics[1].value, None)
    assert read_statistics(file).seen == NUMBERS[0]


def test_statistics_of_other_tools(root, settings, measured, tmp_path) -> None:
    """clean-fid's and pytorch-fid's: `mu` and `sigma` alone."""
    saved = []
    distance([root / "a"], settings, save=saved.append)
    gaussian = saved[0].gaussian
    np.savez_compressed(tmp_path / "mu.npz", mu=gaussian.mean, sigma=gaussian.covariance)
    fid = replace(settings, metrics=("fid-clean",))
    found = distance([tmp_path / "mu.npz", root / "b"], fid)
    assert found.metrics[0].n == (None, NUMBERS[1])
    assert found.metrics[0].value == measured.metrics[0].value
    assert any("does not say how its features were made" in note for note in found.notes)
    with pytest.raises(BadInput, match="no `feats`, which kid needs"):
        distance([tmp_path / "mu.npz", root / "b"], settings)
    with pytest.raises(BadInput, match="one kind of features"):
        distance([tmp_path / "mu.npz", root / "b"], replace(settings, metrics=("fid-clean", "fid-tf")))
    np.savez_compressed(tmp_path / "feats.npz", feats=saved[0].vectors)
    both = distance([tmp_path / "feats.npz", root / "b"], replace(settings, metrics=("kid",)))
    assert both.metrics[0].n == NUMBERS
    with pytest.raises(BadInput, match="no `mu` and `sigma`"):
        distance([tmp_path / "feats.npz", root / "b"], fid)


def test_other_weights_are_told(root, settings, tmp_path) -> None:
    file = tmp_path / "a.npz"
    distance([root / "a"], settings, save=lambda found: write_statistics(file, found))
    other = {"inception-clean": save_inception(tmp_path / "other.pth", seed=4)}
    with pytest.raises(BadInput, match="different features"):
        distance([file, root / "b"], replace(settings, weights=other))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(3), "sigma": np.zeros((3, 2))}, r"`sigma` \[D, D\]"),
        ({"mu": np.full(2, np.nan), "sigma": np.eye(2)}, "finite"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 5], [0, 1]])}, "not symmetric"),
        ({"mu": np.array([None, None]), "sigma": np.eye(2)}, "no readable statistics"),
        ({"feats": np.zeros(3)}, "no table of features"),
        ({"feats": np.zeros((3, 2)), "units": np.zeros(2, int)}, "other lengths"),
        ({"weights": np.zeros(3)}, "holds neither .*'weights'"),
        ({}, "holds neither .*nothing"),
        ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, "`mu` is empty"),
        ({"mu": np.zeros(()), "sigma": np.zeros((1, 1))}, r"`mu` must be \[D\]"),
        ({"mu": np.zeros(2), "sigma": -np.eye(2)}, "no covariance"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 5], [5, 1]])}, "no covariance"),
    ],
)
def test_bad_statistics(tmp_path, arrays, message) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(BadInput, match=message):
        read_statistics(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("arrays", "metric"),
    [
        ({"mu": np.full(2, 1e200), "sigma": np.eye(2)}, "fid-clean"),
        ({"mu": np.full(2, 1e308), "sigma": np.eye(2) * 1e308}, "fid-clean"),
        ({"feats": np.full((3, 2), 1e200)}, "kid"),
    ],
)
def test_numbers_out_of_all_range_have_no_distance(tmp_path, settings, arrays, metric) -> None:
    np.savez(tmp_path / "large.npz", **arrays)
    np.savez(tmp_path / "usual.npz", mu=np.zeros(2), sigma=np.eye(2), feats=np.eye(3, 2))
    with pytest.raises(BadInput, match="too large"):
        distance([tmp_path / "large.npz", tmp_path / "usual.npz"], replace(settings, metrics=(metric,)))


def _damaged(path, kind: str) -> None:
    np.savez_compressed(path, mu=np.random.default_rng(0).normal(size=64), sigma=np.eye(64))
    data = bytearray(path.read_bytes())
    if kind == "compressed":
        data[60:200] = bytes(byte ^ 0x55 for byte in data[60:200])
    elif kind == "encrypted":
        data[data.find(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    shape = {"huge": "(99999999999999,)", "broken": "((((((,)"}.get(kind)
    if shape:
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("mu.npy", b"\x93NUMPY\1\0v\0" + header.encode())


@pytest.mark.parametrize("kind", ["compressed", "encrypted", "huge", "broken"])
def test_damaged_archives(tmp_path, kind) -> None:
    _damaged(tmp_path / "bad.npz", kind)
    with pytest.raises(BadInput, match="no readable statistics"):
        read_statistics(tmp_path / "bad.npz")


def test_a_pipe_is_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(BadInput, match="pipe"):
        read_statistics(tmp_path / "pipe.npz")


@pytest.mark.parametrize("device", ["bogus", "cuda:9999", ""])
def test_a_device_that_is_not_there(root, settings, device) -> None:
    with pytest.raises(BadInput, match="--device"):
        distance([root / "a", root / "b"], replace(settings, device=device))


def test_what_is_no_archive(tmp_path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"PK no archive")
    with pytest.raises(BadInput, match="no readable statistics"):
        read_statistics(tmp_path / "bad.npz")
    with pytest.raises(BadInput, match="no readable statistics"):
        read_statistics(tmp_path / "none.npz")


def test_sets_that_are_too_small(root, settings, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no PNG, JPEG or WebP"):
        distance([tmp_path / "empty", root / "b"], settings)
    with pytest.raises(BadInput, match="needs two or more"):
        distance([save_pictures(tmp_path / "one", 1, 5), root / "b"], settings)
    with pytest.raises(BadInput, match="no folder"):
        distance([tmp_path / "none", root / "b"], settings)


def test_of_a_large_set_a_sample_is_kept(root, settings, monkeypatch) -> None:
    monkeypatch.setattr(set_collection, "KEPT", 3)
    saved = []
    distance([root / "a"], settings, save=saved.append)
    assert saved[0].vectors.shape == (3, 128)
    assert saved[0].seen == saved[0].gaussian.n == NUMBERS[0]
