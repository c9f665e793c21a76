"""`loss.jsonl`, the loss curve of a training run."""

from __future__ import annotations

from pathlib import Path

from sar_eval.documents import parse_json
from sar_eval.errors import BadInput


def trim_curve(path: Path, step: int) -> None:
    """Drop the lines after `step`, the step from which an interrupted training run resumes."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        path.write_text("".join(f"{line}\n" for line in lines if _step(line, str(path)) <= step))


def _step(line: str, where: str) -> float:
    """The step of a line; infinite for one that was cut off, by a kill or a full disk."""
    try:
        found = parse_json(line, where)
    except BadInput:
        found = None
    step = found.get("step") if isinstance(found, dict) else None
    return step if isinstance(step, int) else float("inf")
