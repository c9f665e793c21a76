"""What a training begins with: the vocabulary's layout, old rows as they were, new ones by seed."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sar_eval.engines.hf import HfEngine
from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput
from sar_eval.families.demo import SPECIAL_TOKENS
from sar_eval.families.simplear import find_checkpoint
from sar_eval.train.checkpoint_writer import save_checkpoint
from sar_eval.train.start import SHAPES, Loaded, ShapeStart, find_start
from sar_eval.types import DrawProtocol, Prompt, make_draw
from tests.language_models import TEXTS, write_language_model

ROOT = Path(__file__).parents[3]
VISUAL = ROOT / "sar_eval" / "demo" / "tokenizer"
CODES = 2560


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language_model(tmp_path_factory.mktemp("start") / "tied")


@pytest.fixture(scope="module")
def plain(language_model: Path) -> Any:
    """The same files as transformers loads them."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(language_model, dtype=torch.float32)


def _init(folder: Path, **options: Any) -> Loaded:
    return find_start(VISUAL, init=str(folder), **options).load("eager")


def test_text_then_special_tokens_then_codes(language_model: Path, plain: Any) -> None:
    model, tokenizer = _init(language_model)
    old = len(tokenizer) - len(SPECIAL_TOKENS)
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(old, len(tokenizer)))
    rows, known = model.model.embed_tokens.weight, plain.model.embed_tokens.weight
    assert len(known) > old, "some rows are padding"
    assert rows.shape == (len(tokenizer) + CODES, 128)
    assert torch.equal(rows[:old], known[:old])
    assert model.lm_head.weight is rows
    assert model.config.vocab_size == len(rows)
    assert model.training


def test_it_reads_text_as_the_language_model_did(language_model: Path, plain: Any) -> None:
    model, tokenizer = _init(language_model)
    ids = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        expected = plain.model(ids).last_hidden_state
        torch.testing.assert_close(model.model(ids).last_hidden_state, expected, rtol=0, atol=1e-6)


def test_every_code_is_about_as_likely_at_first(language_model: Path) -> None:
    model, tokenizer = _init(language_model)
    ids = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        hidden = model.model(ids).last_hidden_state[0]
        scores = hidden @ model.lm_head.weight[len(tokenizer) :].T
    losses = scores.logsumexp(-1, keepdim=True) - scores
    assert losses.mean() == pytest.approx(math.log(CODES), abs=0.1)
    assert losses.std() > 0, "but no two rows are the same"


def test_new_rows_depend_on_the_seed_alone(language_model: Path) -> None:
    one, again, other = (_init(language_model, seed=seed).model.lm_head.weight for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_head_is_untied(language_model: Path, plain: Any) -> None:
    model, tokenizer = _init(language_model, tie=False)
    old = len(tokenizer) - len(SPECIAL_TOKENS)
    embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
    assert torch.equal(head[:old], plain.model.embed_tokens.weight[:old])
    assert head.shape == embedding.shape
    assert not torch.equal(head[old:], embedding[old:])
    assert model.config.tie_word_embeddings is False


def test_a_head_of_its_own_stays_or_is_tied(tmp_path: Path) -> None:
    from transformers import Qwen2ForCausalLM

    folder = write_language_model(tmp_path / "untied", tied=False)
    known = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32).lm_head.weight
    kept, tokenizer = _init(folder)
    old = len(tokenizer) - len(SPECIAL_TOKENS)
    assert torch.equal(kept.lm_head.weight[:old], known[:old])
    tied = _init(folder, tie=True).model
    assert tied.lm_head.weight is tied.model.embed_tokens.weight


@pytest.mark.slow
@pytest.mark.parametrize("tie", [True, False])
def test_what_is_written_loads_everywhere(language_model: Path, tmp_path: Path, tie: bool) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = _init(language_model, tie=tie)
    out = tmp_path / "checkpoint"
    save_checkpoint(model, tokenizer, VISUAL, {(8, 8)}, out)
    found = find_checkpoint(str(out))
    assert (found.native_resolution, found.notes) == (64, ())
    assert found.visual_ids == range(len(tokenizer), len(tokenizer) + CODES)
    draws = [make_draw(Prompt("a", text), 0, 7) for text in TEXTS]
    tokens = []
    for engine in (NativeEngine, HfEngine):
        with engine(str(out), DrawProtocol("test", 64, guidance=2.0), dtype="float32") as made:
            tokens.append([generation.tokens for generation in made.generate(draws)])
    assert tokens[0] == tokens[1]
    ids = torch.tensor([found.prompt_ids(TEXTS[0])])
    with torch.no_grad():
        loaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
        for parameter in model.parameters():  # not the rotary embedding's buffer
            parameter.copy_(parameter.bfloat16())
        expected = model.model(ids).last_hidden_state
        torch.testing.assert_close(loaded.model(ids).last_hidden_state, expected, rtol=0, atol=1e-5)
        assert loaded(ids).logits.shape[-1] == len(tokenizer) + CODES
    assert AutoTokenizer.from_pretrained(out)(f"<|t2i|>{TEXTS[0]}<|soi|>")["input_ids"] == ids[0].tolist()


@pytest.mark.parametrize(("shape", "published"), [("0.5b", 494_032_768), ("1.5b", 1_543_714_304)])
def test_shapes_are_qwens(shape: str, published: int) -> None:
    """Parameters of Qwen2.5's files on the hub, whose embedding has 151,936 rows."""
    from sar_eval.train.model import TrainedDecoder

    config = ShapeStart(shape=shape, codebook_size=36)._config(151_900)
    with torch.device("meta"):
        model = TrainedDecoder(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == published
    assert SHAPES.keys() == {"0.5b", "1.5b"}


def test_a_config_file_is_a_shape(language_model: Path) -> None:
    config = language_model / "config.json"
    own, tokenizer = find_start(VISUAL, shape=str(config)).load("eager")
    assert own.config.vocab_size == len(tokenizer) + CODES
    assert own.config.rope_parameters["rope_theta"] == 1_000_000
    model, words = find_start(VISUAL, shape=str(config), text_tokenizer="demo:sft", tie=False).load("eager")
    assert (len(words), model.config.vocab_size) == (55, 55 + CODES)
    assert model.lm_head.weight is not model.model.embed_tokens.weight


def test_random_weights_leave_torchs_own_seed_alone() -> None:
    start = find_start(VISUAL, shape="demo", seed=3)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other = (start.load("eager").model.lm_head.weight for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_checkpoint_is_loaded_in_float32_with_one_head() -> None:
    start = find_start(VISUAL, ckpt="demo:sft")
    model, tokenizer = start.load("eager")
    weights = find_checkpoint("demo:sft").read_weights("cpu", torch.float32)
    assert torch.equal(model.lm_head.weight, weights["model.embed_tokens.weight"])
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert len(tokenizer) == 55
    assert start.facts == {"checkpoint": "demo:sft", "digest": find_checkpoint("demo:sft").digest}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing says what to begin with: name one of --init, --shape, --ckpt"),
        ({"init": "a", "shape": "demo"}, "--init and --shape says"),
        ({"ckpt": "demo:sft", "text_tokenizer": "demo:sft"}, "--text-tokenizer goes with --shape alone"),
        ({"ckpt": "demo:sft", "tie": True}, "a checkpoint's head stays as it is"),
        ({"shape": "0.5b"}, "--shape 0.5b has no text tokenizer: name one with --text-tokenizer"),
        ({"shape": "3b"}, "--shape 3b is neither 0.5b, 1.5b nor demo nor a file"),
        ({"init": "no such model"}, "unknown language model 'no such model'"),
        ({"shape": "0.5b", "text_tokenizer": "no such"}, "unknown text tokenizer 'no such'"),
    ],
)
def test_what_cannot_be_meant_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        find_start(VISUAL, **options)


def test_a_checkpoint_is_no_language_model() -> None:
    with pytest.raises(BadInput, match=r"has the token <\|soi\|>.*name it with --ckpt"):
        _init(ROOT / "sar_eval" / "demo" / "sft")


def _without_head(config: dict[str, Any]) -> None:
    config["architectures"] = ["Qwen2Model"]


def _llama(config: dict[str, Any]) -> None:
    config["model_type"] = "llama"


def _wider(config: dict[str, Any]) -> None:
    config["hidden_size"] = 256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_head, "no head that predicts tokens"),
        (_llama, "only 'qwen2' decoders"),
        (_wider, "config.json says"),
    ],
)
def test_another_model_is_named(language_model: Path, tmp_path: Path, change: Any, message: str) -> None:
    folder = shutil.copytree(language_model, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=message):
        _init(folder)


def test_a_tokenizer_of_another_model_is_named(language_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(language_model, tmp_path / "other")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    last = max(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    tokenizer["model"]["vocab"][last] += 30
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BadInput, match="it must have no gaps"):
        _init(folder)
    tokenizer["added_tokens"] = [
        {**tokenizer["added_tokens"][0], "id": 300 + n, "content": f"<|more{n}|>"} for n in range(200)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BadInput, match="they are of two models"):
        _init(folder)
