"""GenEval 2 and PairComp: probabilities of listed answers and both folds, against the official scripts."""

import base64
import gzip
import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sar_eval.answerers.transformers import TransformersAnswerer
from sar_eval.answers import Asked
from sar_eval.benchmarks.geneval2 import Geneval2Fold
from sar_eval.benchmarks.paircomp import PaircompFold
from sar_eval.errors import BadInput
from sar_eval.measures import Measure
from sar_eval.stats.intervals import metric_of
from sar_eval.stats.totals import mean_of, totals_of
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.suites.geneval2.scoring import geometric_mean
from sar_eval.suites.geneval2.spellings import DIGITS, NO, YES, official_spellings, spellings
from sar_eval.suites.paircomp.scoring import CATEGORIES, category_of, official_score
from sar_eval.types import Prompt, Verdict
from tests.parity_data import FULL, needs

Case = dict[str, Any]


def read_cases(parity: Path, benchmark: str, kind: str) -> Iterator[Case]:
    with gzip.open(needs(parity / "folds" / benchmark / "dev.jsonl.gz"), "rt") as file:
        yield from (case for case in map(json.loads, file) if case["kind"] == kind)


def close(value: float, expected: Any, rel: float = 1e-12) -> bool:
    return math.isclose(value, float(expected), rel_tol=rel, abs_tol=1e-12)


def row(question: Question, mass: float, against: float, *, yes: bool = False) -> Case:
    listed = {"mass": mass, "distinct": mass, "against": against, "floor": None, "unlisted": 0}
    return {"id": question.id, "yes": yes, **listed}


def verdict(prompt: Prompt, rows: list[Case], index: int = 0) -> Verdict:
    return Verdict(f"{prompt.id}/{index}", "vqa", "1", score=0.5, evidence={"questions": rows})


def assert_modes(seen: Counter[str], usual: str, *others: str) -> None:
    """Of the committed part, which is small, only the usual mode is certain."""
    assert usual in seen
    assert not FULL.is_dir() or set(seen) >= set(others)


def values(measures: Sequence[Measure]) -> dict[str, float]:
    """Figures without their intervals, which take a hundred times as long."""
    return {measure.name: measure.scale * mean_of(totals_of(measure)) for measure in measures}


# GenEval 2


def geneval2_prompts(data: list[Case]) -> list[Prompt]:
    prompts = []
    for number, entry in enumerate(data):
        pairs = zip(entry["vqa_list"], entry["skills"], strict=True)
        questions = [
            Question(i, text, category=skill, expect=official_spellings(text, answer))
            for i, ((text, answer), skill) in enumerate(pairs)
        ]
        checks = {"atom_count": entry["atom_count"], **write_questions(questions)}
        prompts.append(Prompt(f"{number:03d}", entry["prompt"], checks=checks))
    return prompts


def geneval2_figures(case: Case, number: int | None = None) -> dict[str, float]:
    """Our figures of the first prompts' answers."""
    prompts, verdicts = geneval2_prompts(case["input"]["data"]), {}
    for prompt, answers in list(zip(prompts, case["input"]["answers"], strict=True))[:number]:
        questions = [Question(**q) for q in prompt.checks["questions"]]
        rows = [
            row(q, mass, 0.0, yes=token.lower() in q.expect)
            for q, (token, mass) in zip(questions, answers, strict=True)
        ]
        verdicts[f"{prompt.id}/0"] = verdict(prompt, rows)
    return values(Geneval2Fold().fold(prompts, verdicts))


def test_geneval2_figures_equal_the_official_ones(parity: Path) -> None:
    seen = Counter[str]()
    for case in read_cases(parity, "geneval2", "suite"):
        seen[case["mode"]] += 1
        expected, figures = case["expected"], geneval2_figures(case)
        assert close(figures["reference/arithmetic"], expected["soft_tifa_am"]), case["id"]
        assert close(figures["reference/overall"], expected["soft_tifa_gm"], 1e-11), case["id"]
        assert close(figures["tifa"], expected["tifa"]), case["id"]
        analysed = geneval2_figures(case, case["input"]["analysed"])
        if "error" not in expected["skills"]:
            for skill, value in expected["skills"].items():
                assert close(analysed[f"reference/skill/{skill}"], value), case["id"]
        if "error" not in expected["atomicity"]:
            for atoms, found in expected["atomicity"].items():
                assert close(analysed[f"reference/atomicity/{atoms}_atoms"], found["mean"], 1e-11), case[
                    "id"
                ]
    assert_modes(seen, "full", "zeros", "no-verb", "atom-missing", "bad-skill", "over-one")


def test_geneval2_has_figures_where_the_official_analysis_stops(parity: Path) -> None:
    """A skill or an atomicity that is absent is absent; one that is unknown has a figure of its own."""
    absent = {"no-verb": "skill/verb", "atom-missing": "", "bad-skill": "", "atom-outside": ""}
    for case in read_cases(parity, "geneval2", "suite"):
        if case["mode"] in absent:
            assert "error" in {**case["expected"]["skills"], **case["expected"]["atomicity"]}
            figures, data = geneval2_figures(case), case["input"]["data"]
            skills = {f"skill/{skill}" for entry in data for skill in entry["skills"]}
            atoms = {f"atomicity/{entry['atom_count']}_atoms" for entry in data}
            assert {name for name in figures if name.startswith(("skill/", "atomicity/"))} == skills | atoms
            assert absent[case["mode"]] not in figures


@pytest.mark.slow
def test_geneval2_spellings_and_probabilities_equal_the_official_ones(parity: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from sar_eval.networks.first_token import listed_ids, sum_masses

    tokenizer = transformers.AutoTokenizer.from_pretrained(needs(parity / "folds/geneval2/tiny-qwen3-vl"))
    repeated = blank = 0
    for case in read_cases(parity, "geneval2", "row"):
        question, answer, expected = (case["input"]["question"], case["input"]["answer"], case["expected"])
        asked = Asked(question, official_spellings(question, answer))
        assert list(asked.expect) == expected["spellings"]
        ids = listed_ids(tokenizer, asked)
        assert list(ids.expect) == expected["first_ids"]
        logits = torch.tensor([float(value) for value in case["input"]["logits"]])
        masses = sum_masses(logits.softmax(-1), ids)
        assert math.isclose(masses.mass, expected["score"], rel_tol=2e-6)
        first = tokenizer.decode([int(logits.argmax())])
        assert first == expected["first"]
        assert float(first.lower() in asked.expect) == expected["hard"]
        # Ours counts a token once, and a blank never: no more than 1, however the tokenizer splits.
        assert masses.distinct <= min(masses.mass, 1.0) + 1e-6
        repeated += len(set(ids.expect)) < len(ids.expect)
        blank += any(not tokenizer.decode([i]).strip() for i in ids.expect)
    assert repeated > 0
    assert blank > 0


def test_geneval2_answers_without_spellings_are_refused_not_looked_for_as_other(parity: Path) -> None:
    refused = 0
    for case in read_cases(parity, "geneval2", "row"):
        question, answer = case["input"]["question"], case["input"]["answer"]
        if not (answer in DIGITS if question.startswith("How many") else answer == "Yes"):
            with pytest.raises(BadInput, match="row 1: "):
                spellings(question, answer, "row 1")
            refused += 1
        else:
            expect, against = spellings(question, answer, "row 1")
            assert expect == official_spellings(question, answer)
            assert not set(expect) & set(against)
    assert refused
    assert spellings("Is it red?", "Yes", "row 1") == (YES, NO)
    assert official_spellings("How many?", "4")[-2:] == ("other", " other")


def user_text(tokenizer: Any, ids: list[int]) -> str:
    """The text of the official request behind the picture: it is nobody's to repeat here."""
    text = tokenizer.decode(ids).partition("<|vision_end|>")[2]
    return str(text.partition("<|im_end|>")[0])


@pytest.mark.slow
def test_geneval2_requests_give_the_official_probabilities(parity: Path) -> None:
    """Only where the full data is: the requests have the script's own words in them."""
    transformers = pytest.importorskip("transformers")
    folder = needs(parity / "folds/geneval2/tiny-qwen3-vl/model.safetensors").parent
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    images, official = [], []
    for case in read_cases(parity, "geneval2", "model"):
        expected = case["expected"]
        text = user_text(tokenizer, expected["input_ids"])
        if "message_sha256" in expected:
            assert hashlib.sha256(text.encode()).hexdigest() == expected["message_sha256"]
        image = Image.open(io.BytesIO(base64.b64decode(case["input"]["png"]))).convert("RGB")
        images.append((np.asarray(image), [Asked(text, tuple(expected["spellings"]))]))
        official.append(expected)
    with TransformersAnswerer(model=str(folder), prompt="{question}", max_new_tokens=1) as answerer:
        answers = [answer for [answer] in answerer.ask(images)]
    assert [a.yes for a, e in zip(answers, official, strict=True) if "hard" in e] == [
        bool(e["hard"]) for e in official if "hard" in e
    ]
    pairs = zip(answers, official, strict=True)
    # The data was made with transformers 4.57, from which 5.19 differs by up to 2.5e-6.
    assert max(abs(answer.listed.mass - expected["score"]) for answer, expected in pairs) < 5e-6
    assert len(official) == 24


def test_a_floor_takes_the_place_of_what_a_server_hides() -> None:
    """Five answers at 0.9 and one at 1e-6 that the server does not name: 0, and at most this."""
    questions = [Question(i, "Is it?", category="object", expect=YES) for i in range(5)]
    prompt = Prompt("p", "a scene", checks={"atom_count": 3, **write_questions(questions)})
    rows = [row(q, 0.9, 0.1) | {"floor": 1e-5, "unlisted": 3} for q in questions]
    rows[4] |= {"mass": 0.0, "distinct": 0.0, "unlisted": 4}
    measures = Geneval2Fold().fold([prompt], {"p/0": verdict(prompt, rows)})
    figures = {measure.name: metric_of(measure).value for measure in measures}
    assert figures["overall"] == 0.0
    most = geometric_mean([*[0.9 + 3e-5] * 4, 4e-5])
    assert figures["floor/overall_at_most"] == pytest.approx(100 * most)
    assert figures["floor/hidden_questions"] == pytest.approx(20.0)
    known = [row(q, 0.9, 0.1) for q in questions]
    names = {m.name for m in Geneval2Fold().fold([prompt], {"p/0": verdict(prompt, known)})}
    assert not any(name.startswith("floor/") for name in names)


# PairComp


def test_paircomp_scores_equal_the_official_ones(parity: Path) -> None:
    torch = pytest.importorskip("torch")
    undefined = 0
    for case in read_cases(parity, "paircomp", "probability"):
        vocabulary = case["input"]["vocabulary"]
        for values, expected in zip(case["input"]["logits"], case["expected"]["scores"], strict=True):
            logits = torch.tensor([float(value) for value in values])
            by_piece = dict(zip(vocabulary, logits.softmax(-1).tolist(), strict=True))
            yes, no = (sum(by_piece[f(word)] for f in CASES) for word in ("yes", "no"))
            found = official_score(yes, no)
            if expected == "nan":
                undefined += 1
                assert math.isnan(found)
            else:
                assert abs(found - expected) <= 1e-4
    assert undefined


CASES = (str.lower, str.capitalize, str.upper)


def paircomp_figures(case: Case) -> dict[str, float]:
    """Our figures; a score that is not a number is a draw without a verdict."""
    prompts, verdicts = [], {}
    for number, index, scores in case["input"]["pairs"]:
        category = category_of(case["input"]["categories"][index])
        if category is None:
            continue
        question = Question(1, "Is it?", expect=("yes",), against=("no",), is_ratio=True)
        checks = {"pair": str(number), "category": category, **write_questions([question])}
        prompt = Prompt(f"{number}_0", "a scene", category, checks)
        prompts.append(prompt)
        for draw, score in enumerate(scores):
            if score != "nan":
                found = verdict(prompt, [row(question, score, 1 - score)], draw)
                verdicts[found.key] = found
    return values(PaircompFold().fold(prompts, verdicts))


OFFICIAL_NAMES = {
    "Overall appearance": "overall",
    "Color": "color",
    "Counting": "counting",
    "Position": "position",
    "Style & Tone": "style",
    "Text": "text",
}


@pytest.mark.parametrize("of_mode", [1, pytest.param(100, marks=pytest.mark.slow)])
def test_paircomp_figures_equal_the_official_ones(parity: Path, of_mode: int) -> None:
    """By default of the first case of each mode: a suite has 2,200 scores."""
    seen = Counter[str]()
    for case in read_cases(parity, "paircomp", "suite"):
        seen[case["mode"]] += 1
        if seen[case["mode"]] > of_mode:
            continue
        figures = paircomp_figures(case)
        expected = case["expected"]
        if "error" in expected:  # not 550 pairs: the script stops, we have figures of what is there
            assert not any(name.startswith("reference/") for name in figures)
            assert 0 < figures["overall"] < 1
            continue
        average = expected["Average"]
        if average["arithmetic"] == "nan":  # one reply is neither yes nor no: the script has no average
            assert 0 < figures["reference/overall"] < 1
            continue
        assert close(figures["reference/overall"], average["arithmetic"])
        assert close(figures["reference/geometric"], average["geometric"])
        for official, category in OFFICIAL_NAMES.items():
            both = [figures[f"reference/category/{category}{ending}"] for ending in ("", "_geometric")]
            assert close(both[0], expected[official]["arithmetic"])
            assert close(both[1], expected[official]["geometric"])
        # The scores are rounded already, so rounding again changes nothing.
        assert close(figures["quirk/rounding"], 0.0)
        assert close(figures["overall"], average["arithmetic"])
    assert_modes(seen, "plain", "zeros", "three-images", "pair-missing", "nan", "unknown-category")


def test_paircomp_rounding_takes_small_probabilities_away() -> None:
    """Four scores of 0.00004 have the geometric mean 0.00004, and 0 after rounding."""
    prompts, verdicts, number = [], {}, 0
    question = Question(1, "Is it?", expect=("yes",), against=("no",), is_ratio=True)
    for category, pairs in CATEGORIES.items():
        for _ in range(pairs):
            checks = {"pair": str(number), "category": category, **write_questions([question])}
            prompts.append(Prompt(f"{number}_0", "a scene", category, checks))
            found = verdict(prompts[-1], [row(question, 0.00004 if category == "text" else 0.5, 1.0)])
            verdicts[found.key], number = found, number + 1
    figures = {m.name: metric_of(m) for m in PaircompFold().fold(prompts, verdicts)}
    assert figures["category/text_geometric"].value == pytest.approx(0.00004, rel=1e-3)
    assert figures["reference/category/text_geometric"].value == 0.0
    assert figures["quirk/rounding"].n == 550
    # 250 of 550 pairs are "overall appearance", a sixth of the average.
    assert figures["overall"].value == pytest.approx((5 * (1 / 3) + 0.00004) / 6, rel=1e-3)
    assert figures["pairs"].value == pytest.approx((500 * (1 / 3) + 50 * 0.00004) / 550, rel=1e-3)
