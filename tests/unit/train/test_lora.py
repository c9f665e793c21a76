"""Low-rank adapters: what is trained, what is written, and that merging changes nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sar_eval.errors import BadInput
from sar_eval.families.simplear import find_checkpoint
from sar_eval.train.checkpoint_writer import ABOUT, save_adapter, save_checkpoint
from sar_eval.train.live_weights import whole_adapters
from sar_eval.train.lora import adapter_base, add_adapters, decoder_tensors, lora_config
from sar_eval.train.merge_adapter import CONFIG, WEIGHTS, merge, merge_into
from sar_eval.train.start import find_start

ROOT = Path(__file__).parents[3]
VISUAL = ROOT / "sar_eval" / "demo" / "tokenizer"
IDS = torch.tensor([[41, 5, 6, 7, 43, 60, 70, 2000]])

pytest.importorskip("peft", reason="needs the extra train")


def _demo() -> Any:
    return find_start(VISUAL, ckpt="demo:sft").load("eager").model


@torch.no_grad()
def _logits(model: Any) -> torch.Tensor:
    """Scores as transformers' own forward pass gives them."""
    return model.lm_head(model.model(IDS).last_hidden_state)


def _difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest one, as a share of the largest logit."""
    return float((found - expected).abs().max() / expected.abs().max())


def _merged(model: Any) -> dict[str, torch.Tensor]:
    state = model.state_dict()
    return dict(decoder_tensors(state, state.__getitem__))


@pytest.fixture(scope="module")
def trained() -> Any:
    """The demo with adapters of rank 4 that a training has moved."""
    model = _demo()
    add_adapters(model, 4, seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def adapter(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lora") / "adapter"
    training = {"by": "sft", "start": {"checkpoint": "demo:sft"}, "test_prompts": 3}
    save_adapter(whole_adapters(trained), find_checkpoint("demo:sft"), VISUAL, {(8, 8)}, out, training)
    return out


@pytest.fixture
def copy(adapter: Path, tmp_path: Path) -> Path:
    return shutil.copytree(adapter, tmp_path / "copy")


def test_adapters_alone_are_trained_and_change_nothing_at_first() -> None:
    model, whole = _demo(), _demo()
    assert not whole_adapters(model)
    add_adapters(model, 4, seed=1)
    assert torch.equal(_logits(model), _logits(whole))
    moving = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all(".lora_" in name for name in moving)
    assert len(moving) == 6 * 7 * 2, "two matrices for each of seven linear layers of six"
    again = _demo()
    add_adapters(again, 4, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_merged_weights_give_the_adapters_logits(trained: Any, adapter: Path) -> None:
    expected = _logits(trained)
    assert _difference(_logits(_demo()), expected) > 0.1, "the adapter does something"
    assert _difference(_logits(merge_into(_demo(), adapter, tied=True)), expected) < 1e-5
    ours = _demo()
    ours.load_state_dict(_merged(trained))
    assert _difference(_logits(ours), expected) < 1e-5
    assert torch.equal(_logits(trained), expected), "the model that is trained stays as it is"


@pytest.mark.slow
def test_peft_itself_opens_the_folder(trained: Any, adapter: Path) -> None:
    from peft import PeftModel

    opened = PeftModel.from_pretrained(_demo(), str(adapter)).base_model.model
    assert _difference(_logits(opened), _logits(trained)) < 1e-5
    assert json.loads((adapter / CONFIG).read_text())["base_model_name_or_path"] == "demo:sft"


@pytest.mark.slow
def test_the_command_writes_a_checkpoint(
    adapter: Path, trained: Any, tmp_path: Path, sar_eval_here: Callable[..., tuple[int, str]]
) -> None:
    out = tmp_path / "merged"
    code, text = sar_eval_here("ckpt", "merge", adapter, "--out", out)
    assert (code, "demo:sft" in text) == (0, True), text
    found = find_checkpoint(str(out))
    assert (found.native_resolution, found.test_prompts) == (64, 3)
    written, expected = load_file(out / "model.safetensors"), _merged(trained)
    for name, tensor in written.items():
        torch.testing.assert_close(tensor, expected[name].bfloat16(), rtol=0, atol=0)
    facts = json.loads((out / ABOUT).read_text())["training"]
    assert (facts["by"], facts["base"], facts["adapter"]) == ("sft", "demo:sft", adapter.name)
    assert sar_eval_here("ckpt", "merge", adapter, "--out", out)[0] == 2, "finished checkpoints stay"


@pytest.mark.slow
def test_a_checkpoint_that_is_drawn_while_training_is_merged(trained: Any, tmp_path: Path) -> None:
    tokenizer = find_start(VISUAL, ckpt="demo:sft").load("eager").tokenizer
    save_checkpoint(trained, tokenizer, VISUAL, {(8, 8)}, tmp_path / "best")
    weights = find_checkpoint(str(tmp_path / "best")).read_weights("cpu", torch.float32)
    expected = _merged(trained)
    assert all(torch.equal(tensor, expected[name].bfloat16().float()) for name, tensor in weights.items())


@pytest.mark.slow
def test_an_adapter_draws_nothing(
    adapter: Path, tmp_path: Path, sar_eval_here: Callable[..., tuple[int, str]]
) -> None:
    command = f"sar-eval ckpt merge {adapter} --out MERGED"
    for words in (
        ("ckpt", "info", adapter),
        ("run", "shapes", "--ckpt", adapter, "--out", tmp_path / "run"),
    ):
        code, text = sar_eval_here(*words)
        assert code == 2
        assert command in " ".join(text.split()).replace("` ", "`"), text


def test_another_base_is_told(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"trained on a base of digest .*demo:pretrain has"):
        merge(str(adapter), tmp_path / "out", base="demo:pretrain")
    assert not (tmp_path / "out").exists()


def _change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


Tensors = dict[str, torch.Tensor]
LAYER = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
HEAD = {f"base_model.model.lm_head.lora_{name}.weight": torch.ones(1, 1) for name in "AB"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / CONFIG).unlink(), r"no adapter_config\.json"),
        (lambda f: (f / CONFIG).write_text("{"), r"adapter_config\.json"),
        (lambda f: _change(f / CONFIG, peft_type="PREFIX_TUNING"), "only 'LORA' can be merged"),
        (lambda f: _change(f / CONFIG, megatron_config={"a": 1}), "Megatron"),
        (lambda f: _change(f / CONFIG, r=0), r"adapter_config\.json: ValueError"),
        (lambda f: _change(f / CONFIG, r=8), r"is \(4, \d+\), \(8, \d+\) is needed"),
        (
            lambda f: _change(f / CONFIG, target_modules=["q_proj"]),
            "has a tensor that the base has no place",
        ),
        (lambda f: _change(f / CONFIG, target_modules=["query"]), "is it the adapter of another base"),
        (lambda f: (f / WEIGHTS).write_bytes(b"no tensors"), "cannot be read"),
        (lambda f: _tensors(f, lambda t: t.pop(f"{LAYER}A.weight")), "lacks the tensor"),
        (lambda f: _tensors(f, lambda t: t[f"{LAYER}A.weight"].fill_(torch.nan)), "cannot be merged"),
        (lambda f: _tensors(f, lambda t: t.update(HEAD)), "which are one in this base"),
    ],
)
def test_a_damaged_adapter_is_named(
    copy: Path, tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    damage(copy)
    with pytest.raises(BadInput, match=message):
        merge(str(copy), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_adapter_of_another_trainer_needs_no_file_of_ours(copy: Path, tmp_path: Path) -> None:
    (copy / ABOUT).unlink()
    merge(str(copy), tmp_path / "out")
    assert find_checkpoint(str(tmp_path / "out")).native_resolution == 64
    _change(copy / CONFIG, base_model_name_or_path=None)
    with pytest.raises(BadInput, match="names no base: name it with --base"):
        merge(str(copy), tmp_path / "other")


@pytest.mark.parametrize(
    ("base", "name", "revision"),
    [
        ("demo:sft", "demo:sft", None),
        ("org/base@0123abcd", "org/base", "0123abcd"),
        ("/data/base@3000", "/data/base@3000", None),
    ],
)
def test_peft_is_told_the_base(base: str, name: str, revision: str | None) -> None:
    config = lora_config(4, base)
    assert (config.base_model_name_or_path, config.revision) == (name, revision)


def test_adapters_are_of_checkpoints() -> None:
    start = find_start(VISUAL, ckpt="demo:sft")
    base = adapter_base(start, 16)
    assert base is not None
    assert base.name == "demo:sft"
    assert adapter_base(find_start(VISUAL, shape="demo"), 0) is None
    with pytest.raises(BadInput, match="--lora and --ema do not go together"):
        adapter_base(start, 16, ema=0.99)
    with pytest.raises(BadInput, match="--lora 16 trains adapters of a checkpoint: name one with --ckpt"):
        adapter_base(find_start(VISUAL, shape="demo"), 16)
