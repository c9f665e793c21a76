"""A checkpoint with the layers of a real shape and the demo's tokenizers, and a recipe to train it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors.torch import save_file

from benchmarks.speed.decode import random_weights, shape_config

DEMO = Path(__file__).parents[1] / "sar_eval" / "demo"
CODES = 2560  # of the demo's visual tokenizer, whose token is 8 x 8 pixels
RECIPE = """\
name = "wide"
[prompts]
suite = "shapes-train.jsonl"
[protocol]
resolution = {resolution}
guidance = 6.0
[grpo]
steps = 3
prompts = 8
group = 4
micro = 8
warmup = 0
beta = 0.04
precision = "{dtype}"
gradient_checkpointing = {checkpointing}
[rewards.colourfulness]
[engine]
dtype = "{dtype}"
batch_size = 32
"""


def write_checkpoint(folder: Path, shape: str) -> Path:
    """Random weights of a shape of `benchmarks/speed/decode.py` over the demo's vocabulary."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / "sft" / name, folder)
    vocabulary = json.loads((DEMO / "sft" / "config.json").read_text())["vocab_size"]
    config = shape_config(shape) | {"vocab_size": vocabulary, "architectures": ["SimpARForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    about = {"visual_tokenizer": str(DEMO / "tokenizer"), "resolution": 64}
    (folder / "sar_eval.json").write_text(json.dumps(about))
    save_file(random_weights(config), folder / "model.safetensors")
    return folder


def write_recipe(path: Path, resolution: int, dtype: str, *, checkpointing: bool) -> Path:
    """A recipe whose reward needs no weights and takes pictures of any size."""
    words = {"resolution": resolution, "dtype": dtype, "checkpointing": str(checkpointing).lower()}
    path.write_text(RECIPE.format(**words))
    return path
