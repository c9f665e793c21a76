"""mmdet's checkpoints, made up here at any size: conversion, the kept file, and what is refused."""

import os
import stat
from pathlib import Path

import pytest
import torch
from mmdet_names import OFFICIAL, mmdet_shapes, older_name

pytest.importorskip("transformers", reason="needs the extra geneval")
from safetensors.torch import load_file
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from sar_eval.errors import BadInput
from sar_eval.networks.mask2former.mmdet_weights import convert, infer_config, read_checkpoint, read_weights
from sar_eval.networks.mask2former.network import UNUSED, Mask2Former, check_fit, prepare

TINY = OFFICIAL | {
    "embed": 24,
    "depths": (1, 1, 2, 1),
    "heads": (1, 2, 4, 8),
    "hidden": 32,
    "hidden_heads": 4,
    "pixel_layers": 1,
    "pixel_inner": 48,
    "query_layers": 2,
    "query_inner": 64,
    "queries": 10,
}


def make(path: Path, rename=lambda name: name) -> Path:
    """A tiny checkpoint with random weights."""
    torch.manual_seed(0)
    state = {rename(name): torch.randn(shape) * 0.1 for name, shape in mmdet_shapes(**TINY).items()}
    torch.save({"meta": {"CLASSES": ("person",), "epoch": 1}, "state_dict": state}, path)
    return path


def image() -> torch.Tensor:
    pixels = torch.arange(96 * 96 * 3).reshape(96, 96, 3).remainder(251).to(torch.uint8)
    return prepare(pixels.numpy())


@pytest.mark.parametrize("rename", [lambda name: name, older_name], ids=["mmdet3", "mmdet2"])
def test_the_official_checkpoint_fits_the_model_to_the_last_tensor(rename) -> None:
    """At full size on torch's meta device: names and shapes without memory."""
    given = mmdet_shapes(**OFFICIAL)
    state = convert({rename(name): torch.empty(shape, device="meta") for name, shape in given.items()})
    config = infer_config(state)
    assert config["backbone_config"] == {
        "embed_dim": 96,
        "depths": [2, 2, 18, 2],
        "num_heads": [3, 6, 12, 24],
        "window_size": 7,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }
    assert (config["num_queries"], config["num_labels"], config["decoder_layers"]) == (100, 80, 10)
    backbone = SwinConfig(**config["backbone_config"])
    with torch.device("meta"):
        whole = Mask2FormerConfig(**{**config, "backbone_config": backbone})
        model = Mask2FormerForUniversalSegmentation(whole)
    check_fit(state, {n: t for n, t in model.state_dict().items() if not n.startswith(UNUSED)})
    assert 68e6 < sum(tensor.numel() for tensor in state.values()) < 69e6


def test_the_made_up_names_are_mmdets(parity) -> None:
    """The list of names above against a checkpoint that mmdet wrote."""
    theirs = read_checkpoint(parity / "mask2former" / "mask2former_tiny_mmdet.pth")
    sizes = TINY | {"pixel_layers": 2, "pixel_inner": 64, "query_layers": 3, "queries": 20}
    assert {name: tuple(tensor.shape) for name, tensor in theirs.items()} == mmdet_shapes(**sizes)


def test_every_name_of_the_conversion_is_taken_once() -> None:
    names = [name for name in mmdet_shapes(**TINY) if not name.endswith("relative_position_index")]
    split = sum(".qkv." in name or ".self_attn.attn.in_proj_" in name for name in names)
    converted = convert({name: torch.zeros(shape) for name, shape in mmdet_shapes(**TINY).items()})
    assert len(converted) == len(names) + 2 * split


def test_the_kept_file_gives_the_same_logits_and_digest(tmp_path) -> None:
    source = make(tmp_path / "tiny.pth")
    first = Mask2Former(source)
    kept = tmp_path / "tiny.pth.safetensors"
    assert sorted(tmp_path.iterdir()) == [source, kept]
    stamp = kept.stat().st_mtime_ns
    again, direct = Mask2Former(source), Mask2Former(kept)
    assert kept.stat().st_mtime_ns == stamp
    assert len({first.digest, again.digest, direct.digest}) == 1
    for other in (again, direct):
        for one, two in zip(first.logits([image()]), other.logits([image()]), strict=True):
            assert torch.equal(one, two)


def test_the_kept_file_follows_its_source(tmp_path) -> None:
    source = make(tmp_path / "tiny.pth")
    old = read_weights(source)
    torch.save({"state_dict": {n: t + 1 for n, t in read_checkpoint(source).items()}}, source)
    new = read_weights(source)
    assert new.digest != old.digest
    assert torch.equal(new.state["class_predictor.bias"], old.state["class_predictor.bias"] + 1)
    assert torch.equal(
        load_file(f"{source}.safetensors")["class_predictor.bias"], new.state["class_predictor.bias"]
    )


def test_a_torn_kept_file_is_made_anew(tmp_path) -> None:
    source = make(tmp_path / "tiny.pth")
    expected, kept = read_weights(source), tmp_path / "tiny.pth.safetensors"
    kept.write_bytes(kept.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="converting .* again"):
        found = read_weights(source)
    assert torch.equal(found.state["class_predictor.bias"], expected.state["class_predictor.bias"])
    assert read_weights(kept).digest == expected.digest


def test_who_reads_the_source_reads_the_kept_file(tmp_path) -> None:
    """safetensors writes for the owner only, which breaks a cache that many share."""
    source = make(tmp_path / "tiny.pth")
    source.chmod(0o644)
    read_weights(source)
    assert stat.S_IMODE((tmp_path / "tiny.pth.safetensors").stat().st_mode) == 0o644


def test_a_folder_that_cannot_be_written_is_no_hindrance(tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    source = make(tmp_path / "tiny.pth")
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.warns(UserWarning, match="cannot be kept as .*Read-only"):
        found = read_weights(source)
    assert found.config["num_queries"] == 10
    assert os.listdir(tmp_path) == ["tiny.pth"]  # noqa: PTH208 - the names


def test_what_is_no_such_checkpoint_is_named(tmp_path) -> None:
    source, other = make(tmp_path / "tiny.pth"), tmp_path / "other.pth"
    state = read_checkpoint(source)
    torch.save(state | {"backbone.layer1.0.bn1.weight": torch.ones(3)}, other)
    with pytest.raises(BadInput, match=r"1 of its tensors have no place there \(backbone.layer1.0.bn1"):
        read_weights(other)
    torch.save({n: t for n, t in state.items() if "query_feat" not in n}, other)
    with pytest.raises(BadInput, match=r"it has no '.*queries_features.weight'"):
        read_weights(other)
    torch.save({n: t for n, t in state.items() if "pixel_decoder.encoder" not in n}, other)
    with pytest.raises(BadInput, match=r"it has no '.*decoder.encoder"):
        read_weights(other)
    torch.save({n: t for n, t in state.items() if "post_norm" not in n}, other)
    with pytest.raises(BadInput, match=r"2 missing \(.*decoder.layernorm.bias"):
        Mask2Former(other)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": [1]}, {"state_dict": {"a": 1}}, torch.ones(2)])
def test_files_of_torch_without_named_tensors(tmp_path, content) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(BadInput, match="no tensors by name"):
        read_checkpoint(tmp_path / "other.pth")


@pytest.mark.parametrize("name", ["absent.pth", "absent.safetensors"])
def test_an_absent_file(tmp_path, name) -> None:
    with pytest.raises(BadInput, match="sar-eval fetch geneval"):
        read_weights(tmp_path / name)
