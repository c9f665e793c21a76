"""The training entrypoints, small: from scenes to a checkpoint that the engine loads."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from sar_eval.train.decoder import DecoderOptions, TokenDataset, check_tokens, collate
from sar_eval.train.pretrain import pretrain
from sar_eval.train.sft import sft

from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput
from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.families.fsq import FsqAutoencoder
from sar_eval.families.simplear import find_checkpoint
from sar_eval.storage.shards import TOKEN_SCHEMA, read_shards, write_shards
from sar_eval.storage.token_shards import TokenShards
from sar_eval.train import decoder
from sar_eval.train.scenes import make_scenes
from sar_eval.train.tokenizer import TokenizerOptions, export, train_tokenizer
from sar_eval.types import DrawProtocol, Prompt, make_draw
from tests.token_folders import tokenize

ROOT = Path(__file__).parents[2]
TOKENIZER = TokenizerOptions(levels=(4, 4, 4), width=16, steps=2, batch_size=8)
SMALL = DecoderOptions(steps=4, batch_size=2, warmup=2, save_every=2)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("train")
    make_scenes(root / "scenes", 60, style="noisy", seed=1)
    train_tokenizer([root / "scenes"], root / "tokenizer", TOKENIZER)
    assert tokenize([root / "scenes"], root / "tokenizer", root / "tokens", batch_size=32).rows == 60
    return root


class Stop(Exception):
    """Interrupts a training run."""


class TrainingRun(NamedTuple):
    """The steps of a training run and its final float32 weights."""

    steps: list[int]
    weights: dict[str, torch.Tensor]


def _recorded_pretrain(work: Path, out: Path, stop: int = 0) -> TrainingRun:
    """Pretrain with SMALL on one thread, interrupted after step `stop` before it saves."""
    recorded = TrainingRun([], {})

    class RecordingCallback(decoder.LossCurveCallback):
        def on_step_end(self, args, state, control, **kwargs):
            recorded.steps.append(state.global_step)
            if state.global_step == stop:
                raise Stop

        def on_train_end(self, args, state, control, model, **kwargs):
            recorded.weights.update({name: value.clone() for name, value in model.state_dict().items()})

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch, suppress(Stop):
            patch.setattr(decoder, "LossCurveCallback", RecordingCallback)
            pretrain([work / "tokens"], work / "tokenizer", out, SMALL)
    finally:
        torch.set_num_threads(threads)
    return recorded


@pytest.fixture(scope="module")
def uninterrupted(work: Path) -> TrainingRun:
    """The training run of the checkpoint in `work / "pretrain"`."""
    return _recorded_pretrain(work, work / "pretrain")


def _curve(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]


def _write_curve(folder: Path, steps: list[int]) -> None:
    """Write a curve as if every step were logged, unlike in a real training run."""
    lines = [json.dumps({"step": step, "loss": 1.0}) for step in steps]
    (folder / "loss.jsonl").write_text("".join(f"{line}\n" for line in lines))


def test_token_shards_have_the_encoders_codes(work: Path) -> None:
    shards = TokenShards([work / "tokens"])
    assert (shards.sizes, shards.rows.tolist(), shards.codebook_size) == ({(8, 8)}, [60], 64)
    assert shards.read(0).flat.max() < 64


@pytest.mark.slow
def test_pretraining_then_sft_gives_a_checkpoint_that_draws(work: Path, uninterrupted: TrainingRun) -> None:
    options = replace(SMALL, seed=1)  # random weights would be far from the checkpoint's
    sft(work / "pretrain", [work / "tokens"], work / "tokenizer", work / "sft", options)
    checkpoint = find_checkpoint(str(work / "sft"))
    assert checkpoint.native_resolution == 64
    assert checkpoint.config["architectures"] == ["SimpARForCausalLM"]
    with NativeEngine(str(work / "sft"), DrawProtocol("test", 64, guidance=2.0)) as engine:
        [generation] = engine.generate([make_draw(Prompt("a", "a ring"), 0, 0)])
    assert len(generation.tokens) == 64
    before, after = (load_file(work / name / "model.safetensors") for name in ("pretrain", "sft"))
    for name in ("model.embed_tokens.weight", "model.layers.5.mlp.down_proj.weight"):
        moved = (after[name].float() - before[name].float()).abs().max()
        assert 0 < moved < 0.01, f"{name}: fine-tuned from the checkpoint, and only a little"


def test_a_finished_checkpoint_is_not_overwritten(work: Path, uninterrupted: TrainingRun) -> None:
    done = work / "pretrain"
    files = {path.name: path.read_bytes() for path in done.iterdir()}
    with pytest.raises(BadInput, match="is already a finished checkpoint: use another --out"):
        pretrain([work / "tokens"], work / "tokenizer", done, SMALL)
    with pytest.raises(BadInput, match="is already a finished checkpoint: use another --out"):
        sft(done, [work / "tokens"], work / "tokenizer", done, SMALL)
    assert {path.name: path.read_bytes() for path in done.iterdir()} == files


def test_resumed_tokenizer_training_equals_an_uninterrupted_one(work: Path) -> None:
    options = TokenizerOptions(levels=(4, 4, 4), width=16, steps=4, batch_size=2, save_every=2)

    def stop_at_three(step: int, loss: float) -> None:
        if step == 3:
            raise Stop

    train_tokenizer([work / "scenes"], work / "whole", options)
    with pytest.raises(Stop):
        train_tokenizer([work / "scenes"], work / "again", options, stop_at_three)
    _write_curve(work / "again", [1, 2, 3])
    steps: list[int] = []
    train_tokenizer([work / "scenes"], work / "again", options, lambda step, loss: steps.append(step))
    assert steps == [3, 4]
    whole, resumed = (torch.load(work / n / "state.pt", weights_only=True) for n in ("whole", "again"))
    for name, tensor in whole["model"].items():
        torch.testing.assert_close(resumed["model"][name], tensor, rtol=0, atol=0)
    assert [line["step"] for line in _curve(work / "again")] == [1, 2]


def test_a_finished_tokenizer_is_not_exported_again(work: Path) -> None:
    before = VisualTokenizer(work / "tokenizer").encoder_digest
    train_tokenizer([work / "scenes"], work / "tokenizer", TOKENIZER)
    assert VisualTokenizer(work / "tokenizer").encoder_digest == before
    check_tokens([work / "tokens"], work / "tokenizer")


def test_resumed_decoder_training_equals_an_uninterrupted_one(
    work: Path, uninterrupted: TrainingRun
) -> None:
    assert uninterrupted.steps == [1, 2, 3, 4]
    stopped = work / "stopped"
    assert _recorded_pretrain(work, stopped, stop=3).steps == [1, 2, 3]
    assert [path.name for path in (stopped / "state").glob("checkpoint-*")] == ["checkpoint-2"]
    _write_curve(stopped, [1, 2, 3])
    with pytest.raises(BadInput, match="other options"):
        pretrain([work / "tokens"], work / "tokenizer", stopped, replace(SMALL, learning_rate=1e-3))

    resumed = _recorded_pretrain(work, stopped)
    assert resumed.steps == [3, 4], "continues after the saved step"
    assert resumed.weights.keys() == uninterrupted.weights.keys()
    for name, tensor in uninterrupted.weights.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(resumed.weights[name], tensor, rtol=0, atol=0)
    assert [line["step"] for line in _curve(stopped)] == [1, 2], "lines of the lost steps are dropped"
    assert not (stopped / "state").exists()


def test_a_state_without_stored_options_is_resumed(work: Path, tmp_path: Path) -> None:
    (tmp_path / "state" / "checkpoint-2").mkdir(parents=True)
    assert decoder._can_resume(tmp_path, SMALL)
    assert not decoder._can_resume(tmp_path / "new", SMALL)


@pytest.mark.slow
def test_decoder_training_writes_its_loss_curve(work: Path) -> None:
    calls = []
    options = DecoderOptions(steps=41, batch_size=1, warmup=2, stop_at=40)
    pretrain(
        [work / "tokens"], work / "tokenizer", work / "curve", options, lambda *call: calls.append(call)
    )
    curve = _curve(work / "curve")
    assert calls == [(step, 40, line["loss"]) for step, line in zip((20, 40), curve, strict=True)]
    assert [line["step"] for line in curve] == [20, 40]
    assert curve[1]["lr"] < curve[0]["lr"], "the schedule goes down"


@pytest.mark.slow
def test_two_processes_train_together(work: Path) -> None:
    arguments = [
        "--data",
        "tokens",
        "--tokenizer",
        "tokenizer",
        "--out",
        "pair",
        "--steps",
        "4",
        "--batch-size",
        "4",
    ]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "sar_eval"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*launch, "train", "pretrain", *arguments]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    find_checkpoint(str(work / "pair"))


def test_labels_are_on_visual_tokens_only(work: Path) -> None:
    from sar_eval.families.demo import build_text_tokenizer
    from sar_eval.suites.shapes.vocabulary import all_words

    tokenizer = build_text_tokenizer(all_words())
    dataset = TokenDataset([work / "tokens"], tokenizer, DecoderOptions(steps=1, caption_dropout=0.5))
    lengths = {len(dataset[i]["input_ids"]) for i in range(60)}
    assert min(lengths) == 66, "a dropped caption leaves <|t2i|> <|soi|> and the image"
    batch = collate([dataset[i] for i in range(8)])
    kept = batch["labels"] != -100
    assert (kept.sum(1) == 64).all()
    assert (batch["input_ids"][kept] >= len(tokenizer)).all()
    assert (batch["labels"][kept] == batch["input_ids"][kept]).all()


def test_unusable_training_data_is_refused(work: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no shard-"):
        pretrain([tmp_path], work / "tokenizer", tmp_path / "out", SMALL)
    with pytest.raises(BadInput, match="already has shards"):
        make_scenes(work / "scenes", 1, style="clean", seed=0)
    with pytest.raises(BadInput, match="other options"):
        train_tokenizer(
            [work / "scenes"], work / "tokenizer", TokenizerOptions(levels=(4, 4, 4), width=16, steps=9)
        )
    with pytest.raises(BadInput, match="has no column"):
        pretrain([work / "scenes"], work / "tokenizer", tmp_path / "out", SMALL)


def test_tokens_of_another_encoder_are_refused(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "tokenizer", tmp_path / "same")
    check_tokens([work / "tokens"], tmp_path / "same")
    (tmp_path / "other").mkdir()
    export(FsqAutoencoder([4, 4, 4], 16).eval(), tmp_path / "other", TOKENIZER)
    with pytest.raises(BadInput, match="made with encoder"):
        pretrain([work / "tokens"], tmp_path / "other", tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


def test_a_visual_tokenizer_without_config_is_a_cosmos_one(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "tokenizer", tmp_path / "cosmos", ignore=shutil.ignore_patterns("*.json"))
    with pytest.raises(BadInput, match=r"use 64 codes, .* has 64000"):
        check_tokens([work / "tokens"], tmp_path / "cosmos")
    rows = [{"tokens": [63_999, 0, 7, 8], "caption": "a ring"}]
    write_shards(rows, tmp_path / "tokens", TOKEN_SCHEMA)
    pretrain([tmp_path / "tokens"], tmp_path / "cosmos", tmp_path / "out", replace(SMALL, steps=1))
    checkpoint = find_checkpoint(str(tmp_path / "out"))
    assert (checkpoint.codebook_size, checkpoint.native_resolution) == (64_000, 32)
    with pytest.raises(BadInput, match=r"no encoder\.jit"):
        pretrain([tmp_path / "tokens"], tmp_path, tmp_path / "none", SMALL)


def _rows(end: int, stop: int = -1) -> Iterator[dict[str, Any]]:
    for number in range(end):
        if number == stop:
            raise KeyboardInterrupt
        yield {"tokens": [number], "caption": "a ring"}


def test_interrupted_shards_are_written_again(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "shards"
    with pytest.raises(KeyboardInterrupt):
        write_shards(_rows(9, stop=8), out, TOKEN_SCHEMA, rows_per_shard=2)
    assert not out.exists(), "an interrupted write leaves no incomplete folder"
    assert write_shards(_rows(5), out, TOKEN_SCHEMA, rows_per_shard=2) == 5
    assert [path.name for path in out.parent.iterdir()] == ["shards"]
    tokens = [row for table in read_shards([out], TOKEN_SCHEMA) for row in table["tokens"].to_pylist()]
    assert tokens == [[0], [1], [2], [3], [4]], "nothing is left of the first try"


def test_shards_go_to_empty_folders_only(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    assert write_shards(_rows(1), tmp_path / "link", TOKEN_SCHEMA) == 1
    assert (tmp_path / "empty" / "shard-00000.parquet").is_file()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for name in ("empty", "full"):
        with pytest.raises(BadInput, match="already has"):
            write_shards(_rows(1), tmp_path / name, TOKEN_SCHEMA)
    assert not list(tmp_path.glob("*.part"))
