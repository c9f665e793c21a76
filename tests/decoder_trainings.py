"""Tiny trainings that are evaluated: codes of which all are even, and a judge that likes even codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sar_eval.storage.shards import TOKEN_SCHEMA, write_shards
from sar_eval.train.evaluation_table import EvaluationTable
from sar_eval.train.fit import TrainingJob
from sar_eval.train.token_stream import WeightedPlace
from sar_eval.train.training_watch import Watching
from tests import launched_training

SHORT = {"steps": 4, "batch_size": 4, "warmup": 1}
JUDGE = f"{Path(__file__).parent / 'even_codes.py'}:JUDGE"
BENCHMARK = """
name = "tiny"
suite = "shapes.jsonl"
judge = "{judge}"
images_per_prompt = 1
[protocol]
resolution = 32
guidance = 2.0
[judge_options]
{options}
"""


def make_data(root: Path) -> None:
    """What `launched_training` trains on, shards of even codes, and a benchmark."""
    launched_training.make_data(root)
    codes = 2 * np.random.default_rng(0).integers(0, launched_training.CODES // 2, (24, 16))
    rows = [{"tokens": row.tolist(), "caption": "a red ring"} for row in codes]
    write_shards(rows, root / "even", TOKEN_SCHEMA)
    write_benchmark(root)


def write_benchmark(folder: Path, name: str = "tiny", judge: str = JUDGE, options: str = "") -> Path:
    """A benchmark of the shapes' prompts at 32 pixels."""
    path = folder / f"{name}.toml"
    path.write_text(BENCHMARK.format(judge=judge, options=options))
    return path


def evaluated_job(
    root: Path, out: Path, table: dict[str, Any] | None = None, **options: Any
) -> TrainingJob:
    """A training that is evaluated every 2 steps; `table` are values of the table [evaluation]."""
    asked = launched_training.job(root, out, **{**SHORT, **options})
    defaults = {"benchmark": str(root / "tiny.toml"), "every": 2, "prompts": 12}
    table = EvaluationTable(**(defaults | (table or {})))
    watching = Watching(evaluation=table, settings={"training": {"steps": 4}})
    return replace(asked, data=[WeightedPlace(root / "even")], watching=watching, training={"by": "test"})
