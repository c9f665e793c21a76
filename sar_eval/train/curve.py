"""`loss.jsonl`, the loss curve of a training run."""

from __future__ import annotations

import json
from pathlib import Path


def trim_curve(path: Path, step: int) -> None:
    """Drop the lines after `step`, the step from which an interrupted training run resumes."""
    if path.is_file():
        lines = path.read_text().splitlines()
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in kept))
