"""Rendered text against the official scripts: LongText-Bench and OneIG-Bench's text."""

from pathlib import Path
from typing import Any

import pytest

from sar_eval.benchmarks.longtext import LongTextFold
from sar_eval.benchmarks.oneig_text import OneigTextFold
from sar_eval.errors import BadInput
from sar_eval.suites.longtext import scoring as longtext
from sar_eval.suites.oneig import text as oneig
from sar_eval.types import Prompt, Verdict
from tests.fold_cases import cases, figures, same
from tests.rubric_verdicts import rubric_verdict


def _parts(key: Any) -> list[str]:
    """A key's parts; the script joins a bare string character by character."""
    return list(key) if isinstance(key, str) else key


def test_longtext_pairs(parity: Path) -> None:
    number = 0
    for case in cases(parity, "longtext", "pair"):
        given, expected, chinese = case["input"], case["expected"], case["mode"] == "zh"
        cleaned = longtext.cleaned_officially(given["reply"])
        assert cleaned == expected["cleaned"], case["id"]
        checks = {"text": _parts(given["gt"]), "language": case["mode"]}
        if "error" in expected:
            with pytest.raises(BadInput, match="counts"):
                longtext.read_key(checks, case["id"])
            continue
        key = longtext.read_key(checks, case["id"])
        counts = longtext.count(key, cleaned)
        assert longtext.normalised(" ".join(key.text), chinese) == expected["gt"], case["id"]
        assert longtext.normalised(cleaned, chinese) == expected["ocr"], case["id"]
        assert (counts.matched, counts.key) == (expected["matched"], expected["gt_units"]), case["id"]
        assert counts.recall == expected["ratio"], case["id"]
        number += 1
    assert number >= 40


def test_longtext_suites(parity: Path) -> None:
    for case in cases(parity, "longtext", "suite"):
        prompts = [
            Prompt(f"p{number}", "text", checks={"text": _parts(key), "language": case["mode"]})
            for number, (key, _) in enumerate(case["input"])
        ]
        replies = [reply for _, reply in case["input"]]
        verdicts = [rubric_verdict("longtext", p, 0, [r]) for p, r in zip(prompts, replies, strict=True)]
        if "error" in case["expected"]:
            with pytest.raises(BadInput, match="counts"):
                figures(LongTextFold(), prompts, verdicts)
            continue
        found = figures(LongTextFold(), prompts, verdicts)
        assert same(found["reference/overall"].value, case["expected"]["score"]), case["id"]


def test_oneig_text_pairs(parity: Path) -> None:
    for case in cases(parity, "oneig", "text-pair"):
        given, expected = case["input"], case["expected"]
        reading = oneig.read_officially(given["gt"], given["ocr"])
        assert oneig.normalised_officially(given["gt"]) == expected["gt"], case["id"]
        cleaned = oneig.cleaned_officially(given["ocr"])
        assert oneig.normalised_officially(cleaned) == expected["ocr"], case["id"]
        assert reading.distance == expected["edit_distance"], case["id"]
        assert (reading.matched, reading.units) == (expected["matched"], expected["gt_units"]), case["id"]
        assert same(reading.share, expected["ratio"]), case["id"]


def test_oneig_text_suites(parity: Path) -> None:
    for case in cases(parity, "oneig", "text"):
        items, expected = case["input"]["items"], case["expected"]
        prompts = [
            Prompt(key, "text", checks={"text": wanted, "language": case["language"].lower()})
            for key, wanted, _, _ in items
        ]
        grids = [texts if files == 1 else None for _, _, files, texts in items]
        if "error" in expected:
            with pytest.raises(ValueError, match="first grid is black"):
                oneig.texts_officially(grids)
            continue
        verdicts = _verdicts(prompts, oneig.texts_officially(grids))
        found = figures(OneigTextFold(), prompts, verdicts, "reference/")
        names = {"overall": "score", "complete": "CR", "words_micro": "WAC"}
        for ours, theirs in names.items():
            assert same(found[f"reference/{ours}"].value, expected[theirs]), (case["id"], theirs)
        largest = oneig.LARGEST_DISTANCE[case["language"].lower()]
        distance = largest * (1 - found["reference/nearness"].value)
        assert distance == pytest.approx(expected["ED"], rel=0, abs=1e-9), case["id"]


def _verdicts(prompts: list[Prompt], texts: list[list[str]]) -> list[Verdict]:
    return [
        rubric_verdict("oneig-text", prompt, index, [reply])
        for prompt, replies in zip(prompts, texts, strict=True)
        for index, reply in enumerate(replies)
    ]


def test_an_all_black_grid_gets_the_texts_of_the_one_before(parity: Path) -> None:
    """The quirk changes figures: without it the prompt is left out."""
    stale = [case for case in cases(parity, "oneig", "text") if case["mode"] == "black-all-stale"]
    assert stale
    for case in stale:
        items = case["input"]["items"]
        prompts = [
            Prompt(key, "text", checks={"text": wanted, "language": case["language"].lower()})
            for key, wanted, _, _ in items
        ]
        found = figures(OneigTextFold(), prompts, _verdicts(prompts, [texts for *_, texts in items]))
        assert not same(found["reference/overall"].value, case["expected"]["score"])
        assert found["overall"].n == sum(len(texts) for *_, texts in items)
