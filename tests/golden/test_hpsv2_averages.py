"""HPSv2's averages against what the official `evaluate_benchmark` printed."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from sar_eval.benchmarks.hpsv2 import HpsFold
from sar_eval.stats.totals import mean_of, totals_of
from sar_eval.types import Prompt, Verdict
from tests.parity_data import needs

TOLERANCE, SPREAD_TOLERANCE = 1e-12, 1e-10


def _figures(styles: dict[str, tuple[int, dict[int, float]]]) -> dict[str, float]:
    """The fold's figures of scores by style: how many prompts it has, and the scores of those found."""
    prompts, verdicts = [], {}
    for style, (number, scores) in styles.items():
        prompts += [Prompt(f"{style}-{n:05d}", "a text", style) for n in range(number)]
        for n, score in scores.items():
            key = f"{style}-{n:05d}/0"
            verdicts[key] = Verdict(key, "score", "1", score=score)
    return {m.name: m.scale * mean_of(totals_of(m)) for m in HpsFold().fold(prompts, verdicts)}


def _styles(case: dict[str, Any]) -> dict[str, tuple[int, dict[int, float]]]:
    found = {}
    for style, rows in case["input"]["styles"].items():
        index = rows["index"] or range(len(rows["score"]))
        scores = {n: score / 100 for n, score in zip(index, rows["score"], strict=True)}
        found[style] = (case["input"]["prompts"][style], scores)
    return found


def test_every_official_case_agrees(parity: Path) -> None:
    with gzip.open(parity / "folds" / "hpsv2" / "dev.jsonl.gz", "rt") as file:
        cases = [json.loads(line) for line in file]
    moved = {}
    for case in cases:
        figures, expected = _figures(_styles(case)), case["expected"]
        assert figures["overall"] == pytest.approx(expected["average"], rel=TOLERANCE, abs=TOLERANCE)
        assert round(figures["overall"], 2) == pytest.approx(expected["average_printed"])
        for style, found in expected["styles"].items():
            mean, spread = (figures[f"reference/style/{name}"] for name in (style, f"{style}_std"))
            assert mean == pytest.approx(found["mean"], rel=TOLERANCE, abs=TOLERANCE), case["id"]
            assert spread == pytest.approx(found["std"], abs=SPREAD_TOLERANCE), case["id"]
            assert [round(mean, 2), round(spread, 4)] == pytest.approx(found["printed"])
            gap = abs(mean - figures[f"style/{style}"])
            moved[case["mode"]] = max(gap, moved.get(case["mode"], 0.0))
    # The quirk, on and off: a last run of one picture weighs as much as 80; whole runs change nothing.
    assert moved["81"] > 0.3
    assert moved["complete"] < 1e-12
    assert moved["79"] < 1e-12


def test_scores_of_real_pictures_with_gaps_give_the_printed_figures(parity: Path) -> None:
    """Official code on the tiny network: 348 pictures, of which four are missing."""
    folder = needs(parity / "hpsv2" / "benchmark_fold.json").parent
    fold = json.loads((folder / "benchmark_fold.json").read_text())
    order = json.loads(needs(folder / "cases.json").read_text())["order"]
    scores = load_file(needs(folder / "expected.safetensors"))["scores/antialias"]
    styles = {}
    for style, rows in fold["styles"].items():
        found = {
            n: float(scores[order["images"].index(image), order["texts"].index(text)])
            for n, (image, text) in enumerate(rows["items"])
            if n not in rows["missing"]
        }
        styles[style] = (len(rows["items"]), found)
    figures, printed = _figures(styles), fold["printed"]
    assert round(figures["overall"], 2) == pytest.approx(printed.pop("Average")[0])
    for style, (mean, spread) in printed.items():
        assert round(figures[f"reference/style/{style}"], 2) == pytest.approx(mean)
        assert round(figures[f"reference/style/{style}_std"], 4) == pytest.approx(spread)
