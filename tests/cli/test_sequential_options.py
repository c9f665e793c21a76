"""`run --sequential`: what it refuses, and how its answers are put."""

import pytest
from command_line import Run, refused

from sar_eval.cli.gate_options import HowToGate
from sar_eval.cli.sequential import Question
from sar_eval.errors import BadInput
from sar_eval.stats.sequential import Decision, Look

RUN = ("run", "shapes", "--ckpt", "demo:sft", "--sequential")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "name it by --baseline"),
        (("--baseline", "b", "--shard", "1/2"), "--shard does not go with --sequential"),
        (("--baseline", "b", "--floor", "overall=0.5"), "--floor does not go with --sequential"),
        (("--baseline", "b", "--measure", "all"), "--measure does not go with --sequential"),
        (("--baseline", "b", "--allow-missing", "0.1"), "--allow-missing does not go with --sequential"),
        (("--baseline", "b.parquet"), "there is no 'b.parquet'"),
    ],
)
def test_what_does_not_go_with_rounds(in_this_process: Run, words: tuple[str, ...], why: str) -> None:
    refused(in_this_process([*RUN, *words]), why)


def _question(scale: int = 1, **options: object) -> Question:
    return Question.of(HowToGate(**options), "overall", scale, 4, 553)


def _look(decision: Decision) -> Look:
    return Look(111, -0.0512, -0.0804, -0.0211, decision)


def test_the_line_of_a_round() -> None:
    line = _question().line(_look("open"))
    assert line == ("444 of 2,212 images: overall -0.051, 95 % confidence sequence [-0.080, -0.021]: go on")
    assert "overall -5.12, 95 % confidence sequence [-8.04, -2.11]: fail" in _question(100).line(
        _look("fail")
    )


@pytest.mark.parametrize(
    ("decision", "fail_if", "passed", "words"),
    [
        ("pass", "not-shown", True, "a loss of 0.01 or more from the baseline is excluded, after 444 of"),
        ("fail", "worse", False, "a loss of more than 0.01 from the baseline is shown, after 444 of 2,212"),
        ("open", "not-shown", False, "neither shown nor excluded, and it had to be excluded"),
        ("open", "worse", True, "neither shown nor excluded, and it had to be shown"),
    ],
)
def test_the_question_decides_what_is_undecided(
    decision: Decision, fail_if: str, passed: bool, words: str
) -> None:
    question, look = _question(fail_if=fail_if), _look(decision)
    assert question.passed(look) is passed
    assert words in question.statement(look)
    shown = question.to_json([look])
    assert (shown["decision"], shown["passed"], shown["fail_if"]) == (decision, passed, fail_if)


def test_the_tolerance_is_in_the_benchmarks_unit() -> None:
    assert (_question().loss, _question(100).loss, _question(100, tolerance=2).loss) == (0.01, 0.01, 0.02)
    assert _question(100).to_json([_look("open")])["rounds"][0]["difference"] == pytest.approx(-5.12)
    with pytest.raises(BadInput, match="--tolerance is 1: nothing loses more than 1"):
        _question(tolerance=1.0)
