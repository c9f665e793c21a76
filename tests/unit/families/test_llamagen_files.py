"""The files of a checkpoint of LlamaGen: found, several of them told apart, damaged ones named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from sar_eval.errors import BadInput
from sar_eval.families.recognise import find_checkpoint
from tests.tiny_llamagen import (
    NETWORK,
    VISUAL,
    network_tensors,
    save,
    visual_tensors,
    write_llamagen,
    write_settings,
    write_t5,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAR_EVAL_OFFLINE", "1")
    return write_llamagen(tmp_path / "c")


def test_of_several_checkpoints_one_has_to_be_named(folder: Path) -> None:
    second = folder / "t2i_tiny_stage2_96.pt"
    save(network_tensors(6), second)
    with pytest.raises(BadInput, match=rf"has 2 checkpoints: name one of .*{NETWORK}\.pt, .*stage2_96\.pt"):
        find_checkpoint(str(folder))
    found, other = find_checkpoint(str(second)), find_checkpoint(str(folder / f"{NETWORK}.pt"))
    assert (found.name, found.native_resolution, other.native_resolution) == (str(second), 96, 64)
    assert found.digest != other.digest
    assert found.encoder_digest == other.encoder_digest


def test_a_file_of_any_name_is_told_by_its_tensors(folder: Path) -> None:
    file = (folder / f"{NETWORK}.pt").rename(folder / "0050000.pt")
    with pytest.raises(BadInput, match=r"neither its tensors nor its name .* say how large"):
        find_checkpoint(str(file))
    write_settings(folder, resolution=64)
    assert find_checkpoint(str(file)).native_resolution == 64
    with pytest.raises(BadInput, match=r"vq_ds16_t2i\.pt is a checkpoint of no family that is known"):
        find_checkpoint(str(folder / f"{VISUAL}.pt"))


def test_a_file_of_a_family_that_has_folders_leads_to_its_folder(tiny_checkpoint: Path) -> None:
    with pytest.raises(
        BadInput, match=r"model\.safetensors is a file, and this checkpoint is a folder: name"
    ):
        find_checkpoint(str(tiny_checkpoint / "model.safetensors"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": "many"}, "sar_eval.json: a value is no number: heads is 'many'"),
        ({"heads": 3}, "a width of 32 does not divide into 3 heads"),
        ({"resolution": 60}, "pictures of 60 pixels are no multiple of 16"),
        ({"text_encoder": 3}, "sar_eval.json: text_encoder is 3: a path or a name of the hub"),
        ({"text_encoder": "nowhere"}, "no text encoder of LlamaGen's: .*nowhere"),
        ({"visual_tokenizer": "nowhere"}, "no picture decoder of LlamaGen's: .*nowhere"),
    ],
)
def test_settings_that_do_not_fit_are_named(folder: Path, settings: dict, message: str) -> None:
    write_settings(folder, **settings)
    with pytest.raises(BadInput, match=message):
        find_checkpoint(str(folder))


def test_heads_that_nothing_says_are_asked_for(folder: Path) -> None:
    (folder / "sar_eval.json").unlink()
    with pytest.raises(BadInput, match=r'2 layers of width 32 .*write {"heads": NUMBER} to sar_eval\.json'):
        find_checkpoint(str(folder))


def test_the_parts_may_lie_elsewhere(folder: Path, tmp_path: Path) -> None:
    before = find_checkpoint(str(folder)).digest
    parts = tmp_path / "parts"
    parts.mkdir()
    shutil.move(folder / "t5", parts / "encoder")
    visual = (folder / f"{VISUAL}.pt").rename(parts / f"{VISUAL}.pt")
    write_settings(folder, text_encoder="../parts/encoder")
    with pytest.raises(BadInput, match=r"no picture decoder of LlamaGen's: .*--visual-tokenizer FILE"):
        find_checkpoint(str(folder))
    for name in (visual, parts):
        assert find_checkpoint(str(folder), str(name)).digest == before
    write_settings(folder, text_encoder="../parts/encoder", visual_tokenizer="../parts")
    assert find_checkpoint(str(folder)).digest == before
    write_settings(folder, visual_tokenizer="../parts")
    with pytest.raises(
        BadInput, match=r"no text encoder of LlamaGen's: .*google/flan-t5-xl.*put its folder"
    ):
        find_checkpoint(str(folder))


@pytest.mark.parametrize("change", ["t5", "vq", "heads", "resolution"])
def test_whatever_decides_pixels_is_in_the_digest(folder: Path, change: str) -> None:
    before = find_checkpoint(str(folder)).digest
    if change == "t5":
        write_t5(folder / "t5", **{"encoder.final_layer_norm.weight": torch.full((8,), 2.0)})
    elif change == "vq":
        save(visual_tensors() | {"post_quant_conv.bias": torch.ones(32)}, folder / f"{VISUAL}.pt")
    else:
        write_settings(folder, **{change: {"heads": 2, "resolution": 80}[change]})
    assert find_checkpoint(str(folder)).digest != before


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_missing_foreign_or_quantised_tensor_is_named(tmp_path: Path, suffix: str) -> None:
    folder, tensors = write_llamagen(tmp_path / "c", suffix), network_tensors()
    changes = [
        ({"layers.1.attention.wo.weight": None}, r"no tensor 'layers\.1\.attention\.wo\.weight'"),
        ({"cls_embedding.cap_proj.fc2.weight": None}, r"no tensor 'cls_embedding\.cap_proj\.fc2\.weight'"),
        ({"condition.weight": torch.zeros(2)}, r"condition\.weight"),
        ({"norm.weight": torch.zeros(3)}, r"'norm\.weight' is \(3,\), and it has to be \(32,\)"),
        ({"output.weight": torch.zeros(24, 32, dtype=torch.int8)}, r"of type .*int8|of type I8"),
    ]
    for change, message in changes:
        left = {name: t for name, t in (tensors | change).items() if t is not None}
        save(left, folder / f"{NETWORK}{suffix}")
        for name in (folder, folder / f"{NETWORK}{suffix}"):
            with pytest.raises(BadInput, match=message):
                find_checkpoint(str(name))


def test_a_damaged_or_unfetched_file_is_named(folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    for name in (f"{NETWORK}.pt", f"{VISUAL}.pt", "t5/model.safetensors", "t5/tokenizer.json"):
        whole = (folder / name).read_bytes()
        (folder / name).write_text(pointer)
        with pytest.raises(BadInput, match=rf"{name} is a git-lfs pointer"):
            find_checkpoint(str(folder))
        (folder / name).write_bytes(whole)
    file = folder / f"{NETWORK}.pt"
    file.write_bytes(file.read_bytes()[:1000])
    for name in (folder, file):
        with pytest.raises(BadInput, match=rf"{NETWORK}\.pt is no torch file"):
            find_checkpoint(str(name))
    with pytest.raises(BadInput, match=r"x\.pt is a checkpoint of no family .* or cannot be read"):
        find_checkpoint(str(file.rename(folder / "x.pt")))


def test_a_picture_decoder_that_does_not_fit_is_named_before_drawing(folder: Path) -> None:
    tensors = visual_tensors()
    save({n: t for n, t in tensors.items() if n != "post_quant_conv.bias"}, folder / f"{VISUAL}.pt")
    with pytest.raises(BadInput, match=r"no tensor 'post_quant_conv\.bias'"):
        find_checkpoint(str(folder)).load_image_decoder("cpu")
    save(tensors | {"quantize.embedding.weight": torch.ones(9, 8)}, folder / f"{VISUAL}.pt")
    with pytest.raises(BadInput, match="has 9 codes of 16 pixels, and 24 of 16 are needed"):
        find_checkpoint(str(folder)).load_image_decoder("cpu")


def test_another_t5_is_refused(folder: Path) -> None:
    config = folder / "t5" / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"d_model": 8', '"d_model": 16'))
    with pytest.raises(BadInput, match=r"takes captions of 8 numbers a place, and T5 in .* makes 16"):
        find_checkpoint(str(folder))
    config.write_text(text.replace('"model_type": "t5"', '"model_type": "llama"'))
    with pytest.raises(BadInput, match="no configuration of T5"):
        find_checkpoint(str(folder))
    config.write_text(text)
    (folder / "t5" / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="T5's weights"):
        find_checkpoint(str(folder))
