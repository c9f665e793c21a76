"""Train a decoder of the demo's shape from random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import Qwen2ForCausalLM

from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.families.demo import build_config, build_text_tokenizer
from sar_eval.suites.shapes.vocabulary import words
from sar_eval.train.decoder import DecoderOptions, Progress, attention, fit


def pretrain(
    data: Sequence[Path],
    visual_tokenizer: Path,
    out: Path,
    options: DecoderOptions,
    progress: Progress = lambda step, steps, loss: None,
) -> None:
    """Fit a new decoder on token shards and write a checkpoint folder (see `decoder.fit`)."""
    torch.manual_seed(options.seed)
    tokenizer = build_text_tokenizer(words())
    config = build_config(len(tokenizer), VisualTokenizer(visual_tokenizer).codebook_size)
    config._attn_implementation = attention()
    model = Qwen2ForCausalLM(config)
    fit(model, tokenizer, data, visual_tokenizer, out, options, progress)
