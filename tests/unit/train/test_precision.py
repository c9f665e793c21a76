"""The precision of a training that asks for none: what its device is fast in, from the first step on."""

import json
from pathlib import Path

import pytest
import torch

from sar_eval.errors import BadInput, Incomplete
from sar_eval.train import fit as fit_module
from sar_eval.train import precision
from sar_eval.train.fit import fit
from sar_eval.train.train_recipe import load_train_recipe, make_train_recipe
from sar_eval.train.train_run import DecoderRun
from sar_eval.train.training_options import TrainingOptions
from sar_eval.train.training_settings import begun_precision
from tests.launched_training import job, make_data


@pytest.mark.parametrize(("has_kernels", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_a_processor_without_kernels_for_bfloat16_takes_float32(monkeypatch, has_kernels, expected) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precision, "multiplies_half", lambda _: has_kernels)
    assert precision.usual_precision() == expected


@pytest.mark.parametrize(("computes", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_a_card_that_emulates_it_takes_float32(monkeypatch, computes, expected) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or computes
    )
    assert precision.usual_precision() == expected


def test_torch_says_what_this_processor_has() -> None:
    """Of x86: one with AVX-512 has kernels, one without anything of the kind has none."""
    found = torch.cpu.get_capabilities()
    if found["architecture"] != "x86_64":
        pytest.skip("an x86 processor's instructions decide here")
    if all(found[name] for name in ("avx512_bw", "avx512_vl", "avx512_dq")):
        assert precision.multiplies_half(torch.bfloat16)
    elif not found["avx_ne_convert"]:
        assert not precision.multiplies_half(torch.bfloat16)


def test_a_training_without_a_precision_cannot_compute() -> None:
    with pytest.raises(ValueError, match="not chosen"):
        _ = TrainingOptions(steps=1, learning_rate=1e-3).computed_in


@pytest.mark.parametrize("text", ['{"training": {"precision": "auto"}}', '{"training": 1}', "[]", "{}"])
def test_settings_without_a_precision_name_none(tmp_path: Path, text: str) -> None:
    assert begun_precision(tmp_path) is None
    (tmp_path / "settings.json").write_text(text)
    assert begun_precision(tmp_path) is None


def test_a_training_goes_on_in_the_precision_it_began_with(monkeypatch, tmp_path: Path, one_thread) -> None:
    """On a machine that would take another one, too; who asks for another by name is refused."""
    make_data(tmp_path)
    out, stated = tmp_path / "out", {"precision": "auto", "steps": 4, "warmup": 1}
    monkeypatch.setattr(fit_module, "usual_precision", lambda: "float32")
    with pytest.raises(Incomplete):
        fit(job(tmp_path, out, stop=2, **stated))
    monkeypatch.setattr(fit_module, "usual_precision", lambda: "bfloat16")
    with pytest.raises(BadInput, match=r"training\.precision = 'float32', asked for is 'bfloat16'"):
        fit(job(tmp_path, out, **{**stated, "precision": "bfloat16"}))
    fit(job(tmp_path, out, **stated))
    assert json.loads((out / "settings.json").read_text())["training"]["precision"] == "float32"
    other = tmp_path / "other"
    fit(job(tmp_path, other, **stated))
    assert json.loads((other / "settings.json").read_text())["training"]["precision"] == "bfloat16"


def test_what_lies_beside_a_checkpoint_names_its_precision(monkeypatch, tmp_path: Path, one_thread) -> None:
    make_data(tmp_path)
    monkeypatch.setattr(fit_module, "usual_precision", lambda: "bfloat16")
    recipe = make_train_recipe(
        {
            "name": "mine",
            "data": {"places": [str(tmp_path / "tokens")], "visual_tokenizer": str(tmp_path / "tokenizer")},
            "start": {"shape": "demo"},
            "training": {"steps": 1, "batch_size": 4, "warmup": 0},
        },
        {},
    )
    assert recipe.training.precision == "auto"
    out = tmp_path / "out"
    DecoderRun.of(recipe, out).train()
    about = json.loads((out / "sar_eval.json").read_text())["training"]
    assert about["options"]["precision"] == "bfloat16"
    again = load_train_recipe(str(out / "recipe.toml"))
    assert (again.training.precision, again.digest) == ("bfloat16", recipe.digest)
