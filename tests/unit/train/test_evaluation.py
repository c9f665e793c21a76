"""Evaluation while a decoder is trained: it scores what would be written, and changes nothing else."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import pytest
from safetensors.torch import load_file
from transformers import TrainerCallback

from sar_eval.documents import read_json
from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput, Incomplete, UnknownName
from sar_eval.rewards.holdout import joined, read_results
from sar_eval.rewards.holdout_verdict import best_step
from sar_eval.rewards.pool import RewardPool
from sar_eval.storage.training_journal import read_head, read_holdout, read_samples, read_steps
from sar_eval.train.evaluation_table import EvaluationTable
from sar_eval.train.fit import fit
from sar_eval.train.training_watch import TrainingWatch, Watching
from tests.decoder_trainings import JUDGE, evaluated_job, make_data, write_benchmark


class Stop(Exception):
    """Interrupts a training."""


class StopAfter(TrainerCallback):
    """Stops it in the middle of a step's end, before a state is saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Stop


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("evaluation")
    make_data(root)
    return root


@pytest.fixture(scope="module")
def evaluated(work) -> Path:
    """A training with evaluations at the steps 0, 2 and 4."""
    said: list[str] = []
    asked = evaluated_job(work, work / "evaluated")
    fit(replace(asked, watching=replace(asked.watching, tell=said.append)))
    cost, *evaluations = said
    assert "a visual token" in cost
    assert [line.partition(":")[0] for line in evaluations] == ["step 0", "step 2", "step 4"]
    assert "since the first" in evaluations[2]
    return work / "evaluated"


def _weights(folder: Path) -> dict:
    return {name: tensor.tolist() for name, tensor in load_file(folder / "model.safetensors").items()}


def test_what_is_kept_as_best_draws_what_was_scored(work, evaluated) -> None:
    rows = read_holdout(evaluated)
    assert [row.step for row in rows] == [0, 2, 4]
    best = best_step(rows)
    assert best > 0  # it learns even codes
    assert read_json(evaluated / "best" / "sar_eval.json")["training"] == {"by": "test", "step": best}
    holdout = evaluated_job(work, work / "x").watching.evaluation.holdout(32, "")
    with (
        RewardPool(holdout.judges) as judges,
        NativeEngine(str(evaluated / "best"), holdout.protocol) as engine,
    ):
        drawn = joined([holdout.evaluate(engine, judges, best)])
    scored = {result.step: result for result in read_results(evaluated / "holdout", 4)}
    assert drawn == scored[best]
    assert len({str(result.scores) for result in scored.values()}) == 3  # the weights moved


def test_evaluation_changes_no_weight(work, evaluated) -> None:
    fit(evaluated_job(work, work / "alone", {"benchmark": ""}))
    assert _weights(work / "alone") == _weights(evaluated)
    assert not (work / "alone" / "best").exists()
    assert not (work / "alone" / "holdout").exists()
    assert "Learning rate" in (work / "alone" / "training.html").read_text()


def test_the_journal_has_curve_pictures_and_page(evaluated) -> None:
    steps = read_steps(evaluated)
    assert [row.step for row in steps] == [1, 2, 3, 4]
    assert {"loss", "learning_rate", "grad_norm", "tokens_per_s"} <= set(steps[-1].values)
    pictures = {step: read_samples(evaluated, step) for step in (0, 2, 4)}
    assert {len(rows) for rows in pictures.values()} == {8}
    assert len({tuple((row.prompt_id, row.seed) for row in rows) for rows in pictures.values()}) == 1
    assert all(row.scores[JUDGE] is not None for rows in pictures.values() for row in rows)
    page = (evaluated / "training.html").read_text()
    assert "Hold-out judges" in page
    assert page.count('class="strip"') == 8


@pytest.mark.slow
def test_a_resumed_training_has_the_same_evaluations(work, evaluated) -> None:
    """Killed once the last step was evaluated and before its state was saved: it goes on from step 2."""
    asked = evaluated_job(work, work / "resumed", save_every=100)  # evaluations save states
    with suppress(Stop):
        fit(replace(asked, callbacks=[StopAfter(4)]))
    assert [row.step for row in read_holdout(asked.out)] == [0, 2, 4]
    assert not (asked.out / "sar_eval.json").exists()
    kept = read_json(asked.out / "best" / "sar_eval.json")["training"]["step"]
    assert kept <= 2, "the weights of step 4 may not come out the same again"
    fit(asked)
    for folder in (asked.out, asked.out / "best"):
        assert _weights(folder) == _weights(evaluated / folder.relative_to(asked.out))
    assert read_holdout(asked.out) == read_holdout(evaluated)
    for step in (0, 2, 4):
        assert read_samples(asked.out, step) == read_samples(evaluated, step)
    assert read_json(asked.out / "best" / "sar_eval.json") == read_json(
        evaluated / "best" / "sar_eval.json"
    )


def test_a_kill_between_a_state_and_its_best_loses_neither(work, tmp_path) -> None:
    """The state of step 2 has the weights that were the best."""
    asked = evaluated_job(work, tmp_path / "out", stop=2)
    with pytest.raises(Incomplete):
        fit(asked)
    assert best_step(read_holdout(asked.out)) == 2
    before = _weights(asked.out / "best")
    rmtree(asked.out / "best")
    fit(evaluated_job(work, asked.out, stop_at=2))
    assert _weights(asked.out / "best") == before
    assert f"# {asked.out.name}\n" in (asked.out / "best" / "README.md").read_text()


def test_another_sample_cannot_be_paired(work, evaluated, tmp_path) -> None:
    from sar_eval.rewards.holdout import check_sample, save_result

    def holdout(**table):
        return evaluated_job(work, tmp_path, table).watching.evaluation.holdout(32, "")

    save_result(tmp_path, read_results(evaluated / "holdout", 0)[0])
    check_sample(tmp_path, holdout(), is_first=True)
    check_sample(tmp_path, holdout(every=7, batch_size=3), is_first=False)
    with pytest.raises(BadInput, match=r"sample\.json says images_per_prompt = 1, asked for is 2"):
        check_sample(tmp_path, holdout(images_per_prompt=2), is_first=False)
    with pytest.raises(BadInput, match=r"sample\.json says prompts = .*, asked for is"):
        check_sample(tmp_path, holdout(prompts=6), is_first=False)


@pytest.mark.slow
def test_a_judge_that_fails_later_is_told_and_training_goes_on(work, tmp_path) -> None:
    """The first evaluation must work: who begins a long training is still there to mend it."""
    code = tmp_path / "fragile.py"
    code.write_text(FRAGILE)
    limit = tmp_path / "limit"
    limit.write_text("12")  # the pictures of the first evaluation
    benchmark = write_benchmark(tmp_path, "fragile", f"{code}:JUDGE", f'limit = "{limit}"')
    asked = evaluated_job(work, tmp_path / "out", {"benchmark": str(benchmark)})
    fit(asked)
    assert [row.value is None for row in read_holdout(asked.out)] == [False, True, True]
    assert read_json(asked.out / "best" / "sar_eval.json")["training"]["step"] == 0
    assert any(
        "has no score for 12 of 12 pictures at step 2" in note for note in read_head(asked.out).notes
    )
    limit.write_text("0")
    with pytest.raises(Incomplete, match=r"gave no score at all; .*score is nan"):
        fit(evaluated_job(work, tmp_path / "other", {"benchmark": str(benchmark)}))


FRAGILE = """
from pathlib import Path
from sar_eval.types import Verdict

class Fragile:
    version = "1"
    def __init__(self, device="cpu", limit=""):
        self.left = int(Path(limit).read_text())
    def __enter__(self):
        return self
    def __exit__(self, *error):
        return None
    def judge(self, items):
        for _, generation in items:
            self.left -= 1
            yield Verdict(generation.key, "fragile", "1", score=0.5 if self.left >= 0 else float("nan"))

JUDGE = Fragile
"""


def test_what_cannot_be_evaluated_is_said_before_training(work, tmp_path) -> None:
    def prepare(**table):
        with TrainingWatch(Watching(evaluation=EvaluationTable(**table)), tmp_path) as watch:
            watch.prepare(work / "tokenizer", 4)

    with pytest.raises(UnknownName, match="did you mean 'shapes'"):
        prepare(benchmark="shape")
    free = tmp_path / "free.toml"
    free.write_text('suite = "shapes.jsonl"\n')
    with pytest.raises(
        BadInput, match=r"--eval: the benchmark 'free' has no judge: name one in evaluation"
    ):
        prepare(benchmark=str(free))
    code = tmp_path / "lacking.py"
    code.write_text(LACKING)
    with pytest.raises(BadInput, match=r"judge '.*' cannot start: .*pip install .*sar-eval\[geneval\]"):
        prepare(benchmark=str(write_benchmark(tmp_path, "lacking", f"{code}:JUDGE")))


LACKING = """
from sar_eval.discover import need

class Lacking:
    version = "1"
    def __init__(self, device="cpu"):
        pass
    def __enter__(self):
        need("no_such_package", extra="geneval", what="this judge")
    def __exit__(self, *error):
        return None
    def judge(self, items):
        return iter(())

JUDGE = Lacking
"""
