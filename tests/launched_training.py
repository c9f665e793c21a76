"""Tiny trainings, alone or as ranks of a launcher: what the tests of several processes and of faults train."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sar_eval.families.fsq import FsqAutoencoder
from sar_eval.storage.shards import TOKEN_SCHEMA, write_shards
from sar_eval.train.fit import TrainingJob
from sar_eval.train.start import ShapeStart
from sar_eval.train.token_stream import WeightedPlace
from sar_eval.train.tokenizer import TokenizerOptions, export
from sar_eval.train.training_options import TrainingOptions

CODES = 64
SHAPE = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
}
SMALL: Mapping[str, Any] = {
    "steps": 6,
    "batch_size": 8,
    "micro": 2,
    "learning_rate": 1e-2,
    "warmup": 2,
    "save_every": 2,
    "log_every": 1,
    "precision": "float32",
    "window": 16,
}


def make_data(root: Path, rows: int = 40) -> None:
    """A visual tokenizer, a shape and captioned shards of 4 x 4 tokens, in `root`."""
    torch.manual_seed(0)
    (root / "tokenizer").mkdir(parents=True)
    options = TokenizerOptions(levels=(4, 4, 4), width=16)
    export(FsqAutoencoder([4, 4, 4], 16).eval(), root / "tokenizer", options)
    (root / "shape.json").write_text(json.dumps(SHAPE))
    codes = np.random.default_rng(0).integers(0, CODES, (rows, 16))
    words = ("a red ring", "two blue squares")
    data = [{"tokens": row.tolist(), "caption": words[n % 2]} for n, row in enumerate(codes)]
    write_shards(data, root / "tokens", TOKEN_SCHEMA, rows_per_shard=16)


def job(root: Path, out: Path, *, tie: bool = True, **changed: Any) -> TrainingJob:
    """A training on `make_data`'s files; `changed` are options."""
    return TrainingJob(
        start=ShapeStart(shape=str(root / "shape.json"), codebook_size=CODES, tie=tie),
        data=[WeightedPlace(root / "tokens")],
        visual_tokenizer=root / "tokenizer",
        out=out,
        options=TrainingOptions(**{**SMALL, **changed}),
    )
