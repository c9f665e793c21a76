"""DPG-Bench's fold against what the official `compute_dpg_bench.py` printed on 60 suites."""

import gzip
import json
from pathlib import Path

import pytest

from sar_eval.benchmarks.dpg import DpgFold, read_items
from sar_eval.suites.dpg.questions import read_questions
from sar_eval.suites.dpg.scoring import reference
from sar_eval.suites.dpg.suite import COLUMNS, import_suite, to_lines
from sar_eval.suites.prompts import load_suite
from sar_eval.types import Prompt, Verdict


def _verdicts(prompts: tuple[Prompt, ...], case: dict) -> dict[str, Verdict]:
    """Of the crops that the script looked at: the first `pic_num` of four."""
    found = {}
    for prompt in prompts:
        for index, said in enumerate(case["answers"][prompt.id][: case["pic_num"]]):
            rows = [
                {"id": q.id, "question": q.text, "answer": said[q.text], "yes": said[q.text] == "yes"}
                for q in read_questions(prompt.checks)
            ]
            key = f"{prompt.id}/{index}"
            found[key] = Verdict(key, "vqa", "1", score=0.5, evidence={"questions": rows})
    return found


def _same(found: dict[str, float], expected: dict[str, float]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0, abs=1e-9), name


def test_every_official_case_agrees(parity: Path, tmp_path: Path) -> None:
    with gzip.open(parity / "dpg" / "scores.jsonl.gz", "rt") as file:
        cases = [json.loads(line) for line in file]
    assert len(cases) == 60
    for number, case in enumerate(cases):
        table = tmp_path / f"{number}.csv"
        table.write_text(case["csv"])
        prompts = import_suite(table).prompts
        verdicts, expected = _verdicts(prompts, case), case["expected"]
        metrics = {metric.name: metric for metric in DpgFold().fold(prompts, verdicts)}
        told = reference(read_items(prompts, verdicts))
        assert sorted(told.dropped) == sorted(expected["failed"])
        per_item = {
            f"{item}/{i}": s
            for item, found in expected["per_item"].items()
            for i, s in enumerate(found["images"])
        }
        _same(
            {f"{item}/{i}": s for item, images in told.scores.items() for i, s in enumerate(images)},
            per_item,
        )
        for kind, level in (("category", "l1"), ("detail", "l2")):
            prefix = f"reference/{kind}/"
            ours = {n.removeprefix(prefix): m.value for n, m in metrics.items() if n.startswith(prefix)}
            _same(ours, expected[level])
        overall = metrics["reference/overall"]
        assert (overall.value is None) == (expected["score"] is None)
        if expected["score"] is not None:
            assert overall.value == pytest.approx(expected["score"], rel=0, abs=1e-9)
            assert overall.low <= overall.value <= overall.high
        assert overall.n == sum(len(found["images"]) for found in expected["per_item"].values())
        # Nothing is dropped from ours.
        assert metrics["overall"].n == len(verdicts)


def test_the_official_prompts_are_read_from_the_folder(parity: Path, tmp_path: Path) -> None:
    """The official texts and ids, with a question each: the official CSV is not at hand."""
    lines = (parity / "dpg" / "prompts.jsonl").read_text().splitlines()
    texts = {row["item_id"]: row["text"] for row in map(json.loads, lines)}
    assert len(texts) == 1065
    (tmp_path / "prompts").mkdir()
    rows = [",".join(COLUMNS)]
    for item, text in texts.items():
        (tmp_path / "prompts" / f"{item}.txt").write_text(text + "\n")
        quoted = text.strip().replace('"', '""')
        rows.append(f'{item},"{quoted}",1,0,global,,global (x),Is it so?')
    (tmp_path / "dpg_bench.csv").write_text("\n".join(rows))
    found = import_suite(tmp_path)
    assert found.notes == ()
    assert {prompt.id: prompt.text for prompt in found.prompts} == {i: t.strip() for i, t in texts.items()}
    (tmp_path / "dpg.jsonl").write_bytes(to_lines(found.prompts))
    assert load_suite(tmp_path / "dpg.jsonl").prompts == found.prompts
