"""What a training costs by arithmetic: against torch's own counter, figures by hand, and a training."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config

from benchmarks.speed import train as benchmark
from benchmarks.speed.decode import CODEBOOK_SIZE, shape_config
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.train import cost_callback
from sar_eval.train.batches import packed, padded
from sar_eval.train.cost_callback import CostCallback
from sar_eval.train.model import TrainedDecoder, prepare
from sar_eval.train.throughput import GB, TrainingCost, data_sheet_flops, forward_flops, picture_lengths
from sar_eval.train.trainer import DecoderTrainer, LossCurveCallback, compile_layers, training_arguments
from sar_eval.train.training_options import TrainingOptions
from sar_eval.train.training_states import TrainingStates

HALF = DecoderConfig.from_dict(shape_config("0.5B"))
COST = TrainingCost(config=HALF, rows=CODEBOOK_SIZE, lengths=[(1072, 1024)], micro=8)
TEXT, CODES = 40, 64


def tiny() -> Any:
    torch.manual_seed(0)
    config = Qwen2Config(
        **shape_config("tiny")
        | {
            "hidden_size": 64,
            "intermediate_size": 160,
            "num_attention_heads": 4,
            "vocab_size": TEXT + CODES,
        }
    )
    decoder: Any = TrainedDecoder
    return prepare(decoder(config), TEXT, "visual")


def sequences(*sizes: tuple[int, int]) -> list[tuple[list[int], Any]]:
    """Of so many text ids and codes."""
    return [([1] * text, TEXT + np.arange(codes, dtype=np.int64) % CODES) for text, codes in sizes]


def test_flops_are_those_that_torch_counts() -> None:
    model, batch = tiny(), padded(sequences((8, 56), (8, 56)))
    model.set_attn_implementation("eager")  # whose products torch counts on every device
    with FlopCounterMode(display=False) as counter:
        model(batch["input_ids"], batch["labels"]).backward()
    config = DecoderConfig.from_dict(model.config.to_dict() | {"architectures": ["SimpARForCausalLM"]})
    # torch counts the whole square of attention, and neither biases nor norms.
    square = 2 * 64**2 * 64 * config.num_hidden_layers
    counted = 2 * 3 * (forward_flops(config, 64, 56, CODES) + square)
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.02)


def test_bytes_of_the_half_billion_shape() -> None:
    assert COST.parameters == 551_140_224
    assert COST.state_bytes == 551_140_224 * 16
    with_average = TrainingCost(config=HALF, rows=1, lengths=[(2, 1)], micro=1, ema=True, shards=4)
    assert with_average.state_bytes == 551_140_224 * 20 // 4
    adapters = TrainingCost(config=HALF, rows=1, lengths=[(2, 1)], micro=1, trained=1000)
    assert adapters.state_bytes == 551_140_224 * 4 + 12_000
    # 8 x 1,072 tokens x 24 layers x 66.4 KB, as tests of the GRPO table hold against torch.
    assert COST.activation_bytes / GB == pytest.approx(8 * 1072 * 24 * 66_360 / GB + 0.7, rel=0.02)


def test_a_loss_in_chunks_does_not_grow_with_pictures() -> None:
    def loss(micro: int, *, chunked: bool) -> int:
        rows = CODEBOOK_SIZE if chunked else HALF.vocab_size
        return TrainingCost(
            config=HALF, rows=rows, lengths=[(1072, 1024)], micro=micro, chunked=chunked
        ).loss_bytes

    assert loss(64, chunked=True) == loss(8, chunked=True) < loss(8, chunked=False) / 20
    assert loss(64, chunked=False) == 8 * loss(8, chunked=False)


def test_words_before_the_first_step() -> None:
    words = COST.summary()
    assert words.startswith("551.1 M parameters: 8.8 GB of weights, gradients, optimiser")
    assert words.endswith("2.74 GFLOP a visual token")


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756.5e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA A10G", None),
        ("Tesla T4", None),
    ],
)
def test_peaks_by_the_names_that_drivers_give(name: str, peak: float | None) -> None:
    assert data_sheet_flops(name) == peak


def test_lengths_of_padded_and_packed_pictures_are_the_same() -> None:
    rows = sequences((3, 9), (7, 4), (5, 16))
    assert picture_lengths(padded(rows)) == picture_lengths(packed(rows)) == [(12, 9), (11, 4), (21, 16)]


class Batches(IterableDataset[dict[str, Any]]):
    first_step = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for _ in range(2):
            yield {**padded(sequences((4, 16), (6, 16))), "total": 32, "keys": ["a", "b"], "truncated": 0}


def train(folder: Path, told: list[str], **options: Any) -> list[dict[str, float]]:
    """Two steps; the points of the curve."""
    folder.mkdir()
    settings = TrainingOptions(
        steps=2, learning_rate=1e-3, batch_size=2, log_every=1, warmup=0, precision="float32", **options
    )
    cost = CostCallback(settings, told.append)
    curve = LossCurveCallback(folder / "loss.jsonl", lambda *_: None, utilisation=cost.utilisation)
    args = training_arguments(folder / "state", settings, 1)
    args.save_strategy = "no"
    batches: Any = Batches()
    states = TrainingStates(folder / "state")
    DecoderTrainer(batches, settings, states, model=tiny(), args=args, callbacks=[cost, curve]).train()
    return [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]


def test_checkpointing_changes_no_loss_and_cost_and_utilisation_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost_callback, "peak_flops", lambda device, precision: 1e9)
    told: list[str] = []
    kept = train(tmp_path / "kept", told)
    again = train(tmp_path / "again", told, gradient_checkpointing=True)
    assert [point["loss"] for point in kept] == pytest.approx([p["loss"] for p in again], rel=1e-5)
    assert len(told) == 2
    assert "MFLOP a visual token" in told[0]
    config = DecoderConfig.from_dict(tiny().config.to_dict() | {"architectures": ["SimpARForCausalLM"]})
    flops = 3 * (forward_flops(config, 20, 16, CODES) + forward_flops(config, 22, 16, CODES)) / 32
    for point in kept:
        assert point["mfu"] == pytest.approx(flops * point["tokens_per_s"] / 1e9, rel=0.02, abs=1e-4)


@pytest.mark.slow
def test_compiled_layers_keep_the_names_of_their_parameters() -> None:
    model = tiny()
    names = list(model.state_dict())
    compile_layers(model)
    assert list(model.state_dict()) == names
    assert all(layer._compiled_call_impl is not None for layer in model.model.layers)


@pytest.mark.slow
def test_the_speed_benchmark_measures_both_ways(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    small = shape_config("tiny") | {"vocab_size": TEXT + CODES}
    monkeypatch.setattr(benchmark, "TEXT_VOCAB_SIZE", TEXT)
    monkeypatch.setattr(benchmark, "CODEBOOK_SIZE", CODES)
    monkeypatch.setattr(benchmark, "shape_config", lambda name: small)
    words = ["--shape", "tiny", "--side", "2", "--steps", "1", "--layers", "1", "--loss-tokens", "8"]
    for variant in ("plain", "ours"):
        for kind, names in (("steps", {"seconds", "peak"}), ("loss", {"seconds", "memory"})):
            monkeypatch.setattr(sys, "argv", ["train", *words, "--variant", variant, "--kind", kind])
            benchmark.main()
            found = json.loads(capsys.readouterr().out.splitlines()[-1])
            assert set(found) == names
            assert found["seconds"] > 0
