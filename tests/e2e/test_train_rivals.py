"""The rivals of a policy gradient from prompts to checkpoints, by the command line, on the demo."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sar_eval.families.locate import DEMO
from sar_eval.families.simplear import find_checkpoint
from sar_eval.storage.shards import SELECTED_SCHEMA, read_shards

Command = Callable[..., tuple[int, str]]


def _done(found: tuple[int, str]) -> str:
    code, text = found
    assert code == 0, text
    return text


@pytest.fixture
def drawn(tmp_path: Path, sar_eval_here: Command) -> Path:
    """Training prompts of the demo's world, four pictures each, judged."""
    prompts, run = tmp_path / "train.jsonl", tmp_path / "draws"
    _done(sar_eval_here("prompts", "make", "shapes-train", "--per-task", 30, "--out", prompts))
    lines = [line for line in prompts.read_text().splitlines() if json.loads(line)["tag"] == "colors"][:8]
    prompts.write_text("".join(f"{line}\n" for line in lines))
    words = ["--ckpt", "demo:pretrain", "-n", 4, "--guidance", 2, "--workers", 1, "-q", "--no-report"]
    _done(sar_eval_here("generate", prompts, *words, "--out", run))
    _done(sar_eval_here("judge", run, "--judge", "shapes", "--workers", 1, "-q", "--no-report"))
    return run


@pytest.mark.slow
def test_from_prompts_to_checkpoints(drawn: Path, tmp_path: Path, sar_eval_here: Command) -> None:
    """Best-of-N and sft (RAFT), and dpo, from the same judged pictures."""
    best, raft, dpo = tmp_path / "best", tmp_path / "raft", tmp_path / "dpo"
    text = _done(sar_eval_here("train", "select", drawn, "--out", best, "--top", 2, "--min-score", 1))
    [rows] = read_shards([best], SELECTED_SCHEMA)
    assert set(rows["score"].to_pylist()) == {1.0}
    assert f"{len(rows)} rows of tokens in {best}; next: sar-eval train sft --ckpt demo:pretrain" in text
    assert "pictures                   32" in text

    visual = DEMO / "tokenizer"
    words = ["--steps", 2, "--warmup", 0, "--batch-size", 4]
    data = ["--data", best, "--tokenizer", visual]
    _done(sar_eval_here("train", "sft", "--ckpt", "demo:pretrain", *data, "--out", raft, *words))

    words = ["--steps", 3, "--warmup", 0, "--batch-size", 4, "--learning-rate", 1e-4]
    text = _done(sar_eval_here("train", "dpo", drawn, "--ckpt", "demo:pretrain", "--out", dpo, *words))
    curve = [json.loads(line) for line in (dpo / "loss.jsonl").read_text().splitlines()]
    assert curve[0]["margin"] == 0
    assert curve[-1]["margin"] > 0.02
    assert f"checkpoint in {dpo}, trained on" in text

    start = load_file(DEMO / "pretrain" / "model.safetensors")
    for out in (raft, dpo):
        name = "model.layers.0.self_attn.q_proj.weight"
        assert not torch.equal(load_file(out / "model.safetensors")[name], start[name])
        assert find_checkpoint(str(out)).native_resolution == 64


def test_bad_words_are_told(tmp_path: Path, sar_eval_here: Command) -> None:
    out = ["--out", tmp_path / "out"]
    train = ["--ckpt", "demo:pretrain", "--steps", 1, *out]
    sft = ["--data", tmp_path, "--tokenizer", tmp_path, "--steps", 1, *out]
    for words, message in [
        (["select", tmp_path, *out], "is not a run folder"),
        (["select", *out], "Missing argument"),
        (["select", tmp_path, *out, "--top", 0], "--top is 0: it must lie between 1 and"),
        (["select", tmp_path, *out, "--min-score", "nan"], "--min-score is nan"),
        (["dpo", tmp_path, *train], "is not a run folder"),
        (["dpo", tmp_path, *train, "--beta", 0], "--beta is 0"),
        (["dpo", tmp_path, *train, "--loss", "kto"], "--loss is 'kto'"),
        (["dpo", tmp_path, "--ckpt", "demo:none", "--steps", 1, *out], "demo:none"),
        (["sft", "--ckpt", "demo:none", *sft], "demo:none"),
        (["sft", "--ckpt", tmp_path, *sft], "no config.json"),
    ]:
        code, text = sar_eval_here("train", *words)
        assert (code, message in " ".join(text.split())) == (2, True), text
    assert not (tmp_path / "out").exists()
