"""Train a decoder with the demo's architecture from random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import Qwen2ForCausalLM

from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.families.demo import build_config, build_text_tokenizer
from sar_eval.storage.shards import Place
from sar_eval.suites.shapes.vocabulary import all_words
from sar_eval.train.decoder import DecoderOptions, TrainingProgress, attention_implementation, fit


def pretrain(
    data: Sequence[Place],
    visual_tokenizer: Path,
    out: Path,
    options: DecoderOptions,
    progress: TrainingProgress = lambda step, steps, loss: None,
) -> None:
    """Train a new decoder on token shards and write a checkpoint folder (see `decoder.fit`)."""
    torch.manual_seed(options.seed)
    tokenizer = build_text_tokenizer(all_words())
    config = build_config(len(tokenizer), VisualTokenizer(visual_tokenizer).codebook_size)
    config._attn_implementation = attention_implementation()
    model = Qwen2ForCausalLM(config)
    fit(model, tokenizer, data, visual_tokenizer, out, options, progress)
