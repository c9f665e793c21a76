"""WISE's figures against the output of its scripts: replies, tries, suites, and files of result lines."""

import gzip
import json
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sar_eval.benchmarks.wise import WiseFold
from sar_eval.benchmarks.wise_legacy import WiseLegacyFold
from sar_eval.errors import BadInput
from sar_eval.recipe import load_recipe
from sar_eval.stats.totals import mean_of, totals_of
from sar_eval.suites.rubric.readers import UnreadReply
from sar_eval.suites.rubric.rules import OPTIONS, Rule, make_rule
from sar_eval.suites.wise.official import LEGACY, VERIFIED, calculate, read_results
from sar_eval.types import Prompt, Verdict

FORMS = {"verified": VERIFIED, "legacy": LEGACY}
FOLDS = {"verified": WiseFold(), "legacy": WiseLegacyFold()}
PROMPTS = [Prompt(str(number), "text") for number in range(1, 1001)]


def cases(parity: Path, kind: str) -> Iterator[dict[str, Any]]:
    for path in sorted((parity / "folds" / "wise").glob("*.jsonl.gz")):
        with gzip.open(path, "rt") as file:
            yield from (case for case in map(json.loads, file) if case["kind"] == kind)


def rule_of(recipe: str) -> Rule:
    options = load_recipe(recipe).judge_options
    return make_rule({name: options[name] for name in OPTIONS if name in options}, recipe)


RULES = {"verified": rule_of("wise"), "legacy": rule_of("wise-legacy")}


@cache
def score(benchmark: str, reply: str | None) -> float | None:
    """As the recipe's reader gives it."""
    rule = RULES[benchmark]
    try:
        return rule.score(rule.read(reply or "", PROMPTS[0]), PROMPTS[0])
    except UnreadReply:
        return None


def verdict(benchmark: str, key: str, replies: Sequence[str | None]) -> Verdict:
    """As the recipe's judge gives it; the first readable reply counts."""
    scores = [found for reply in replies if (found := score(benchmark, reply)) is not None]
    error = None if scores else "unread"
    evidence = {"replies": list(replies), "tries": len(replies)}
    return Verdict(key, "rubric", "1", next(iter(scores), None), evidence=evidence, error=error)


class Figure(NamedTuple):
    value: float | None
    n: int


def figures(benchmark: str, verdicts: dict[str, Verdict]) -> dict[str, Figure]:
    """Each figure and its number of pictures; intervals, which the official scripts lack, take a second."""
    found = {}
    for measure in FOLDS[benchmark].fold(PROMPTS, verdicts):
        totals = totals_of(measure)
        number = int(sum(task.sizes.sum() for task in totals))
        found[measure.name] = Figure(mean_of(totals) if totals else None, number)
    return found


def test_every_reply_is_read_as_the_scripts_read_it(parity: Path) -> None:
    found = list(cases(parity, "reply"))
    assert len(found) >= 200
    for case in found:
        form, expected = FORMS[case["benchmark"]], case["expected"]
        assert form.read(case["input"]) == expected["scores"], case["id"]
        assert (set(form.keys) <= expected["scores"].keys()) == expected["complete"]


def test_runs_of_a_thousand_pictures(parity: Path) -> None:
    for case in cases(parity, "replies"):
        pool, expected = case["input"]["pool"], case["expected"]
        verdicts = {}
        for number, tries in case["input"]["rows"]:
            key = f"{number}/0"
            replies = [pool[i] if i >= 0 else None for i in tries]
            verdicts[key] = verdict(case["benchmark"], key, replies)
        found = figures(case["benchmark"], verdicts)
        if "aborted" in expected:
            assert found["reference/overall"].value is None, case["id"]
            assert "reference/category/culture" not in found
            continue
        assert found["reference/overall"].value == pytest.approx(expected["overall"], rel=1e-12)
        for name, category in expected["categories"].items():
            metric = found[f"reference/category/{name.lower()}"]
            assert metric.value == pytest.approx(category["mean"], rel=1e-12), (case["id"], name)
            assert metric.n == category["n"]


def test_files_of_result_lines(parity: Path) -> None:
    for case in cases(parity, "lines"):
        files, category, expected = case["input"]["files"], case["input"]["category"], case["expected"]
        form = FORMS[case["benchmark"]]
        results = read_results(form, files)
        found = calculate(form, results, category, len(files))
        if "aborted" in expected:
            assert found.missing, case["id"]
            assert expected.get("missing", list(found.missing)) == list(found.missing)
            continue
        means = {name: (c["mean"], c["n"]) for name, c in expected["categories"].items()}
        assert found.categories.keys() == means.keys()
        for name, (mean, number) in means.items():
            assert found.categories[name] == (pytest.approx(mean, rel=1e-12), number), case["id"]
        assert found.overall == (
            None if expected["overall"] is None else pytest.approx(expected["overall"], rel=1e-12)
        )
        assert results.dropped_files == expected["dropped_files"]


WIDE = "\uff1a"


@pytest.mark.parametrize(
    ("benchmark", "reply", "official", "ours"),
    [
        ("verified", "Score: 1", 1, 1),
        ("verified", f"Score{WIDE}1", None, 1),
        ("verified", "**Score:** 0", None, 0),
        ("verified", "Score: 0.5", 0, None),
        ("verified", "Score: 1/2", 1, None),
        ("verified", "Score: 1.0", 1, 1),
        ("verified", "Score: 1.", 1, 1),
        ("verified", "Score: 10", None, None),
        ("verified", "Subscore: 1\nScore: 0", 1, 0),
        ("verified", "Score: 0\nScore: 1", 0, None),
        ("verified", "hm, Score: 0?</think>Score: 1", 0, 1),
        ("verified", "<think>Score: 1", 1, None),
        ("verified", "so:\n1\nDone.", 1, 1),
        ("verified", "0\n1", None, None),
        ("legacy", "Consistency: 2\nRealism: 1\nAesthetic Quality: 0", 0.8, 0.8),
        ("legacy", f"Consistency{WIDE}2\nRealism{WIDE}1\nAesthetic Quality{WIDE}0", None, 0.8),
        ("legacy", "**Consistency:** 2\n**Realism:** 1\n**Aesthetic Quality:** 0", None, 0.8),
        ("legacy", "Consistency (0-2): 2, Realism (0-2): 1, Aesthetic Quality (0-2): 0", None, 0.8),
        ("legacy", "Consistency: 20\nRealism: 1\nAesthetic Quality: 0", 0.8, None),
        ("legacy", "Consistency: 9\nRealism: 2\nAesthetic Quality: 2", 3.45, None),
        ("legacy", "Consistency: 2/2\nSurrealism: 0\nRealism: 2/2\nAesthetic Quality: 2/2", 1, 1),
        ("legacy", "Consistency: 2\nRealism: 1\nAesthetic Quality: 0\nConsistency: 0", 0.1, None),
        ("legacy", "2\n1\n0", 0.8, 0.8),
        ("legacy", "2\n1\n0\n2", 0.8, None),
    ],
)
def test_quirks_of_reading_on_and_off(
    benchmark: str, reply: str, official: float | None, ours: float | None
) -> None:
    form = FORMS[benchmark]
    scores = form.read(reply)
    sample = form.sample(scores) if set(form.keys) <= scores.keys() else None
    assert sample == (None if official is None else pytest.approx(official))
    assert verdict(benchmark, "1/0", [reply]).score == (None if ours is None else pytest.approx(ours))


def test_long_replies_are_read_in_no_time() -> None:
    began = time.monotonic()
    for start in ("score", "<think>", "realism:", "**"):
        for filler in (" ", "<think>", "score ", "*", "consistency "):
            reply = (start + filler * 200_000)[:200_000]
            assert (VERIFIED.read(reply), LEGACY.read(reply)) == ({}, {})
    assert time.monotonic() - began < 10


def test_one_unreadable_picture_refuses_only_the_official_figure() -> None:
    verdicts = {f"{p.id}/0": verdict("verified", f"{p.id}/0", ["Score: 1"]) for p in PROMPTS}
    complete = figures("verified", verdicts)
    assert (complete["overall"].value, complete["reference/overall"].value) == (
        pytest.approx(1.0),
        pytest.approx(1.0),
    )
    assert not any(name.startswith(("bounds/", "share/")) for name in complete)
    verdicts["401/0"] = verdict("verified", "401/0", ["Hm."] * 3)
    verdicts["402/0"] = Verdict("402/0", "rubric", "1", error="unreadable image")
    del verdicts["403/0"]
    found = figures("verified", verdicts)
    assert found["reference/overall"].value is None
    assert (found["overall"].value, found["overall"].n) == (pytest.approx(1.0), 997)
    assert found["bounds/all_wrong"].value == pytest.approx(1 - 0.12 * 3 / 120)
    assert (found["bounds/all_right"].value, found["bounds/all_right"].n) == (pytest.approx(1.0), 1000)
    assert found["share/unreadable"].value == pytest.approx(0.001)
    assert found["share/missing"].value == pytest.approx(0.002)
    assert found["category/time"].n == 117


def test_categories_weigh_by_their_share_whatever_is_missing() -> None:
    kept = [*range(1, 11), *range(401, 501), 521, 641, 761, 881]
    score = {number: float(number <= 400) for number in kept}
    verdicts = {f"{n}/0": Verdict(f"{n}/0", "rubric", "1", s) for n, s in score.items()}
    assert figures("verified", verdicts)["overall"].value == pytest.approx(0.4)


def test_other_ids_are_refused() -> None:
    for prompt_id in ("0", "1001", "a", "00000000001"):
        with pytest.raises(BadInput, match="its id is none of WISE's"):
            WiseFold().fold([Prompt(prompt_id, "text")], {})
