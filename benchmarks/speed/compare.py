"""Measures what comparing two runs of many rows costs: from run folders, from baselines, of any scores.

    python benchmarks/speed/compare.py [--rows 1000000] [--folder /tmp/compare] [--out TABLE.md]

The runs are stored by the store's own functions (see `bookkeeping.py`); each step runs in a process of its
own, whose CPU seconds and peak memory are printed, imports included.
"""

from __future__ import annotations

import argparse
import platform
import random
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from bookkeeping import make_run, measure, open_run, run_step

from sar_eval.stages.compare import Allowed, compare
from sar_eval.stages.measure import ScoredRun, read_scored, score_run
from sar_eval.stages.save_baseline import save_baseline

RUNS: dict[str, tuple[int, Callable[[random.Random], float] | None]] = {
    "a": (0, None),
    "b": (1, None),
    "reward-a": (2, lambda rng: rng.gauss(0, 1)),
    "reward-b": (3, lambda rng: rng.gauss(0.01, 1)),
}


def scored(path: Path) -> ScoredRun:
    """The scores of a run folder."""
    return score_run(*open_run(path))


def of_runs(first: str, second: str) -> Callable[[Path], None]:
    """A step that compares two run folders."""

    def step(path: Path) -> None:
        found = compare([scored(path / first), scored(path / second)], [], Allowed())
        print(found.pairs[0].overall, file=sys.stderr)

    return step


def of_baseline(path: Path) -> None:
    """A run folder against a baseline."""
    compare([read_scored(path / "a.parquet"), scored(path / "b")], [], Allowed())


def save(path: Path) -> None:
    """Save a baseline."""
    size = save_baseline(scored(path / "a"), path / "a.parquet")
    print(f"{size:,} bytes", file=sys.stderr)


STEPS: dict[str, Callable[[Path], None]] = {
    "compare two runs, right or wrong": of_runs("a", "b"),
    "compare two runs, continuous scores": of_runs("reward-a", "reward-b"),
    "save a baseline": save,
    "compare a run with a baseline": of_baseline,
}


def main() -> None:
    """Measure all, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "compare")
    parser.add_argument("--step", choices=list(STEPS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.step:
        run_step(STEPS[arguments.step], arguments.folder)
        return
    path = arguments.folder / str(arguments.rows)
    for name, (seed, score) in RUNS.items():
        if not (path / name / "made").exists():
            make_run(path / name, arguments.rows, seed, score)
            (path / name / "made").touch()
    machine = f"{platform.processor() or platform.machine()}, Python {platform.python_version()}"
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}; runs of {arguments.rows:,} images, four of each prompt.",
        "",
        "| step | CPU seconds | peak memory, MB |",
        "|---|---:|---:|",
    ]
    for step in STEPS:
        seconds, megabytes = measure(step, path, __file__)
        lines.append(f"| {step} | {seconds:.1f} | {megabytes:.0f} |")
        print(lines[-1], flush=True)
    size = (path / "a.parquet").stat().st_size
    lines += ["", f"The baseline takes {size / 1e6:.1f} MB. Aim: under 60 s and 2 GB.", ""]
    if arguments.out:
        arguments.out.write_text("\n".join(["# Comparing", "", *lines]))


if __name__ == "__main__":
    main()
