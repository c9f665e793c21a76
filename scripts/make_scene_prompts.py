"""Write a prompt file of many scenes of the demo's world, for `sar-eval synth`; scenes may come twice.

python scripts/make_scene_prompts.py 20000 scenes.parquet
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sar_eval.suites.shapes.scenes import sample_checks
from sar_eval.suites.shapes.vocabulary import TASKS

SEED = 18


def write_scenes(rows: int, path: Path) -> None:
    """So many prompts, the tasks in turn, each with the checks that the judge `shapes` looks for."""
    rng = random.Random(SEED)
    checks = [sample_checks(TASKS[row % len(TASKS)], rng) for row in range(rows)]
    table = {
        "text": [check["prompt"] for check in checks],
        "tag": [check["tag"] for check in checks],
        "checks": [json.dumps(check) for check in checks],
    }
    pq.write_table(pa.table(table), path, row_group_size=10_000)


if __name__ == "__main__":
    write_scenes(int(sys.argv[1]), Path(sys.argv[2]))
