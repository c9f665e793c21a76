"""DSG-1k's scoring against the output of the official scripts on made-up tables and answers."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from sar_eval.benchmarks.dsg import DsgFold
from sar_eval.stats.intervals import metric_of
from sar_eval.suites.dpg.answers import read_answers
from sar_eval.suites.dpg.questions import read_questions
from sar_eval.suites.dpg.suite import COLUMNS
from sar_eval.suites.dsg.scoring import (
    ADDED_ITEM,
    DIRECT,
    QUIRKS,
    UNREAD,
    UnansweredParentError,
    reference_scores,
    score_item,
)
from sar_eval.suites.dsg.suite import import_suite
from sar_eval.types import Prompt, Verdict

Case = dict[str, Any]
TOLERANCE = 1e-12


@pytest.fixture(scope="module")
def cases(parity: Path) -> list[Case]:
    with gzip.open(parity / "folds" / "dsg" / "dev.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def _of(cases: list[Case], kind: str) -> list[Case]:
    found = [case for case in cases if case["kind"] == kind]
    assert found
    return found


def _prompts(case: Case, folder: Path) -> list[Prompt]:
    """The made-up table through our importer."""
    table = folder / "dsg-1k-anns.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for item, proposition, dependency in case["input"]["annotations"]:
            writer.writerow([item, f"text of {item}", proposition, dependency, "", "", "", "Is it so?"])
    return list(import_suite(table).prompts)


def _answered(case: Case, folder: Path) -> tuple[list[Prompt], dict[str, Verdict]]:
    """Prompts with the questions that have an answer (the last one counts), and verdicts of those."""
    answers: dict[str, dict[int, str]] = {}
    for item, question, answer in case["input"]["answers"]:
        answers.setdefault(item, {})[question] = answer
    prompts, verdicts = [], {}
    for prompt in _prompts(case, folder):
        known = answers.get(prompt.id, {})
        rows = [row for row in prompt.checks["questions"] if row["id"] in known] or prompt.checks[
            "questions"
        ]
        prompts.append(Prompt(prompt.id, prompt.text, prompt.tag, {**prompt.checks, "questions": rows}))
        if known:
            evidence = [
                {"id": row["id"], "answer": known[row["id"]], "yes": known[row["id"]] == "yes"}
                for row in rows
            ]
            key = f"{prompt.id}/0"
            verdicts[key] = Verdict(key, "vqa", "1", score=0.5, evidence={"questions": evidence})
    return prompts, verdicts


def test_every_official_suite_agrees(cases: list[Case], tmp_path: Path) -> None:
    for case in _of(cases, "suite"):
        prompts, verdicts = _answered(case, tmp_path)
        expected = case["expected"]
        unread = {prompt.id for prompt in prompts if prompt.checks.get(UNREAD)}
        scores = reference_scores(read_answers(prompts, verdicts), unread)
        assert scores.keys() == expected["items"].keys(), case["id"]
        for item, found in expected["items"].items():
            assert scores[item] == [pytest.approx(found["with_dependency"], abs=TOLERANCE)], item
        metrics = {m.name: metric_of(m) for m in DsgFold().fold(prompts, verdicts)}
        figures = {f"category/{name}": found for name, found in expected["categories"].items()}
        for name, found in {"overall": expected["overall"], **figures}.items():
            metric = metrics.pop(f"reference/{name}")
            assert metric.n == found["n"]
            assert metric.value == pytest.approx(100 * found["mean"], rel=TOLERANCE, abs=TOLERANCE)
            assert f"{metric.value:.1f}%" == found["printed"]
        assert not [name for name in metrics if name.startswith("reference/")]


def test_every_official_item_agrees(cases: list[Case], tmp_path: Path) -> None:
    for case in _of(cases, "item"):
        given, expected = case["input"], case["expected"]
        wanted = None if given["gt"] is None else dict(given["gt"])
        right = {
            question: answer == ("yes" if wanted is None else wanted[question])
            for question, answer in given["answers"]
        }
        parents = None if given["dependency"] is None else dict(given["dependency"])
        if "error" in expected:
            with pytest.raises(UnansweredParentError):
                score_item(right, parents)
            continue
        found = score_item(right, parents)
        assert found.score == pytest.approx(expected["with_dependency"], abs=TOLERANCE)
        assert found.without_dependency == pytest.approx(expected["without_dependency"], abs=TOLERANCE)
        assert list(found.invalid) == [question for question, valid in expected["validity"] if not valid]
        assert list(right.items()) == [(question, score == 1) for question, score in expected["scores"]]


def test_the_zeroed_questions_of_suites_agree(cases: list[Case], tmp_path: Path) -> None:
    """Also questions without an answer are zeroed by their parents, which no figure shows."""
    for case in _of(cases, "suite"):
        answers = {(item, question): text for item, question, text in case["input"]["answers"]}
        for prompt in _prompts(case, tmp_path):
            expected = case["expected"]["items"].get(prompt.id)
            right = {q: text == "yes" for (item, q), text in answers.items() if item == prompt.id}
            if expected is None or not right:
                continue
            questions = read_questions(prompt.checks)
            parents = {} if prompt.checks.get(UNREAD) else {q.id: q.parents for q in questions}
            found = score_item(right, parents)
            assert list(found.invalid) == expected["invalid"], (case["id"], prompt.id)
            assert found.without_dependency == pytest.approx(expected["without_dependency"], abs=TOLERANCE)


def test_each_quirk_moves_some_suite_and_none_of_them_leaves_ours(
    cases: list[Case], tmp_path: Path
) -> None:
    moved = set()
    for case in _of(cases, "suite"):
        prompts, verdicts = _answered(case, tmp_path)
        metrics = {m.name: metric_of(m) for m in DsgFold().fold(prompts, verdicts)}
        moved |= {name for name in QUIRKS if metrics[f"quirk/{name}"].value}
        answered = read_answers(prompts, verdicts)
        unread = {prompt.id for prompt in prompts if prompt.checks.get(UNREAD)}
        ours = reference_scores(answered, unread, [])
        overall = 100 * sum(scores[0] for scores in ours.values()) / len(ours)
        assert metrics["overall"].value == pytest.approx(overall)
        with_direct = reference_scores(answered, unread, [DIRECT])
        assert all(with_direct[item][0] >= ours[item][0] for item in ours)  # ancestors zero more
    # "Yes" is no yes in these verdicts either, so that that quirk moves nothing: see the unit test.
    assert moved == {*QUIRKS} - {"only_exact_yes"}
    assert ADDED_ITEM == "tifa160_134"
