"""GenEval's verdict rules against the results of djghosh13/geneval on 2,500 cases."""

import gzip
import json
from pathlib import Path

from sar_eval.suites.geneval.verdict import Thresholds, decide_verdict
from sar_eval.types import Detection


def _unordered(reason: str) -> list[tuple[str, list[str]]]:
    """Lines of a reason, with the words joined by `and` sorted: their order is that of a set."""
    lines = []
    for line in reason.split("\n"):
        head, separator, tail = line.partition(", found ")
        words = tail.removesuffix(" target").replace("; and ", " and ").split(" and ")
        lines.append((head + separator, sorted(words)))
    return lines


def test_every_official_case_agrees(parity: Path) -> None:
    with gzip.open(parity / "geneval" / "verdicts.jsonl.gz", "rt") as file:
        cases = file.readlines()
    assert len(cases) == 2500
    for line in cases:
        case = json.loads(line)
        boxes = [Detection(d["class"], tuple(d["box"]), d["score"], d["color"]) for d in case["detections"]]
        ruling = decide_verdict(case["metadata"], boxes, Thresholds(**case["options"]))
        expected = case["expected"]
        assert ruling.correct == expected["correct"], case
        assert _unordered(ruling.reason) == _unordered(expected["reason"]), case
        kept = {name: [[*d.box, d.score] for d in boxes] for name, boxes in ruling.kept.items()}
        assert kept == expected["kept"], case
