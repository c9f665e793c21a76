"""Lists of answers against the official scripts: TIIF-Bench, UniGenBench and OneIG-Bench's alignment."""

from pathlib import Path
from typing import Any

import pytest

from sar_eval.benchmarks.oneig import OneigFold
from sar_eval.benchmarks.tiif import TiifFold
from sar_eval.benchmarks.unigenbench import UniGenBenchFold
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.suites.tiif.scoring import LENGTHS, read_officially
from sar_eval.suites.tiif.words import gned, recall, split_words
from sar_eval.suites.unigenbench import scoring as unigen
from sar_eval.types import Metric, Prompt, Verdict
from tests.fold_cases import cases, figures, same
from tests.rubric_verdicts import rubric_verdict

# TIIF-Bench's names of the nine groups, and ours.
GROUPS = {
    "Basic_Attribute": "basic attribute",
    "Basic_Relation": "basic relation",
    "Basic_Reasoning": "basic reasoning",
    "Advanced_Attribute+Relation": "advanced attribute+relation",
    "Advanced_Attribute+Reasoning": "advanced attribute+reasoning",
    "Advanced_Relation+Reasoning": "advanced relation+reasoning",
    "Advanced_Text Generation": "text",
    "Advanced_Style Control": "style",
    "Real_Complex": "real world",
}


def test_tiif_replies(parity: Path) -> None:
    for case in cases(parity, "tiif", "reply"):
        answers = read_officially(case["input"]["text"], case["input"]["questions"])
        words = None if answers is None else ["yes" if answer else "no" for answer in answers]
        assert words == case["expected"], case["id"]


def test_tiif_suites(parity: Path) -> None:
    for case in cases(parity, "tiif", "suite"):
        prompts = {
            (kind, length, index): Prompt(
                f"{kind.replace('+', '.')}-{length}-{index}",
                "text",
                kind,
                {"type": kind, "length": length, "questions": ["Is it?"] * number, "answers": answers},
            )
            for kind, index, answers, number in case["input"]["items"]
            for length in LENGTHS
        }
        for model, expected in case["expected"]["models"].items():
            rows = [row for row in case["input"]["replies"] if row[0] == model]
            verdicts = [rubric_verdict("tiif", prompts[k, ln, i], 0, t) for _, k, ln, i, t in rows]
            found = figures(TiifFold(), list(prompts.values()), verdicts, "reference/")
            _check_tiif(found, expected, case["id"])


def _check_tiif(found: dict[str, Metric], expected: dict[str, Any], case: str) -> None:
    for length in LENGTHS:
        assert same(found[f"reference/{length}"].value, expected["overall"][length]), (case, length)
        for theirs, ours in GROUPS.items():
            measure = found.get(f"reference/group/{length} {ours}")
            value = None if measure is None else measure.value
            assert same(value, expected["groups"].get(theirs, {}).get(length)), (case, length, theirs)


def test_tiif_words(parity: Path) -> None:
    for case in cases(parity, "tiif", "ocr"):
        for side, length in enumerate(LENGTHS, 1):
            pairs = [(split_words(row[0]), split_words(row[side])) for row in case["input"]]
            distance = sum(gned(*pair) for pair in pairs) / len(pairs)
            found = sum(recall(*pair) for pair in pairs) / len(pairs)
            assert same(distance, case["expected"][f"GNED_score_{length}"]), case["id"]
            assert same(found, case["expected"][f"Recall_score_{length}"]), case["id"]


def test_unigenbench_replies(parity: Path) -> None:
    for case in cases(parity, "unigenbench", "reply"):
        given, expected = case["input"], case["expected"]
        if "error" in expected:
            with pytest.raises(TypeError):
                unigen.read_officially(given["text"], given["checkpoints"])
            continue
        scores = unigen.read_officially(given["text"], given["checkpoints"])
        assert (scores is not None) == expected["parsed"], case["id"]
        if scores is not None:
            assert type(scores).__name__ == expected["type"], case["id"]
            assert isinstance(scores, set) or scores == _as_read(expected["score"], scores), case["id"]


def _as_read(score: Any, like: Any) -> Any:
    """JSON has no tuples."""
    return tuple(score) if isinstance(like, tuple) else score


def test_unigenbench_suites(parity: Path) -> None:
    for case in cases(parity, "unigenbench", "suite"):
        given, expected = case["input"], case["expected"]
        prompts = {
            index: Prompt(
                str(index),
                "text",
                checks={"dimensions": names, "descriptions": ["what it is"] * len(names)},
            )
            for index, names in given["prompts"]
        }
        verdicts = [
            rubric_verdict("unigenbench", prompts[index], picture, tries[: given["tries"]])
            for index, picture, tries in given["replies"]
        ]
        found = figures(UniGenBenchFold(), list(prompts.values()), verdicts, "reference/")
        for kind, theirs in (("primary", "primary"), ("dimension", "sub")):
            prefix = f"reference/{kind}/"
            ours = {name.removeprefix(prefix): m for name, m in found.items() if name.startswith(prefix)}
            assert ours.keys() == {name.strip() for name in expected[theirs]}, case["id"]
            for name, (_, total, accuracy) in expected[theirs].items():
                metric = ours[name.strip()]
                assert metric.n == total, (case["id"], name)
                assert round(metric.value, 4) == accuracy, (case["id"], name)


def test_oneig_alignment_suites(parity: Path) -> None:
    for case in cases(parity, "oneig", "alignment"):
        if "error" in case["expected"]:  # a dependency of no question: refused when the suite is imported
            continue
        prompts, verdicts = [], []
        for kind, key, files, pictures, parents, answers in case["input"]["items"]:
            asked = [Question(i, "Is it?", tuple(p for p in of if p)) for i, of in parents]
            prompts.append(Prompt(f"{kind}_{key}", "text", kind, write_questions(asked)))
            if files == 1:
                by_id = dict(answers)
                verdicts += [
                    _alignment_verdict(prompts[-1], picture, [(q, by_id[q.id][picture]) for q in asked])
                    for picture in range(pictures)
                ]
        found = figures(OneigFold(), prompts, verdicts, "reference/")
        expected = case["expected"]
        assert same(found["reference/overall"].value, expected["alignment"]), case["id"]
        for kind in {prompt.tag for prompt in prompts}:
            scores = [
                s for name, s in expected["prompts"].items() if name.startswith(kind) and s is not None
            ]
            metric = found.get(f"reference/class/{kind}")
            assert same(metric and metric.value, sum(scores) / len(scores) if scores else None), case["id"]


def _alignment_verdict(prompt: Prompt, index: int, answers: list[tuple[Question, str]]) -> Verdict:
    rows = [
        {"id": q.id, "question": q.text, "answer": answer, "yes": answer.strip(" .").lower() == "yes"}
        for q, answer in answers
    ]
    return Verdict(f"{prompt.id}/{index}", "vqa", "1", score=0.5, evidence={"questions": rows})
