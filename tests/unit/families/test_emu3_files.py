"""Files of Emu3's checkpoints: missing, damaged, foreign, of another form, and their digest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput
from sar_eval.families.emu3 import FAMILY, PROTOCOLS
from sar_eval.families.recognise import find_checkpoint
from sar_eval.types import DrawProtocol, Prompt, make_draw
from tests.tiny_emu3 import CODES, FIRST_CODE, LLAMA, SIDE, vision_tensors, write_emu3

pytestmark = pytest.mark.usefixtures("one_thread")
NAMINGS = ("original", "transformers")
SAMPLED = DrawProtocol("emu3", SIDE, **PROTOCOLS["emu3"])


def _tokens(folder: Path) -> tuple[int, ...]:
    with NativeEngine(str(folder), SAMPLED) as engine:
        [generation] = engine.generate([make_draw(Prompt("p", "a red ring"), 0, 5)])
    assert generation.error is None
    return generation.tokens


@pytest.fixture(scope="module")
def emu3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_emu3(tmp_path_factory.mktemp("emu3") / "original")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_emu3(tmp_path_factory.mktemp("emu3") / "transformers", "transformers")


def _changed(tmp_path: Path, naming: str, **changes: torch.Tensor | None) -> str:
    folder = write_emu3(tmp_path / "changed", naming)
    tensors = load_file(folder / "model.safetensors") | changes
    save_file({n: t for n, t in tensors.items() if t is not None}, folder / "model.safetensors")
    return str(folder)


@pytest.mark.parametrize(
    ("naming", "name"),
    [("original", "model.norm.weight"), ("transformers", "text_model.model.norm.weight")],
)
def test_a_tensor_of_the_network_that_is_missing_or_odd_is_named(
    tmp_path: Path, naming: str, name: str
) -> None:
    lost = _changed(tmp_path / "lost", naming, **{name: None})
    with pytest.raises(BadInput, match=f"no tensor '{name}'"):
        find_checkpoint(lost)
    quantised = _changed(tmp_path / "int8", naming, **{name: torch.ones(32, dtype=torch.int8)})
    with pytest.raises(BadInput, match="type I8"):
        find_checkpoint(quantised)
    misshapen = _changed(tmp_path / "wide", naming, **{name: torch.ones(33)})
    with pytest.raises(BadInput, match=rf"tensor '{name}' is \(33,\), and it has to be \(32,\)"):
        find_checkpoint(misshapen)
    more = name.replace("norm", "layers.0.mlp.gate")
    foreign = _changed(tmp_path / "more", naming, **{more: torch.ones(2, 2)})
    with pytest.raises(BadInput, match=rf"no part of the network that was expected here \({more}\)"):
        find_checkpoint(foreign)


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_missing_tensor_of_the_picture_decoder_is_named_before_drawing(
    tmp_path: Path, naming: str
) -> None:
    folder = write_emu3(tmp_path / "c", naming)
    prefix = "" if naming == "original" else "vqmodel."
    path = (tmp_path / "vision" if naming == "original" else folder) / "model.safetensors"
    tensors, name = load_file(path), f"{prefix}decoder.conv_out.bias"
    save_file({n: tensor for n, tensor in tensors.items() if n != name}, path)
    with pytest.raises(BadInput, match=f"no tensor '{name}'"), NativeEngine(str(folder), SAMPLED):
        pytest.fail("it loaded")


def test_torch_files_are_checked_before_they_are_loaded(tmp_path: Path, emu3: Path) -> None:
    folder = write_emu3(tmp_path / "c")
    for path in (folder, tmp_path / "vision"):
        torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
        (path / "model.safetensors").unlink()
    assert _tokens(folder) == _tokens(emu3)
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    del tensors["lm_head.weight"]
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"no tensor 'lm_head\.weight'"):
        find_checkpoint(str(folder))
    torch.save(vision_tensors("original", codes=32), tmp_path / "vision/pytorch_model.bin")
    torch.save(load_file(emu3 / "model.safetensors"), folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"codebook is \(32, 4\), and .* has 24 visual tokens"):
        find_checkpoint(str(folder))


def test_another_visual_tokenizer_is_drawn_with(tmp_path: Path, emu3: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(emu3.parent / "vision", other)
    tensors = load_file(other / "model.safetensors")
    save_file(tensors | {"decoder.conv_out.bias": torch.ones(3)}, other / "model.safetensors")
    found, plain = find_checkpoint(str(emu3), str(other)), find_checkpoint(str(emu3))
    assert found.visual_folder == other
    assert found.digest != plain.digest
    assert found.encoder_digest != plain.encoder_digest


def test_a_visual_tokenizer_that_cannot_be_is_named(tmp_path: Path, emu3: Path, converted: Path) -> None:
    with pytest.raises(BadInput, match="has its own picture decoder: leave out --visual-tokenizer"):
        find_checkpoint(str(converted), str(emu3.parent / "vision"))
    with pytest.raises(BadInput, match=r"no \*\.safetensors in .*nowhere: a visual tokenizer is needed"):
        find_checkpoint(str(emu3), str(tmp_path / "nowhere"))
    (tmp_path / "encoder.jit").write_bytes(b"")
    with pytest.raises(BadInput, match=r"no \*\.safetensors in .* is needed, as BAAI/Emu3-VisionTokenizer"):
        find_checkpoint(str(emu3), str(tmp_path))
    save_file(vision_tensors("original", codes=32), tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match=r"codebook is \(32, 4\), and .* has 24 visual tokens"):
        find_checkpoint(str(emu3), str(tmp_path))
    save_file({"decoder.x": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match=r"no tensor 'quantize\.embedding\.weight' of a visual tokenizer"):
        find_checkpoint(str(emu3), str(tmp_path))


def test_without_a_visual_tokenizer_the_published_one_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = write_emu3(tmp_path / "c")
    (folder / "sar_eval.json").unlink()
    message = r"BAAI/Emu3-VisionTokenizer.*nothing of it is cached.*--visual-tokenizer FOLDER"
    with pytest.raises(BadInput, match=message):
        find_checkpoint(str(folder))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.mark.parametrize(
    ("naming", "file", "text", "message"),
    [
        ("original", "config.json", None, "no config.json"),
        ("original", "config.json", "[]", "must hold a JSON object"),
        ("original", "config.json", "{", "config.json"),
        ("original", "emu3.tiktoken", None, r"no tokenizer\.json in .*not both of emu3\.tiktoken"),
        ("original", "emu3_vision_tokens.txt", None, "not both of"),
        ("original", "emu3_vision_tokens.txt", "xy\n", r"no token <\|image token\|>"),
        ("original", "emu3.tiktoken", "x", "line 1: no word in base64"),
        ("original", "emu3.tiktoken", POINTER, "git-lfs|git lfs|LFS"),
        ("original", "model.safetensors", None, r"no \*\.safetensors and no pytorch_model"),
        ("original", "model.safetensors", "", "model.safetensors"),
        ("original", "model.safetensors", POINTER, "git-lfs|git lfs|LFS"),
        ("original", "../vision/model.safetensors", POINTER, "git-lfs|git lfs|LFS"),
        ("original", "../vision/model.safetensors", None, "a visual tokenizer is needed"),
        ("original", "sar_eval.json", '{"visual_tokenizer": 3}', "names no visual_tokenizer"),
        ("transformers", "tokenizer.json", None, r"no tokenizer\.json"),
        ("transformers", "tokenizer.json", "{}", "no vocabulary of a byte-level BPE"),
        ("transformers", "model.safetensors", None, r"no \*\.safetensors and no pytorch_model"),
        ("transformers", "adapter_config.json", "{}", "merge it first"),
    ],
)
def test_a_missing_or_damaged_file_is_named(
    tmp_path: Path, naming: str, file: str, text: str | None, message: str
) -> None:
    folder = write_emu3(tmp_path / "c", naming)
    (folder / file).unlink(missing_ok=True)
    if text is not None:
        (folder / file).write_text(text)
    with pytest.raises(BadInput, match=message):
        find_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 400}, r"has the id 490, and those of config\.json end at 399"),
        ({"boi_token_id": 7}, "boi_token_id is 7, the tokenizer's is"),
        ({"hidden_size": "big"}, r"config\.json: a value is no number: hidden_size"),
        ({"hidden_size": 64}, r"tensor 'model\.embed_tokens\.weight' is \(491, 32\)"),
        ({"image_area": 0}, r"config\.json, image_area: image_area is 0"),
        ({"image_area": 4}, r"config\.json, image_area: a picture of 0 rows"),
        ({"rope_scaling": {"type": "linear"}}, "scaled rotary embeddings are not supported"),
        ({"quantization_config": {"bits": 4}}, "quantised weights are not supported"),
    ],
)
def test_a_config_that_does_not_fit_is_named(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        find_checkpoint(_with_config(tmp_path, **change))


def _with_config(tmp_path: Path, **changes: object) -> str:
    folder = write_emu3(tmp_path / "c")
    config = json.loads((folder / "config.json").read_text()) | changes
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_the_resolution_is_720_where_no_config_states_an_area(tmp_path: Path) -> None:
    assert find_checkpoint(_with_config(tmp_path, image_area=None)).native_resolution == 720


@pytest.mark.parametrize("naming", NAMINGS)
def test_each_file_that_matters_is_in_the_digest(tmp_path: Path, naming: str) -> None:
    folder = write_emu3(tmp_path / "c", naming)
    before = FAMILY.find(str(folder)).digest
    others = [folder / "README.md", folder / "generation_config.json"]
    for path in others:
        path.write_text("{}")
    assert FAMILY.find(str(folder)).digest == before
    found = [before]
    for path in sorted({*tmp_path.rglob("*")} - {*others, folder / "sar_eval.json"}):
        if path.is_file() and path.parent.name + path.name != "visionconfig.json":
            data = path.read_bytes()
            path.write_bytes(_other(path, data))
            found.append(FAMILY.find(str(folder)).digest)
            path.write_bytes(data)
    assert len(set(found)) == len(found) == {"original": 6, "transformers": 4}[naming]
    assert FAMILY.find(str(folder)).digest == before


def _other(path: Path, data: bytes) -> bytes:
    """Another file that means the same, or other weights."""
    return data[:-1] + bytes([data[-1] ^ 1]) if path.suffix == ".safetensors" else data + b"\n"


def test_a_trainers_weights_are_checked_by_name(emu3: Path) -> None:
    found = find_checkpoint(str(emu3))
    stored = load_file(emu3 / "model.safetensors")
    assert found.checked_weights(stored, "the trainer").keys() == stored.keys()
    del stored["lm_head.weight"]
    with pytest.raises(BadInput, match=r"^the trainer: the weights have no tensor 'lm_head\.weight'"):
        found.checked_weights(stored, "the trainer")
    assert found.parameters == sum(t.numel() for t in load_file(emu3 / "model.safetensors").values())
    assert LLAMA["vocab_size"] == FIRST_CODE + CODES
