"""A tiny SimpleAR of random weights in a folder, with its visual tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen2ForCausalLM

from sar_eval.families.demo import build_config, build_text_tokenizer
from sar_eval.families.fsq import FsqAutoencoder
from sar_eval.suites.shapes.vocabulary import all_words
from sar_eval.train.checkpoint_writer import save_checkpoint
from sar_eval.train.tokenizer import TokenizerOptions, export


def write_simplear(root: Path) -> Path:
    """The checkpoint's folder; `root` also gets the visual tokenizer's."""
    torch.manual_seed(0)
    options = TokenizerOptions(levels=(4, 4, 4), width=16)
    (root / "tokenizer").mkdir()
    export(FsqAutoencoder([4, 4, 4], 16).eval(), root / "tokenizer", options)
    tokenizer = build_text_tokenizer(all_words())
    model = Qwen2ForCausalLM(build_config(len(tokenizer), 64))
    (root / "decoder").mkdir()
    save_checkpoint(model, tokenizer, root / "tokenizer", {(4, 4)}, root / "decoder")
    return root / "decoder"
