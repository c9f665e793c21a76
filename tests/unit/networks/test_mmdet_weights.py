"""Generated mmdet checkpoints of any size: conversion, its cache, and errors."""

import os
import stat
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra geneval")
from safetensors.torch import load_file
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from sar_eval.errors import BadInput
from sar_eval.networks.mask2former.mmdet_weights import convert, infer_config, read_checkpoint, read_weights
from sar_eval.networks.mask2former.network import UNUSED, Mask2Former, check_fit, prepare
from tests.mmdet_names import OFFICIAL, mmdet2_name, mmdet_shapes

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


def write_tiny(path: Path, rename=lambda name: name) -> Path:
    """A tiny checkpoint with random weights."""
    torch.manual_seed(0)
    state = {rename(name): torch.randn(shape) * 0.1 for name, shape in mmdet_shapes(**TINY).items()}
    torch.save({"meta": {"CLASSES": ("person",), "epoch": 1}, "state_dict": state}, path)
    return path


def image() -> torch.Tensor:
    pixels = torch.arange(96 * 96 * 3).reshape(96, 96, 3).remainder(251).to(torch.uint8)
    return prepare(pixels.numpy())


@pytest.mark.parametrize("rename", [lambda name: name, mmdet2_name], ids=["mmdet3", "mmdet2"])
def test_the_official_checkpoint_fits_the_model(rename) -> None:
    """Names and shapes at full size, on torch's meta device."""
    shapes = mmdet_shapes(**OFFICIAL)
    state = convert({rename(name): torch.empty(shape, device="meta") for name, shape in shapes.items()})
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
        model_config = Mask2FormerConfig(**{**config, "backbone_config": backbone})
        model = Mask2FormerForUniversalSegmentation(model_config)
    check_fit(state, {n: t for n, t in model.state_dict().items() if not n.startswith(UNUSED)})
    assert 68e6 < sum(tensor.numel() for tensor in state.values()) < 69e6


def test_the_generated_names_are_mmdets(parity) -> None:
    """Compared with a checkpoint that mmdet wrote."""
    checkpoint = read_checkpoint(parity / "mask2former" / "mask2former_tiny_mmdet.pth")
    sizes = TINY | {"pixel_layers": 2, "pixel_inner": 64, "query_layers": 3, "queries": 20}
    assert {name: tuple(tensor.shape) for name, tensor in checkpoint.items()} == mmdet_shapes(**sizes)


def test_no_two_tensors_are_converted_to_the_same_name() -> None:
    names = [name for name in mmdet_shapes(**TINY) if not name.endswith("relative_position_index")]
    split = sum(".qkv." in name or ".self_attn.attn.in_proj_" in name for name in names)
    converted = convert({name: torch.zeros(shape) for name, shape in mmdet_shapes(**TINY).items()})
    assert len(converted) == len(names) + 2 * split


def test_the_cached_conversion_gives_the_same_logits_and_digest(tmp_path) -> None:
    source = write_tiny(tmp_path / "tiny.pth")
    first = Mask2Former(source)
    cached = tmp_path / "tiny.pth.safetensors"
    assert sorted(tmp_path.iterdir()) == [source, cached]
    mtime = cached.stat().st_mtime_ns
    again, direct = Mask2Former(source), Mask2Former(cached)
    assert cached.stat().st_mtime_ns == mtime
    assert len({first.digest, again.digest, direct.digest}) == 1
    for other in (again, direct):
        for expected, actual in zip(first.logits([image()]), other.logits([image()]), strict=True):
            assert torch.equal(actual, expected)


def test_a_changed_source_is_converted_again(tmp_path) -> None:
    source = write_tiny(tmp_path / "tiny.pth")
    old = read_weights(source)
    torch.save({"state_dict": {n: t + 1 for n, t in read_checkpoint(source).items()}}, source)
    new = read_weights(source)
    assert new.digest != old.digest
    assert torch.equal(new.state["class_predictor.bias"], old.state["class_predictor.bias"] + 1)
    assert torch.equal(
        load_file(f"{source}.safetensors")["class_predictor.bias"], new.state["class_predictor.bias"]
    )


def test_a_truncated_conversion_is_replaced(tmp_path) -> None:
    source = write_tiny(tmp_path / "tiny.pth")
    expected, cached = read_weights(source), tmp_path / "tiny.pth.safetensors"
    cached.write_bytes(cached.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="converting .* again"):
        weights = read_weights(source)
    assert torch.equal(weights.state["class_predictor.bias"], expected.state["class_predictor.bias"])
    assert read_weights(cached).digest == expected.digest


def test_the_conversion_has_the_permissions_of_its_source(tmp_path) -> None:
    """safetensors writes files that only their owner can read, unfit for a shared cache."""
    source = write_tiny(tmp_path / "tiny.pth")
    source.chmod(0o644)
    read_weights(source)
    assert stat.S_IMODE((tmp_path / "tiny.pth.safetensors").stat().st_mode) == 0o644


def test_a_read_only_folder_is_only_a_warning(tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    source = write_tiny(tmp_path / "tiny.pth")
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.warns(UserWarning, match="cannot be kept as .*Read-only"):
        weights = read_weights(source)
    assert weights.config["num_queries"] == 10
    assert os.listdir(tmp_path) == ["tiny.pth"]  # noqa: PTH208 - the names


def test_other_checkpoints_are_refused_with_a_tensors_name(tmp_path) -> None:
    source, other = write_tiny(tmp_path / "tiny.pth"), tmp_path / "other.pth"
    state = read_checkpoint(source)
    torch.save(state | {"backbone.layer1.0.bn1.weight": torch.ones(3)}, other)
    with pytest.raises(BadInput, match=r"1 of its tensors are no part of one \(backbone.layer1.0.bn1"):
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
def test_torch_files_without_named_tensors_are_refused(tmp_path, content) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(BadInput, match="no tensors by name"):
        read_checkpoint(tmp_path / "other.pth")


@pytest.mark.parametrize("name", ["absent.pth", "absent.safetensors"])
def test_a_missing_file_is_refused(tmp_path, name) -> None:
    with pytest.raises(BadInput, match="sar-eval fetch geneval"):
        read_weights(tmp_path / name)
