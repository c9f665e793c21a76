"""Evaluation while a decoder is trained: it scores what would be written, and changes nothing else."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import TrainerCallback

from sar_eval.documents import read_json
from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput
from sar_eval.storage.training_journal import read_holdout, read_samples, read_steps
from sar_eval.train.fit import fit
from sar_eval.train.holdout import joined, read_results
from sar_eval.train.holdout_verdict import best_step
from sar_eval.train.rewards import RewardPool
from tests.decoder_trainings import job, write_benchmark, write_tokens


class Stop(Exception):
    """Interrupts a training."""


class StopAfter(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Stop


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("evaluation")
    write_tokens(root / "tokens")
    write_benchmark(root)
    return root


@pytest.fixture(scope="module")
def evaluated(work, tiny_checkpoint) -> Path:
    """A training with evaluations at the steps 0, 2 and 4."""
    said: list[str] = []
    asked = _job(work, tiny_checkpoint, "evaluated")
    fit(replace(asked, watching=replace(asked.watching, tell=said.append)))
    assert [line.partition(":")[0] for line in said] == ["step 0", "step 2", "step 4"]
    return work / "evaluated"


def _job(work, checkpoint, name, table=None, **options):
    named = {"benchmark": str(work / "tiny.toml")} | (table or {})
    return job(checkpoint, work / "tokens", work / name, named, **options)


def _weights(folder: Path) -> dict:
    return {name: tensor.tolist() for name, tensor in load_file(folder / "model.safetensors").items()}


def test_what_is_kept_as_best_draws_what_was_scored(work, tiny_checkpoint, evaluated) -> None:
    rows = read_holdout(evaluated)
    assert [row.step for row in rows] == [0, 2, 4]
    best = best_step(rows)
    about = read_json(evaluated / "best" / "sar_eval.json")
    assert about["training"] == {"by": "test", "step": best}
    holdout = _job(work, tiny_checkpoint, "x").watching.evaluation.holdout(32, "")
    with (
        RewardPool(holdout.judges) as judges,
        NativeEngine(str(evaluated / "best"), holdout.protocol) as engine,
    ):
        drawn = joined([holdout.evaluate(engine, judges, best)])
    scored = {result.step: result for result in read_results(evaluated / "holdout", 4)}
    assert drawn == scored[best]
    assert len({str(result.scores) for result in scored.values()}) == 3  # the weights moved
    assert best > 0  # towards even codes
    assert rows[-1].change is not None


def test_evaluation_changes_no_weight(work, tiny_checkpoint, evaluated) -> None:
    fit(_job(work, tiny_checkpoint, "alone", {"benchmark": ""}))
    assert _weights(work / "alone") == _weights(evaluated)
    assert not (work / "alone" / "best").exists()
    assert not (work / "alone" / "holdout").exists()
    assert [row.step for row in read_steps(work / "alone")] == [1, 2, 3, 4]
    assert "Learning rate" in (work / "alone" / "training.html").read_text()


def test_the_journal_has_curve_pictures_and_page(evaluated) -> None:
    assert set(read_steps(evaluated)[-1].values) == {"loss", "learning_rate", "grad_norm", "tokens_per_s"}
    pictures = {step: read_samples(evaluated, step) for step in (0, 2, 4)}
    assert {len(rows) for rows in pictures.values()} == {8}
    names = {tuple((row.prompt_id, row.seed) for row in rows) for rows in pictures.values()}
    assert len(names) == 1
    assert all(
        row.scores.keys() == {pictures[0][0].scores.keys().__iter__().__next__()} for row in pictures[4]
    )
    page = (evaluated / "training.html").read_text()
    assert "Hold-out judges" in page
    assert page.count('class="strip"') == 8


@pytest.mark.parametrize("killed", [3, 4])
def test_a_resumed_training_has_the_same_evaluations(work, tiny_checkpoint, evaluated, killed) -> None:
    asked = _job(work, tiny_checkpoint, f"resumed-{killed}")
    with suppress(Stop):
        fit(replace(asked, callbacks=[StopAfter(killed)]))
    fit(asked)
    again = asked.out
    assert read_holdout(again) == read_holdout(evaluated)
    assert [read_samples(again, step) for step in (0, 2, 4)] == [
        read_samples(evaluated, step) for step in (0, 2, 4)
    ]
    assert _weights(again / "best") == _weights(evaluated / "best")
    assert _weights(again) == _weights(evaluated)
    assert read_json(again / "best" / "sar_eval.json") == read_json(evaluated / "best" / "sar_eval.json")


def test_another_sample_cannot_go_on(work, tiny_checkpoint) -> None:
    with suppress(Stop):
        fit(replace(_job(work, tiny_checkpoint, "other"), callbacks=[StopAfter(3)]))
    with pytest.raises(BadInput, match=r"sample\.json says .*prompts.*asked for is"):
        fit(_job(work, tiny_checkpoint, "other", {"prompts": 6}))
    fit(_job(work, tiny_checkpoint, "other", {"every": 3}))
    assert [row.step for row in read_holdout(work / "other")] == [0, 2, 3, 4]
