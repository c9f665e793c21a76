"""Weights that trainers wrapped, quantised, linked or left in a folder below."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sar_eval.decoding.load import load_decoder
from sar_eval.errors import BadInput
from sar_eval.families.simplear import find_checkpoint

WEIGHTS = "model.safetensors"


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_checkpoint.parent, tmp_path / "c")
    return tmp_path / "c" / "decoder"


def _rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def _embedding(folder: Path) -> torch.Tensor:
    return load_decoder(find_checkpoint(str(folder)), "cpu", "float32").embedding


@pytest.mark.parametrize("first", ["", "_fsdp_wrapped_module."])
@pytest.mark.parametrize("inner", ["_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod."])
def test_wrappers_inside_names_are_left_out(
    copy: Path, first: str, inner: str, tiny_checkpoint: Path
) -> None:
    _rewrite(
        copy,
        lambda weights: {
            first + name.replace(".mlp.", f".{inner}mlp.").replace("layers.0.", f"layers.0.{inner}"): tensor
            for name, tensor in weights.items()
        },
    )
    assert torch.equal(_embedding(copy), _embedding(tiny_checkpoint))
    assert len(find_checkpoint(str(copy)).notes) == 1
    _rewrite(copy, lambda weights: weights | {f"{first}model.{inner}norm.weight": torch.ones(16)})
    with pytest.raises(BadInput, match="there twice"):
        find_checkpoint(str(copy))


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.float8_e4m3fn])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_weights_that_are_no_plain_floats_are_refused(copy: Path, dtype: torch.dtype, suffix: str) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    _rewrite(copy, lambda weights: weights | {name: weights[name].to(dtype)})
    if suffix == "bin":
        torch.save(load_file(copy / WEIGHTS), copy / "pytorch_model.bin")
        (copy / WEIGHTS).unlink()
    with pytest.raises(BadInput, match=r"1 tensors are of type .*up_proj.*quantised"):
        _embedding(copy)


def test_an_index_may_be_a_git_lfs_pointer(copy: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (copy / "model.safetensors.index.json").write_text(pointer)
    with pytest.raises(BadInput, match=r"index\.json is a git-lfs pointer"):
        find_checkpoint(str(copy))


def test_links_that_lead_nowhere_are_named(copy: Path) -> None:
    (copy / WEIGHTS).unlink()
    (copy / WEIGHTS).symlink_to("../../blobs/0a1b")
    with pytest.raises(BadInput, match=r"links that lead nowhere \(model\.safetensors\).*cp -L"):
        find_checkpoint(str(copy))


def test_weights_in_folders_below_are_named(copy: Path) -> None:
    (copy / "checkpoint-7").mkdir()
    (copy / WEIGHTS).rename(copy / "checkpoint-7" / WEIGHTS)
    with pytest.raises(BadInput, match="name one of checkpoint-7"):
        find_checkpoint(str(copy))


@pytest.mark.parametrize(
    ("none", "some"),
    [
        (None, {"factor": 2.0}),
        ({"rope_type": "default"}, {"rope_type": "yarn"}),
        ({"type": "default"}, {"type": "linear"}),
    ],
)
def test_rotary_embeddings_that_are_not_scaled(copy: Path, none: object, some: object) -> None:
    path = copy / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"rope_scaling": none}))
    assert find_checkpoint(str(copy)).notes == ()
    path.write_text(json.dumps(config | {"rope_scaling": some}))
    with pytest.raises(BadInput, match="scaled rotary"):
        find_checkpoint(str(copy))
