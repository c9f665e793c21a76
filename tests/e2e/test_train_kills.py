"""kill -9 at random moments of a training: resumed, it ends with the weights of an undisturbed one."""

import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest
import torch

from sar_eval.train.fit import fit
from tests.launched_training import job, losses, make_data, weights

KILLS = int(os.environ.get("SAR_EVAL_KILLS", "3"))
LONG = {"steps": 40, "save_every": 1}  # so that many kills fall into the writing of a state
pytestmark = pytest.mark.slow


def _train(data: Path, out: Path) -> None:
    torch.set_num_threads(1)
    fit(job(data, out, **LONG))


def test_a_training_that_is_killed_again_and_again_ends_with_the_same_weights(tmp_path, one_thread) -> None:
    """A training that ends before it was killed often enough is compared, and another is begun."""
    data, whole = tmp_path / "data", tmp_path / "whole"
    make_data(data)
    started = time.monotonic()
    _train(data, whole)
    span, moments, killed, begun = time.monotonic() - started, random.Random(0), 0, 0
    while killed < KILLS:
        out, begun = tmp_path / f"out-{begun}", begun + 1
        while killed < KILLS and not (out / "sar_eval.json").exists():
            killed += _killed_after(moments.uniform(0, 2 * span / KILLS), data, out)
        if not (out / "sar_eval.json").exists():
            _train(data, out)
        _check_equal(out, whole)


def _killed_after(seconds: float, data: Path, out: Path) -> bool:
    """Whether it still trained when it was killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.launched_training"])
    process = context.Process(target=_train, args=(data, out))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    assert process.exitcode in (0, -9)
    return process.exitcode == -9


def _check_equal(out: Path, whole: Path) -> None:
    assert losses(out) == losses(whole)
    first, second = weights(out), weights(whole)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert not (out / "state").exists()
