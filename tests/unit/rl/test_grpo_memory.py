"""The memory table of `benchmarks/speed/grpo_memory.py`: against figures by hand and torch itself.

The hand figures are of SimpleAR-0.5B: 24 layers of 896, an MLP of 4,864, 14 heads of 64, 2 of them keys',
215,672 tokens of which 64,000 are visual; 48 tokens of prompt a branch.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.speed import grpo_memory as memory
from benchmarks.speed.decode import CODEBOOK_SIZE, shape_config
from benchmarks.speed.grpo_memory import BFLOAT16, FLOAT32, GB, Setup
from sar_eval.families.decoder_config import DecoderConfig

HALF = DecoderConfig.from_dict(shape_config("0.5B"))
SMALL, LARGE = Setup(512), Setup(1024)
PLAIN, KEPT = (
    {512: SMALL, 1024: LARGE},
    {512: Setup(512, checkpointing=True), 1024: Setup(1024, checkpointing=True)},
)


def test_parameters_are_those_of_the_network() -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.device("meta"):
        network = Qwen2ForCausalLM(Qwen2Config(**shape_config("0.5B")))
    parameters = sum(p.numel() for p in network.parameters())
    assert memory.layer_parameters(HALF) + memory.table_parameters(HALF) == parameters == 551_140_224
    assert memory.layer_parameters(HALF) == 357_898_112


def test_what_is_held_all_the_time() -> None:
    assert memory.trainer_bytes(HALF) / GB == pytest.approx(8.8, abs=0.05)
    assert memory.copy_bytes(HALF, BFLOAT16) / GB == pytest.approx(1.1, abs=0.05)
    untied = DecoderConfig.from_dict(shape_config("0.5B") | {"tie_word_embeddings": False})
    assert memory.trainer_bytes(untied) / GB == pytest.approx(11.9, abs=0.05)
    # By hand 18, with a reference in bfloat16; it is float32.
    assert memory.fixed_bytes(HALF, CODEBOOK_SIZE, BFLOAT16) / GB == pytest.approx(18 + 1.1, abs=0.5)


@pytest.mark.parametrize(
    ("pixels", "cache", "kept", "recomputed", "layer", "scores"),
    [(512, 3.4, 3.3, 0.18, 0.14, 0.26), (1024, 13.0, 12.9, 0.71, 0.54, 1.05)],
)
def test_what_grows_with_pictures(pixels, cache, kept, recomputed, layer, scores) -> None:
    assert memory.cache_bytes(HALF, PLAIN[pixels], 128) / GB == pytest.approx(cache, abs=0.05)
    # By hand 1.56 MB a token was estimated; torch keeps 1.59 MB.
    assert memory.kept_bytes(HALF, PLAIN[pixels]) / GB == pytest.approx(kept, rel=0.04)
    assert memory.kept_bytes(HALF, KEPT[pixels]) / GB == pytest.approx(recomputed, rel=0.04)
    assert memory.recomputed_bytes(HALF, KEPT[pixels]) / GB == pytest.approx(layer, rel=0.04)
    assert memory.recomputed_bytes(HALF, PLAIN[pixels]) == 0
    assert memory.scores_bytes(PLAIN[pixels], CODEBOOK_SIZE) / GB == pytest.approx(scores, abs=0.005)
    whole = Setup(pixels, chunked=False)
    loss = memory.picture_bytes(HALF, whole, CODEBOOK_SIZE) - memory.picture_bytes(
        HALF, PLAIN[pixels], CODEBOOK_SIZE
    )
    assert loss == 7 * memory.scores_bytes(whole, CODEBOOK_SIZE)


def test_a_chunk_is_half_a_gigabyte() -> None:
    """By hand 0.33 with five tensors of 256 places; there are two more, for the entropy."""
    assert memory.chunk_bytes() / GB == pytest.approx(0.33 * 7 / 5, abs=0.01)


def test_compute() -> None:
    """5.3 and 20.6 + 4.4 TFLOP with a head product a branch; guided hidden states need one product."""
    both = 2 * 6 * CODEBOOK_SIZE * HALF.hidden_size
    for setup, by_hand, attention in (
        (Setup(512, chunked=False), 5.3, 0.3),
        (Setup(1024, chunked=False), 20.6, 4.4),
    ):
        one_head_less = both / 2 * setup.tokens / 1e12
        prompts_through_the_head = both * memory.PROMPT_TOKENS / 1e12
        expected = by_hand + attention - one_head_less - prompts_through_the_head
        assert memory.training_flop(HALF, setup, CODEBOOK_SIZE) / 1e12 == pytest.approx(expected, abs=0.1)


def test_what_fits_on_80_gb() -> None:
    def micro(setup: Setup) -> int:
        return memory.largest_micro(HALF, setup, CODEBOOK_SIZE, 80 * GB, draws=128)

    assert 8 <= micro(Setup(512, chunked=False)) <= micro(SMALL) <= 15
    assert micro(KEPT[512]) >= 64
    assert micro(LARGE) in (2, 3)
    assert 24 <= micro(KEPT[1024]) <= 32
    assert memory.largest_micro(HALF, LARGE, CODEBOOK_SIZE, 40 * GB, draws=128) == 0


SIZES = {"hidden_size": 96, "intermediate_size": 224, "num_attention_heads": 6, "num_key_value_heads": 2}


def _saved_bytes(layers: int, tokens: int, precision: int, checkpointing: bool) -> int:
    """Of storages that a decoder's forward pass keeps for its backward pass, parameters left out."""
    from transformers import Qwen2Config, Qwen2Model

    network = Qwen2Model(
        Qwen2Config(**SIZES, num_hidden_layers=layers, vocab_size=32, attn_implementation="sdpa")
    )
    if checkpointing:
        network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, torch.Tensor] = {}  # by address, alive, so that no address comes twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    ids = torch.zeros((1, tokens), dtype=torch.int64)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == BFLOAT16),
    ):
        network(input_ids=ids, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for where, tensor in kept.items() if where not in weights)


@pytest.mark.parametrize("precision", [BFLOAT16, FLOAT32])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_what_torch_keeps(precision: int, checkpointing: bool) -> None:
    """Differences in layers and in tokens leave out what there is once: tables, rotary factors, casts."""
    saved = [[_saved_bytes(n, t, precision, checkpointing) for t in (40, 104)] for n in (2, 4)]
    measured = ((saved[1][1] - saved[1][0]) - (saved[0][1] - saved[0][0])) / 2 / 64
    config = DecoderConfig.from_dict(
        shape_config("tiny") | SIZES | {"num_hidden_layers": 1, "head_dim": 16, "vocab_size": 32}
    )
    setup = Setup(512, precision, checkpointing)
    counted = memory.kept_bytes(config, setup) / (2 * setup.length)
    assert measured == pytest.approx(counted, rel=0.02)


def test_the_report_has_the_tables_of_today() -> None:
    report = (Path(__file__).parents[3] / "reports" / "speed" / "grpo-memory.md").read_text()
    for name in ("0.5B", "1.5B"):
        config = DecoderConfig.from_dict(shape_config(name))
        assert memory.table(config, CODEBOOK_SIZE, 80 * GB, 128, [512, 1024]) in report
        assert memory.summary(config, CODEBOOK_SIZE) in report
    assert "By arithmetic, not measured" in report


def test_the_table_of_a_checkpoint(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "config.json").write_text(json.dumps(shape_config("tiny")))
    words = [
        "--config",
        str(tmp_path / "config.json"),
        "--codebook",
        "2560",
        "--pixels",
        "256",
        "--card",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", ["grpo_memory", *words])
    memory.main()
    printed = capsys.readouterr().out
    assert printed.count("| 256 |") == 8
    assert "By arithmetic, not measured: one card of 1 GB" in printed
    assert "none" in printed
