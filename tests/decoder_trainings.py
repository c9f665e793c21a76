"""Small trainings of decoders for tests: random codes, a checkpoint of a few kilobytes, a rigged judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sar_eval.families.simplear import find_checkpoint
from sar_eval.storage.shards import TOKEN_SCHEMA, write_shards
from sar_eval.train.evaluation_table import EvaluationTable
from sar_eval.train.fit import TrainingJob
from sar_eval.train.start import CheckpointStart
from sar_eval.train.token_stream import WeightedPlace
from sar_eval.train.training_options import TrainingOptions
from sar_eval.train.training_watch import Watching

SMALL = {"steps": 4, "batch_size": 2, "warmup": 1, "save_every": 2, "log_every": 1, "learning_rate": 1e-2}
JUDGE = f"{Path(__file__).parent / 'even_codes.py'}:JUDGE"
BENCHMARK = """
name = "tiny"
suite = "shapes.jsonl"
judge = "{judge}"
images_per_prompt = 1
[protocol]
resolution = 32
guidance = 2.0
"""


def write_tokens(folder: Path, rows: int = 12) -> Path:
    """Token shards of 4 x 4 codes below 64, of which most are even."""
    codes = 2 * np.random.default_rng(0).integers(0, 32, (rows, 16))
    table = [{"tokens": row.tolist(), "caption": f"a red ring {n}"} for n, row in enumerate(codes)]
    write_shards(table, folder, TOKEN_SCHEMA)
    return folder


def write_benchmark(folder: Path, judge: str = JUDGE) -> Path:
    """A benchmark of the shapes' prompts at 32 pixels under another judge."""
    path = folder / "tiny.toml"
    path.write_text(BENCHMARK.format(judge=judge))
    return path


def job(
    checkpoint: Path, tokens: Path, out: Path, table: dict[str, object] | None = None, **options: object
):
    """Training of `checkpoint` on `tokens`, with values of the table [evaluation] and of the options."""
    found = find_checkpoint(str(checkpoint))
    evaluation = EvaluationTable(**({"every": 2, "prompts": 12} | (table or {})))
    return TrainingJob(
        start=CheckpointStart(found),
        data=[WeightedPlace(tokens)],
        visual_tokenizer=found.visual_folder,
        out=out,
        options=TrainingOptions(**(SMALL | {"precision": "float32"} | options)),
        watching=Watching(evaluation=evaluation, settings={"training": {"steps": 4}}),
        training={"by": "test"},
    )
