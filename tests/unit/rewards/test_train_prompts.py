"""Prompts to train on: no test's, whole passes, the same at every resume."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.rewards.train_prompts import TrainPrompts, normalised, refuse_test_prompts, suite_path
from sar_eval.suites.prompts import load_suite
from sar_eval.suites.shapes.vocabulary import needs_held_out
from sar_eval.types import Prompt

ROOT = Path(__file__).parents[3]
PROMPTS = ROOT / "prompts"


def _train(number: int, seed: int = 0) -> TrainPrompts:
    return TrainPrompts(tuple(Prompt(f"p{i}", f"text {i}") for i in range(number)), seed)


def _write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_shipped_training_suite_equals_a_sampled_one(sar_eval, tmp_path: Path) -> None:
    done = sar_eval("prompts", "make", "shapes-train", "--seed", 7, "--out", tmp_path / "again.jsonl")
    assert done.stdout.startswith("604 prompts"), done.stderr
    data = (PROMPTS / "shapes-train.jsonl").read_bytes()
    assert (tmp_path / "again.jsonl").read_bytes() == data
    assert f"{hashlib.sha256(data).hexdigest()}  shapes-train.jsonl" in (PROMPTS / "SHA256SUMS").read_text()


def test_the_training_suite_shares_no_text_with_a_benchmark() -> None:
    found = TrainPrompts.read(PROMPTS / "shapes-train.jsonl", seed=0)
    assert found.tested == 0
    texts = {normalised(prompt.text) for prompt in found.prompts}
    assert len(texts) == len(found.prompts) == 604
    for name in ("shapes", "dpg-shapes", "geneval"):
        assert not texts & {normalised(p.text) for p in load_suite(PROMPTS / f"{name}.jsonl").prompts}
    assert all((p.split == "unseen") == needs_held_out(p.checks) for p in found.prompts)
    sizes = Counter(p.tag for p in found.prompts)
    assert sizes.pop("single_object") == 4
    assert set(sizes.values()) == {120}


def test_a_split_and_exclusions_leave_prompts_out(tmp_path: Path) -> None:
    suite = _write(
        tmp_path / "mine.jsonl",
        [{"id": f"p{i}", "text": f"thing {i}", "split": "seen" if i % 2 else "unseen"} for i in range(6)],
    )
    other = _write(tmp_path / "other.jsonl", [{"text": " THING  3. "}])
    found = TrainPrompts.read(suite, seed=1, split="seen", exclude=[other])
    assert [p.id for p in found.prompts] == ["p1", "p5"]
    with pytest.raises(BadInput, match=r"no prompt has the split 'drilled'; there are 'seen', 'unseen'"):
        TrainPrompts.read(suite, seed=1, split="drilled")
    with pytest.raises(BadInput, match="all 6 prompts stand in the suites of `exclude`"):
        TrainPrompts.read(suite, seed=1, exclude=[suite])


def test_prompts_of_a_test_are_refused_and_named(tmp_path: Path) -> None:
    test = load_suite(PROMPTS / "shapes.jsonl").prompts
    rows = [{"id": f"mine-{i}", "text": f" {test[i].text.upper()} !"} for i in range(5)]
    suite = _write(tmp_path / "mine.jsonl", [*rows, {"id": "fair", "text": "a photo of nothing"}])
    with pytest.raises(BadInput) as refused:
        TrainPrompts.read(suite, seed=0)
    message = str(refused.value)
    assert message.startswith(f"{suite}: 5 training prompts stand in a test suite: mine-0 ")
    assert f"is shapes.jsonl: {test[0].id}" in message
    assert "; and 2 more. " in message
    assert "--train-on-test" in message
    assert TrainPrompts.read(suite, seed=0, train_on_test=True).tested == 5
    own = _write(tmp_path / "own.jsonl", [{"id": "x", "text": "A photo of nothing?"}])
    with pytest.raises(BadInput, match=r"1 training prompts .*fair .* is own.jsonl: x"):
        refuse_test_prompts(load_suite(suite).prompts[5:], "here", False, [own])


@pytest.mark.parametrize(
    "pair", [("A  Red\tCat.", "a red cat"), ("ﬁre!?", "FIRE"), ("ein Fuß", "EIN FUSS")]
)
def test_texts_that_differ_in_form_alone_are_one(pair: tuple[str, str]) -> None:
    assert normalised(pair[0]) == normalised(pair[1])
    assert normalised(pair[0]) != normalised(pair[1] + "s")


@pytest.mark.parametrize(("size", "number"), [(10, 4), (5, 5), (7, 5), (6, 1), (13, 12)])
def test_passes_are_whole_and_no_prompt_comes_twice_in_a_step(size: int, number: int) -> None:
    train = _train(size)
    steps = [[p.id for p in train.at(step, number)] for step in range(4 * size)]
    assert all(len(set(step)) == number for step in steps)
    drawn = [name for step in steps for name in step]
    passes = [drawn[start : start + size] for start in range(0, len(drawn), size)]
    assert all(len(set(names)) == size for names in passes)
    assert size == number or len(set(map(tuple, passes))) > 1


def test_a_step_is_a_function_of_seed_and_step() -> None:
    late = [p.id for p in _train(11).at(37, 4)]
    train = _train(11)
    assert [[p.id for p in train.at(step, 4)] for step in range(38)][37] == late
    assert [p.id for p in _train(11, seed=1).at(37, 4)] != late


def test_a_step_may_ask_for_more_prompts_than_there_are() -> None:
    assert Counter(p.id for p in _train(3).at(5, 6)) == {"p0": 2, "p1": 2, "p2": 2}


def test_a_benchmark_gives_its_suite_by_name(tmp_path: Path) -> None:
    assert suite_path("shapes", tmp_path).name == "shapes.jsonl"
    assert suite_path("shapes-train.jsonl", tmp_path) == PROMPTS / "shapes-train.jsonl"
    (tmp_path / "mine.jsonl").touch()
    assert suite_path("mine.jsonl", tmp_path) == tmp_path / "mine.jsonl"
    with pytest.raises(BadInput, match="'scores' has no prompts of its own"):
        suite_path("scores", tmp_path)
