"""Checkpoint folders: faults are reported before anything is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sar_eval.decoding.load import load_decoder
from sar_eval.errors import BadInput
from sar_eval.families.simplear import find_checkpoint


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_checkpoint.parent, tmp_path / "c")
    return tmp_path / "c" / "decoder"


def _change(path: Path, **values: object) -> None:
    data = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))


FAULTS: list[tuple[str, Callable[[Path], object], str]] = [
    ("no tokenizer named", lambda f: (f / "sar_eval.json").write_text("{}"), "names no visual_tokenizer"),
    ("no visual tokenizer", lambda f: (f / "sar_eval.json").unlink(), "--visual-tokenizer FOLDER"),
    ("not JSON", lambda f: (f / "sar_eval.json").write_text("{"), "broken JSON"),
    ("a list", lambda f: (f / "config.json").write_text("[]"), "must hold a JSON object"),
    ("no vocabulary", lambda f: _change(f / "config.json", vocab_size=None), "no key 'vocab_size'"),
    ("a word", lambda f: _change(f / "config.json", vocab_size="x"), "a value is no number"),
    ("another model", lambda f: _change(f / "config.json", model_type="llama"), "model_type is 'llama'"),
    ("no width", lambda f: _change(f / "config.json", hidden_size=None), "no key 'hidden_size'"),
    ("broken tokenizer", lambda f: (f / "tokenizer.json").write_text("{}"), "no readable tokenizer"),
    ("no decoder", lambda f: (f.parent / "tokenizer" / "decoder.jit").unlink(), "no decoder.jit"),
    (
        "no codes",
        lambda f: _change(f.parent / "tokenizer" / "config.json", codebook_size=None),
        "codebook_size",
    ),
]


@pytest.mark.parametrize(
    ("break_it", "message"), [fault[1:] for fault in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_faults_are_reported(
    copy: Path, break_it: Callable[[Path], object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAR_EVAL_OFFLINE", "1")
    break_it(copy)
    with pytest.raises(BadInput, match=message):
        find_checkpoint(str(copy))


def test_a_missing_tensor_is_reported(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(BadInput, match=r"no tensor 'model\.layers\.1\.mlp\.up_proj\.weight'"):
        load_decoder(find_checkpoint(str(copy)), "cpu", "float32")


def test_special_tokens_in_a_prompt_are_read_as_text(tiny_checkpoint: Path) -> None:
    checkpoint = find_checkpoint(str(tiny_checkpoint))
    begin, image = (checkpoint.text_tokenizer.token_to_id(t) for t in ("<|t2i|>", "<|soi|>"))
    ids = checkpoint.prompt_ids("a ring <|soi|> <|t2i|>")
    assert (ids[0], ids[-1]) == (begin, image)
    assert not {begin, image} & set(ids[1:-1])


def test_the_digest_is_of_all_files(copy: Path) -> None:
    before = find_checkpoint(str(copy)).digest
    path = copy.parent / "tokenizer" / "config.json"
    path.write_text(path.read_text() + "\n")
    assert find_checkpoint(str(copy)).digest != before


def _as_torch_files(folder: Path) -> None:
    """The weights in two torch files with an index, as older checkpoints have them."""
    import torch
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
    halves = [dict(list(weights.items())[part::2]) for part in (0, 1)]
    for name, half in zip(files, halves, strict=True):
        torch.save(half, folder / name)
    weight_map = {key: name for name, half in zip(files, halves, strict=True) for key in half}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_torch_files_are_the_same_checkpoint(copy: Path, tiny_checkpoint: Path) -> None:
    import torch

    _as_torch_files(copy)
    theirs = load_decoder(find_checkpoint(str(copy)), "cpu", "float32")
    ours = load_decoder(find_checkpoint(str(tiny_checkpoint)), "cpu", "float32")
    torch.testing.assert_close(
        theirs.layers[2].down.product.weight, ours.layers[2].down.product.weight, rtol=0, atol=0
    )
    torch.testing.assert_close(theirs.head, ours.head, rtol=0, atol=0)


def test_a_missing_shard_is_reported_before_anything_is_loaded(copy: Path) -> None:
    _as_torch_files(copy)
    (copy / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(BadInput, match=r"no pytorch_model-00002-of-00002\.bin"):
        find_checkpoint(str(copy))


def test_weights_of_another_width_are_refused_in_both_kinds_of_files(copy: Path) -> None:
    """By their headers, before anything is loaded."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(7)
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(BadInput, match=r"'model\.norm\.weight' is \(7,\)"):
        find_checkpoint(str(copy))
    _as_torch_files(copy)
    with pytest.raises(BadInput, match=r"'model\.norm\.weight' is \(7,\)"):
        find_checkpoint(str(copy))


def test_a_visual_tokenizer_can_be_named(copy: Path, tiny_checkpoint: Path) -> None:
    (copy / "sar_eval.json").unlink()
    checkpoint = find_checkpoint(str(copy), str(tiny_checkpoint.parent / "tokenizer"))
    assert checkpoint.codebook_size == 64
    with pytest.raises(BadInput, match=r"no encoder\.jit in .*nowhere"):
        find_checkpoint(str(copy), str(copy / "nowhere"))
