"""`torchrun -m sar_eval train`: one message and one checkpoint of all ranks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launched_training import make_data

pytestmark = pytest.mark.slow


def _torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return subprocess.run(
        [*command, "-m", "sar_eval", "train", "pretrain", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=280,
        env=environment,
        check=False,
    )


def test_of_two_ranks_one_speaks(tmp_path: Path) -> None:
    make_data(tmp_path / "data")
    words = ["--tokenizer", tmp_path / "data" / "tokenizer", "--out", tmp_path / "out", "--steps", 2]
    words += ["--batch-size", 4]
    wrong = _torchrun(*words, "--data", tmp_path / "nowhere")
    assert wrong.returncode != 0
    assert wrong.stderr.count("error: ") == 1, wrong.stderr
    assert "nowhere" in wrong.stderr
    done = _torchrun(*words, "--data", tmp_path / "data" / "tokens")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoint in") == 1
    for words in ("of weights, gradients, optimiser", "the warm-up of", "pretrain: 2/2"):
        assert done.stderr.count(words) == 1, done.stderr
    assert (tmp_path / "out" / "sar_eval.json").exists()
