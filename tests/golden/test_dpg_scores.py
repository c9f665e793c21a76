"""DPG-Bench's fold against the output of the official `compute_dpg_bench.py` on 60 suites."""

import gzip
import json
from pathlib import Path

import pytest

from sar_eval.benchmarks.dpg import DpgFold
from sar_eval.stats.intervals import metric_of
from sar_eval.suites.dpg.answers import read_answers
from sar_eval.suites.dpg.questions import read_questions
from sar_eval.suites.dpg.scoring import reference_scores
from sar_eval.suites.dpg.suite import COLUMNS, import_suite
from sar_eval.suites.prompts import load_suite
from sar_eval.suites.source import to_lines
from sar_eval.types import Prompt, Verdict


def _verdicts(prompts: tuple[Prompt, ...], case: dict) -> dict[str, Verdict]:
    """Verdicts of the crops that the script used: the first `pic_num` of four."""
    verdicts = {}
    for prompt in prompts:
        for index, answers in enumerate(case["answers"][prompt.id][: case["pic_num"]]):
            rows = [
                {"id": q.id, "question": q.text, "answer": answers[q.text], "yes": answers[q.text] == "yes"}
                for q in read_questions(prompt.checks)
            ]
            key = f"{prompt.id}/{index}"
            verdicts[key] = Verdict(key, "vqa", "1", score=0.5, evidence={"questions": rows})
    return verdicts


def _assert_equal(actual: dict[str, float], expected: dict[str, float]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name] == pytest.approx(value, rel=0, abs=1e-9), name


def test_every_official_case_agrees(parity: Path, tmp_path: Path) -> None:
    with gzip.open(parity / "dpg" / "scores.jsonl.gz", "rt") as file:
        cases = [json.loads(line) for line in file]
    assert len(cases) == 60
    for number, case in enumerate(cases):
        table = tmp_path / f"{number}.csv"
        table.write_text(case["csv"])
        prompts = import_suite(table).prompts
        verdicts, expected = _verdicts(prompts, case), case["expected"]
        metrics = {m.name: metric_of(m) for m in DpgFold().fold(prompts, verdicts)}
        reference = reference_scores(read_answers(prompts, verdicts))
        assert sorted(reference.dropped) == sorted(expected["failed"])
        per_image = {
            f"{item}/{i}": s
            for item, scores in expected["per_item"].items()
            for i, s in enumerate(scores["images"])
        }
        _assert_equal(
            {f"{item}/{i}": s for item, images in reference.scores.items() for i, s in enumerate(images)},
            per_image,
        )
        for kind, level in (("category", "l1"), ("detail", "l2")):
            prefix = f"reference/{kind}/"
            ours = {n.removeprefix(prefix): m.value for n, m in metrics.items() if n.startswith(prefix)}
            _assert_equal(ours, expected[level])
        overall = metrics["reference/overall"]
        assert (overall.value is None) == (expected["score"] is None)
        if expected["score"] is not None:
            assert overall.value == pytest.approx(expected["score"], rel=0, abs=1e-9)
            assert overall.low <= overall.value <= overall.high
        assert overall.n == sum(len(scores["images"]) for scores in expected["per_item"].values())
        # Our own score drops nothing.
        assert metrics["overall"].n == len(verdicts)


def test_the_official_prompts_are_read_from_the_folder(parity: Path, tmp_path: Path) -> None:
    """The official texts and ids with one question each, as we do not have the official CSV."""
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
    suite = import_suite(tmp_path)
    assert suite.notes == ()
    assert {prompt.id: prompt.text for prompt in suite.prompts} == {i: t.strip() for i, t in texts.items()}
    (tmp_path / "dpg.jsonl").write_bytes(to_lines(suite.prompts))
    assert load_suite(tmp_path / "dpg.jsonl").prompts == suite.prompts
