"""Checkpoint folders: what is wrong with one is told before anything is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.models.checkpoint import find_checkpoint


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_checkpoint.parent, tmp_path / "c")
    return tmp_path / "c" / "decoder"


def _change(path: Path, **values: object) -> None:
    data = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))


FAULTS: list[tuple[str, Callable[[Path], object], str]] = [
    ("no tokenizer named", lambda f: (f / "sar_eval.json").write_text("{}"), "names no visual_tokenizer"),
    ("no place", lambda f: (f / "sar_eval.json").unlink(), "no sar_eval.json"),
    ("not JSON", lambda f: (f / "sar_eval.json").write_text("{"), "is no JSON"),
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


@pytest.mark.parametrize(("break_it", "told"), [fault[1:] for fault in FAULTS], ids=[f[0] for f in FAULTS])
def test_faults_are_told(copy: Path, break_it: Callable[[Path], object], told: str) -> None:
    break_it(copy)
    with pytest.raises(BadInput, match=told):
        find_checkpoint(str(copy))


def test_a_missing_tensor_is_told(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(BadInput, match=r"no tensor 'model\.layers\.1\.mlp\.up_proj\.weight'"):
        find_checkpoint(str(copy)).load_decoder("cpu", "float32")


def test_special_tokens_in_a_prompt_stay_words(tiny_checkpoint: Path) -> None:
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
