"""A checkpoint's folder: whole or as it was, with a card that the hub reads and nobody can abuse."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from sar_eval.errors import StorageFailed
from sar_eval.families.simplear import find_checkpoint
from sar_eval.train.checkpoint_writer import ABOUT, drawn_side, save_checkpoint
from sar_eval.train.model_card import README, CardFacts, render_card
from sar_eval.train.start import Loaded, find_start

VISUAL = Path(__file__).parents[3] / "sar_eval" / "demo" / "tokenizer"
FACTS = CardFacts(name="mine", sizes={(512, 512)}, parameters=1_234_567, codes=64_000)


@pytest.fixture(scope="module")
def demo() -> Loaded:
    return find_start(VISUAL, ckpt="demo:sft").load("eager")


class FullDisk:
    """A tokenizer for which the disk has no room; the weights are written before it."""

    def save_pretrained(self, folder: Path) -> None:
        assert (folder / "model.safetensors").is_file()
        raise OSError(errno.ENOSPC, "No space left on device")


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_full_disk_leaves_what_was_there(demo: Loaded, tmp_path: Path) -> None:
    out = tmp_path / "out"
    save_checkpoint(*demo, VISUAL, {(8, 8)}, out)
    before = _files(out)
    with pytest.raises(StorageFailed, match="the disk is full"):
        save_checkpoint(demo.model, FullDisk(), VISUAL, {(16, 16)}, out)
    assert _files(out) == before
    with pytest.raises(StorageFailed):
        save_checkpoint(demo.model, FullDisk(), VISUAL, {(8, 8)}, tmp_path / "new")
    assert _files(tmp_path / "new") == {}


def test_others_may_read_what_they_may_read_of_any_file(demo: Loaded, tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    save_checkpoint(*demo, VISUAL, {(8, 8)}, tmp_path / "out")
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert {name for name, mode in modes.items() if mode != (tmp_path / "any").stat().st_mode} == set()


def test_the_model_stays_as_it_is(demo: Loaded, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in demo.model.state_dict().items()}
    save_checkpoint(*demo, VISUAL, {(8, 8)}, tmp_path / "out")
    after = demo.model.state_dict()
    assert all(after[name].dtype == torch.float32 for name in before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert "lm_head.weight" not in written, "the head is the embedding"
    assert all(torch.equal(tensor, before[name].bfloat16()) for name, tensor in written.items())


def test_gathered_weights_are_written_instead(demo: Loaded, tmp_path: Path) -> None:
    gathered = {name: torch.zeros_like(tensor) for name, tensor in demo.model.state_dict().items()}
    save_checkpoint(*demo, VISUAL, {(8, 8)}, tmp_path / "out", state=gathered)
    assert not any(tensor.any() for tensor in load_file(tmp_path / "out" / "model.safetensors").values())


@pytest.mark.parametrize(
    ("sizes", "side", "kept"),
    [
        ({(8, 8)}, 8, False),
        ({(8, 8), (16, 16)}, 16, True),
        ({(8, 8), (8, 32)}, 8, True),
        ({(8, 32), (32, 8)}, 16, True),
        ({(1, 1)}, 1, False),
    ],
)
def test_several_sizes(
    demo: Loaded, tmp_path: Path, sizes: set[tuple[int, int]], side: int, kept: bool
) -> None:
    assert drawn_side(sizes) == side
    save_checkpoint(*demo, VISUAL, sizes, tmp_path / "out")
    assert find_checkpoint(str(tmp_path / "out")).native_resolution == 8 * side
    about = json.loads((tmp_path / "out" / ABOUT).read_text())
    assert about.get("sizes") == ([list(size) for size in sorted(sizes)] if kept else None)


def _card(training: dict[str, Any], **changes: Any) -> tuple[dict[str, Any], str]:
    text = render_card(CardFacts(**{**_fields(), "training": training, **changes}))
    _, header, body = text.split("---\n", 2)  # as the hub finds the header's end
    return yaml.safe_load(header), body


def _fields() -> dict[str, Any]:
    return {name: getattr(FACTS, name) for name in FACTS.__slots__}


def test_the_hub_reads_the_card() -> None:
    from huggingface_hub import ModelCard

    training = {
        "by": "pretrain",
        "start": {"init": "Qwen/Qwen2.5-0.5B@0123abc", "tied": True},
        "data": ["hf://datasets/org/pictures/data", "/home/me/secret/tokens"],
        "options": {"steps": 10, "learning_rate": 1e-4},
        "card": {"title": "Ours", "licence": "apache-2.0", "description": "Of pictures."},
    }
    header, body = _card(training)
    assert header == {
        "license": "apache-2.0",
        "library_name": "transformers",
        "pipeline_tag": "text-to-image",
        "tags": ["sar-eval", "autoregressive", "image-generation"],
        "base_model": "Qwen/Qwen2.5-0.5B",
        "base_model_relation": "finetune",
        "datasets": ["org/pictures"],
    }
    assert "1,234,567 parameters, 64,000 visual codes, trained on pictures of 512 x 512" in body
    assert "| options.learning\\_rate | 0.0001 |" in body
    assert "secret" not in body, "a card shows no folders of a machine"
    assert "card.title" not in body
    data = ModelCard(render_card(CardFacts(**{**_fields(), "training": training}))).data
    assert (data.license, data.base_model, data.datasets) == (
        "apache-2.0",
        "Qwen/Qwen2.5-0.5B",
        ["org/pictures"],
    )


def test_a_test_in_the_training_is_told() -> None:
    assert "trained on 5 prompts of a test suite" in _card({"by": "sft", "test_prompts": 5})[1]
    assert "test suite" not in _card({"by": "sft"})[1]


def test_words_from_outside_are_no_markup() -> None:
    hostile = "x\n---\nlicense: mit\n# big <script> [a](b) |`c` @all"
    words = {"title": hostile, "licence": hostile, "description": hostile}
    header, body = _card({"card": words, hostile: hostile, "start": {"checkpoint": hostile}})
    assert header["license"] == " ".join(hostile.split()), "one value, whatever is in it"
    assert "base_model" not in header
    assert "<script>" not in body
    assert "\n---" not in body
    assert "[a](b)" not in body
    assert "@all" not in body


def test_an_adapter_says_how_it_is_merged(demo: Loaded, tmp_path: Path) -> None:
    header, body = _card({"start": {"checkpoint": "org/base@abc"}}, adapter=True)
    assert (header["library_name"], header["base_model_relation"]) == ("peft", "adapter")
    assert "sar-eval ckpt merge ORG/NAME --out MERGED" in body
    save_checkpoint(*demo, VISUAL, {(8, 8)}, tmp_path / "out", {"by": "sft"})
    assert "| by | sft |" in (tmp_path / "out" / README).read_text()
