"""GenEval's verdict logic against what djghosh13/geneval answered on 2,500 cases."""

import gzip
import json
from pathlib import Path

from sar_eval.suites.geneval.verdict import Thresholds, rule
from sar_eval.types import Detection


def _unordered(reason: str) -> list[tuple[str, list[str]]]:
    """Clauses with the words joined by `and` in any order, for they come from a set."""
    clauses = []
    for line in reason.split("\n"):
        head, found, tail = line.partition(", found ")
        words = tail.removesuffix(" target").replace("; and ", " and ").split(" and ")
        clauses.append((head + found, sorted(words)))
    return clauses


def test_every_official_case_agrees(parity: Path) -> None:
    with gzip.open(parity / "geneval" / "verdicts.jsonl.gz", "rt") as file:
        cases = file.readlines()
    assert len(cases) == 2500
    for line in cases:
        case = json.loads(line)
        boxes = [Detection(d["class"], tuple(d["box"]), d["score"], d["color"]) for d in case["detections"]]
        ruling = rule(case["metadata"], boxes, Thresholds(**case["options"]))
        expected = case["expected"]
        assert ruling.correct == expected["correct"], case
        assert _unordered(ruling.reason) == _unordered(expected["reason"]), case
        kept = {name: [[*d.box, d.score] for d in found] for name, found in ruling.kept.items()}
        assert kept == expected["kept"], case
