"""Fixtures shared by all tests."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sar_eval.spec import RunSpec
from sar_eval.types import DrawProtocol

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def parity() -> Path:
    """Reference data made with the official code; it is not part of the project."""
    path = Path(os.environ.get("SAR_EVAL_PARITY", ROOT.parent / "shared" / "parity"))
    if not path.is_dir():
        pytest.skip(f"no parity data in {path} (set SAR_EVAL_PARITY)")
    return path


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Twelve prompts of the shapes suite, two of each task."""
    lines = (ROOT / "prompts" / "shapes.jsonl").read_text().splitlines()
    path = tmp_path / "small.jsonl"
    path.write_text("\n".join(line for line in lines if json.loads(line)["id"].endswith(("-000", "-001"))))
    return path


@pytest.fixture
def spec(suite: Path) -> RunSpec:
    """A spec over the small suite that needs no checkpoint until something is drawn."""
    return RunSpec(
        benchmark="shapes",
        fold="shapes",
        suite=str(suite),
        suite_digest="0" * 16,
        checkpoint="demo:sft",
        checkpoint_digest="0" * 16,
        protocol=DrawProtocol("shapes", 64, guidance=3.0),
        judge="shapes",
        judge_options={"threshold": 0.6, "counting_threshold": 0.6},
        images_per_prompt=2,
        batch_size=8,
    )


@pytest.fixture
def sar_eval() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a process of its own."""

    def run(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sar_eval", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, **options)

    return run


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of the real shape with random weights, small enough to decode at once."""
    import torch
    from transformers import Qwen2ForCausalLM

    from sar_eval.models.demo import build_config, build_text_tokenizer
    from sar_eval.models.fsq import FsqAutoencoder
    from sar_eval.shapes.vocabulary import words
    from sar_eval.train.decoder import save
    from sar_eval.train.tokenizer import TokenizerOptions, export

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("checkpoint")
    options = TokenizerOptions(levels=(4, 4, 4), width=16)
    (root / "tokenizer").mkdir()
    export(FsqAutoencoder([4, 4, 4], 16).eval(), root / "tokenizer", options)
    tokenizer = build_text_tokenizer(words())
    model = Qwen2ForCausalLM(build_config(len(tokenizer), 64))
    (root / "decoder").mkdir()
    save(model, tokenizer, root / "tokenizer", 4, root / "decoder")
    return root / "decoder"
