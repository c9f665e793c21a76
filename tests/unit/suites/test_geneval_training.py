"""Training prompts in GenEval's manner: they are what the sampler makes, less the suite."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from sar_eval.suites.geneval.suite import make_metadata
from sar_eval.suites.geneval.training import make_suite, request
from sar_eval.suites.prompts import load_suite

SHIPPED = Path(__file__).parents[3] / "prompts"


def _row(tag: str, *include, prompt: str = "") -> dict:
    return {"tag": tag, "include": list(include), "prompt": prompt}


def test_the_shipped_prompts_byte_for_byte(sar_eval, tmp_path: Path) -> None:
    assert sar_eval("prompts", "make", "geneval-train", "--out", tmp_path / "a.jsonl").returncode == 0
    made = (tmp_path / "a.jsonl").read_bytes()
    assert made == (SHIPPED / "geneval-train.jsonl").read_bytes()
    line = f"{hashlib.sha256(made).hexdigest()}  geneval-train.jsonl"
    assert line in (SHIPPED / "SHA256SUMS").read_text().splitlines()


def test_nothing_that_the_benchmark_asks_for_is_trained_on() -> None:
    train, suite = (load_suite(SHIPPED / f"{name}.jsonl").prompts for name in ("geneval-train", "geneval"))
    for key in (lambda prompt: prompt.text.casefold(), lambda prompt: request(prompt.checks)):
        asked = [key(prompt) for prompt in train]
        assert len(set(asked)) == len(asked) == 2770
        assert set(asked).isdisjoint(key(prompt) for prompt in suite)


def test_every_task_but_single_objects() -> None:
    tasks = Counter(prompt.tag for prompt in load_suite(SHIPPED / "geneval-train.jsonl").prompts)
    assert tasks == {"two_object": 611, "counting": 155, "colors": 435, "position": 769, "color_attr": 800}


@pytest.mark.parametrize("seed", [1, 7])
def test_other_seeds_leave_the_suite_out_too(seed: int) -> None:
    suite = {request(row) for row in make_metadata()}
    made = make_suite(seed, per_task=100)
    assert 300 < len(made) < 500
    assert all(request(row["checks"]) not in suite for row in made)


def test_the_same_request_in_other_words() -> None:
    cat, dog = {"class": "cat", "count": 1}, {"class": "dog", "count": 1}
    assert request(_row("two_object", cat, dog)) == request(_row("two_object", dog, cat))
    left = _row("position", dog, cat | {"position": ["left of", 0]})  # a cat left of a dog
    assert request(left) == request(_row("position", cat, dog | {"position": ["right of", 0]}))
    assert request(left) != request(_row("position", cat, dog | {"position": ["left of", 0]}))
    assert request(left) != request(_row("position", dog, cat | {"position": ["above", 0]}))
    red, blue = cat | {"color": "red"}, dog | {"color": "blue"}
    assert request(_row("color_attr", red, blue)) == request(_row("color_attr", blue, red))
    swapped = (cat | {"color": "blue"}, dog | {"color": "red"})
    assert request(_row("color_attr", red, blue)) != request(_row("color_attr", *swapped))


def test_lines_are_genevals_metadata() -> None:
    first = json.loads((SHIPPED / "geneval-train.jsonl").read_text().splitlines()[0])
    assert first["checks"]["prompt"] == first["text"]
    assert first["checks"]["tag"] == first["tag"]
