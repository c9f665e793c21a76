"""`loss.jsonl`, the loss over the steps of a fit."""

from __future__ import annotations

import json
from pathlib import Path


def trim_curve(path: Path, step: int) -> None:
    """Drop what an interrupted fit wrote after `step`, the one that its next start goes on from."""
    if path.is_file():
        lines = path.read_text().splitlines()
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in kept))
