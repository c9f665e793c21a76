"""How far a training is: the time left, and sentences that stay."""

from pathlib import Path

import pytest

from sar_eval.cli.train_progress import TimeLeft, showing
from sar_eval.errors import Incomplete


def test_the_time_left_is_of_this_calls_speed() -> None:
    left = TimeLeft()
    assert left(500, 1000, 100.0) == ""  # resumed at 500: nothing is known yet
    assert left(600, 1000, 150.0) == "  3 min 20 s left"
    assert left(750, 1000, 300.0) == "  3 min 20 s left"
    assert left(1000, 1000, 500.0) == ""
    assert TimeLeft()(3, None, 1.0) == ""


def test_lines_tell_of_evaluations_at_once_and_escape_what_is_foreign(capfd) -> None:
    with showing("pretrain", Path("out")) as show:
        show(20, 100, 3.5)
        show(40, 100, 3.25)  # within 20 seconds of the line before
        show.note("step 40: shapes\x1b[2J 0.250")
        show(100, 100, 2.0)
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "pretrain: 20/100  loss 3.5000",
        "pretrain: step 40: shapes\\x1b[2J 0.250",
        "pretrain: 100/100  loss 2.0000",
    ]


def test_an_interrupted_command_says_how_to_go_on() -> None:
    with pytest.raises(Incomplete, match="run the same command again to finish out"), showing("sft", "out"):
        raise KeyboardInterrupt
