"""Trackers that follow a training: all figures arrive, and one that fails does not end the training."""

from __future__ import annotations

import math
from contextlib import contextmanager

import pytest

from sar_eval.errors import BadInput, TrackerFailed
from sar_eval.stages.track_training import TrainingTrackers
from sar_eval.tracked_runs import StepLog, TrackedTraining

TRAINING = TrackedTraining("project", "name", 0, {"grpo": {"steps": 3}})


class Follower:
    """Keeps what it gets; raises at a step, or as it begins."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at, self.got, self.ended = fails_at, [], None

    @contextmanager
    def follow(self, training):
        """Begin."""
        if self.fails_at == 0:
            raise OSError("no route to //me:secret@host")

        def log(step, figures):
            if step == self.fails_at:
                raise ConnectionError("gone")
            self.got.append((step, dict(figures)))

        try:
            yield StepLog(f"{training.project}/{training.name}", log)
            self.ended = "well"
        except BaseException as error:
            self.ended = type(error).__name__
            raise


def test_all_figures_arrive_under_names_that_every_tracker_takes() -> None:
    first, second, told = Follower(), Follower(), []
    with TrainingTrackers({"a": first, "b": second}, TRAINING, told.append) as trackers:
        trackers(1, {"train/reward": 0.5, "train/loss": math.nan, "train/reward/vqa:mplug#1": 1.0})
    assert first.got == second.got == [(1, {"train/reward": 0.5, "train/reward/vqa_mplug_1": 1.0})]
    assert told == ["a: project/name", "b: project/name"]
    assert (first.ended, second.ended) == ("well", "well")


def test_one_that_fails_is_left_out_and_told_at_the_end() -> None:
    first, second, told = Follower(fails_at=2), Follower(), []
    trackers = TrainingTrackers({"a": first, "b": second}, TRAINING, told.append)
    trackers.__enter__()
    for step in (1, 2, 3):
        trackers(step, {"train/reward": 0.5})
    with pytest.raises(TrackerFailed, match="'a' failed: ConnectionError: gone") as raised:
        trackers.__exit__(None, None, None)
    assert [step for step, _ in first.got] == [1]
    assert [step for step, _ in second.got] == [1, 2, 3]
    assert told[2:] == [f"warning: {raised.value}"]
    assert raised.value.exit_code == 3


def test_one_that_cannot_begin_ends_the_command_and_the_others_are_ended() -> None:
    first, second = Follower(), Follower(fails_at=0)
    with pytest.raises(TrackerFailed, match=r"no route to //\[key\]@host"):
        TrainingTrackers({"a": first, "b": second}, TRAINING, print).__enter__()
    assert first.ended == "TrackerFailed"


def test_a_training_that_fails_ends_them_with_its_own_error() -> None:
    first, second = Follower(fails_at=1), Follower()
    trackers = TrainingTrackers({"a": first, "b": second}, TRAINING, print)

    def train() -> None:
        with trackers:
            trackers(1, {"train/reward": 0.5})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert (first.ended, second.ended) == ("ZeroDivisionError", "ZeroDivisionError")


def test_a_tracker_of_finished_runs_alone_is_refused() -> None:
    class Finished:
        def log(self, run):
            return "somewhere"

    with pytest.raises(BadInput, match="'a' cannot follow a training"):
        TrainingTrackers({"a": Finished()}, TRAINING, print)
