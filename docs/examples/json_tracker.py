"""One JSON line for each scored run: the smallest tracker."""

from __future__ import annotations

import json
from pathlib import Path

from sar_eval.tracked_runs import TrackedRun


class JsonLines:
    """Appends to a file."""

    def __init__(self, *, file: str = "tracked.jsonl") -> None:
        """Options are those of `--tracker-option`; check them here, before anything is drawn."""
        self.path = Path(file)

    def log(self, run: TrackedRun) -> str:
        """Write figures and step, and say where."""
        wrong = [picture.prompt for picture in run.pictures if picture.passed is False]
        line = {"name": run.name, "step": run.step, "figures": dict(run.figures), "wrong": wrong}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return str(self.path)


TRACKER = JsonLines
