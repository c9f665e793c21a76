"""`loss.jsonl`, the loss curve of a training run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_eval.documents import parse_json
from sar_eval.errors import BadInput
from sar_eval.storage.files import write_bytes

if TYPE_CHECKING:
    from sar_eval.types import Json

TrainingProgress = Callable[[int, int, float], None]  # called with step, steps and loss


def trim_curve(path: Path, step: int) -> None:
    """Drop the lines after `step`, the step from which an interrupted training run resumes."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = "".join(f"{line}\n" for line in lines if _step(line, str(path)) <= step)
        write_bytes(path, kept.encode())


def add_to_curve(path: Path, line: Mapping[str, Json]) -> None:
    """Append a point."""
    with path.open("a") as curve:
        curve.write(json.dumps(dict(line)) + "\n")


def _step(line: str, where: str) -> float:
    """The step of a line; infinite for one that was cut off, by a kill or a full disk."""
    try:
        found: Any = parse_json(line, where)
    except BadInput:
        found = None
    step = found.get("step") if isinstance(found, dict) else None
    return step if isinstance(step, int) else float("inf")
