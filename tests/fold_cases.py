"""Cases of the folds' reference data, and figures by name."""

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sar_eval.protocols import Benchmark
from sar_eval.stats.intervals import metric_of
from sar_eval.types import Metric, Prompt, Verdict


def cases(parity: Path, benchmark: str, kind: str) -> Iterator[dict[str, Any]]:
    """All cases of a kind, of every file that is there."""
    paths = sorted((parity / "folds" / benchmark).glob("*.jsonl.gz"))
    if not paths:
        pytest.skip(f"no reference data of {benchmark}: set SAR_EVAL_PARITY to the folder with folds/")
    for path in paths:
        with gzip.open(path, "rt") as file:
            yield from (case for case in map(json.loads, file) if case["kind"] == kind)


def figures(
    fold: Benchmark, prompts: Sequence[Prompt], verdicts: Sequence[Verdict], prefix: str = ""
) -> dict[str, Metric]:
    """The fold's figures whose names begin so, by name."""
    measures = fold.fold(prompts, {verdict.key: verdict for verdict in verdicts})
    return {measure.name: metric_of(measure) for measure in measures if measure.name.startswith(prefix)}


def same(value: float | None, expected: float | str | None) -> bool:
    """Whether figures are equal to 1e-12 of their size; none where the script has none or no number."""
    if value is None or expected is None or expected == "nan":
        return value is None and expected in (None, "nan")
    return value == pytest.approx(expected, rel=1e-12, abs=1e-15)
