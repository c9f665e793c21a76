"""GenEval's sampler against the official files."""

import json
from pathlib import Path

import numpy as np
import pytest

from sar_eval.errors import BadInput
from sar_eval.suites.geneval import suite
from sar_eval.suites.geneval.vocabulary import CLASSES

ROOT = Path(__file__).parents[2]


def test_the_official_prompts_byte_for_byte(parity: Path) -> None:
    official = (parity / "geneval" / "evaluation_metadata.jsonl").read_bytes()
    assert suite.to_lines(suite.make_metadata()) == official


def test_the_official_classes_in_order(parity: Path) -> None:
    assert list(CLASSES) == (parity / "geneval" / "object_names.txt").read_text().split("\n")[:80]


def test_the_shipped_suite_is_the_official_one(sar_eval, tmp_path: Path) -> None:
    shipped = (ROOT / "prompts" / "geneval.jsonl").read_text()
    rows = [json.loads(line) for line in shipped.splitlines()]
    assert suite.to_lines([row["checks"] for row in rows]) == suite.to_lines(suite.make_metadata())
    assert [row["id"] for row in rows] == [f"{i:05d}" for i in range(553)]
    assert sar_eval("prompts", "make", "geneval", "--out", tmp_path / "a.jsonl").returncode == 0
    assert (tmp_path / "a.jsonl").read_text() == shipped
    done = sar_eval("prompts", "make", "geneval", "--out", tmp_path / "b.jsonl", "--format", "metadata")
    assert done.returncode == 0
    assert (tmp_path / "b.jsonl").read_bytes() == suite.to_lines(suite.make_metadata())


def test_other_seeds_and_sizes() -> None:
    few, other = suite.make_suite(1, 5), suite.make_suite(2, 5)
    assert len(few) == 80 + 5 * 5
    assert [row["text"] for row in few] != [row["text"] for row in other]
    for row in few:
        people = [item for item in row["checks"]["include"] if item["class"] == "person"]
        assert not any("color" in item for item in people)


def test_a_numpy_with_another_random_stream_is_refused(monkeypatch) -> None:
    other = np.random.default_rng(44)
    monkeypatch.setattr(np.random, "default_rng", lambda seed: other)
    with pytest.raises(BadInput, match=rf"numpy {np.__version__} samples other prompts"):
        suite.make_metadata()
    suite.make_metadata(43, 5)
