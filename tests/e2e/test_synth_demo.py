"""From scenes to a set of the demo checkpoint's pictures, opened by what trainers use, and trained on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.make_scene_prompts import write_scenes
from tests.synth_sets import contents

ROOT = Path(__file__).parents[2]
SCENES, BEST_OF = 12, 2
# In a process of its own: both leave files open.
OPEN = """
import glob, io, json, sys
import numpy as np
import webdataset
from PIL import Image
from datasets import load_dataset
rows = load_dataset(sys.argv[1], split="train")
paths = sorted(glob.glob(sys.argv[2] + "/data/*.tar"))
samples = webdataset.WebDataset(paths, shardshuffle=False, empty_check=False)
print(json.dumps([
    [[r["caption"], list(r["image"].size), r["tokens"]] for r in rows],
    [[s["txt"].decode(), list(Image.open(io.BytesIO(s["png"])).size),
      np.load(io.BytesIO(s["tokens.npy"])).tolist()] for s in samples],
]))
"""


def _run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(cwd / "hub"),
    }
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def _synth(folder: Path, layout: str) -> Path:
    words = ("-m", "sar_eval", "synth", "scenes.parquet", "--ckpt", "demo:sft", "--best-of", str(BEST_OF))
    drawing = ("--guidance", "2", "--temperature", "0.5", "--block-prompts", "6", "--workers", "1")
    kept = ("--filter", "shapes.passed", "--rank", "shapes_soft", "--keep", "both", "--layout", layout)
    done = _run(*words, *drawing, *kept, "--devices", "cpu", "--out", layout, "--explain", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "best of its prompt" in done.stdout
    return folder / layout


@pytest.mark.slow
def test_from_scenes_to_training(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    write_scenes(SCENES, tmp_path / "scenes.parquet")
    parquet, tars = _synth(tmp_path, "parquet"), _synth(tmp_path, "webdataset")
    opened = _run("-c", OPEN, parquet, tars, cwd=tmp_path)
    assert opened.returncode == 0, opened.stderr
    rows, samples = json.loads(opened.stdout)
    assert 6 <= len(rows) <= SCENES
    assert all(size == [64, 64] and len(tokens) == 64 for _, size, tokens in rows)
    assert samples == rows
    tokenizer = ROOT / "sar_eval" / "demo" / "tokenizer"
    training = ("--tokenizer", tokenizer, "--steps", "1", "--warmup", "0", "--batch-size", "4")
    trained = _run(
        *("-m", "sar_eval", "train", "sft", "--ckpt", "demo:sft", "--data", "parquet", "--out", "better"),
        *training,
        cwd=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "better" / "model.safetensors").is_file()
    assert {name for name in contents(parquet) if name.startswith("done/")} == {
        f"done/000000/{block:09d}-0.json" for block in range(2)
    }
