"""`run --sequential`: what it refuses, and how its answers are put."""

from dataclasses import replace

import pytest
from command_line import Run, refused

from sar_eval.comparisons import Round
from sar_eval.report.gate_words import round_words

RUN = ("run", "shapes", "--ckpt", "demo:sft", "--sequential")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "name it by --baseline"),
        (("--baseline", "b", "--shard", "1/2"), "--shard does not go with --sequential"),
        (("--baseline", "b", "--floor", "overall=0.5"), "--floor does not go with --sequential"),
        (("--baseline", "b", "--measure", "all"), "--measure does not go with --sequential"),
        (("--baseline", "b", "--allow-missing", "0.1"), "--allow-missing does not go with --sequential"),
        (("--baseline", "b", "--partial"), "--partial does not go with --sequential"),
        (("--baseline", "b.parquet"), "there is no 'b.parquet'"),
    ],
)
def test_what_does_not_go_with_rounds(in_this_process: Run, words: tuple[str, ...], why: str) -> None:
    refused(in_this_process([*RUN, *words]), why)


def test_the_line_of_a_round() -> None:
    bounds = {"lower": -8.04, "upper": -2.11, "low": -8.5, "high": -1.9}
    known = Round(
        measure="overall", scale=100, prompts=111, images=444, of=2212, figure=70, baseline=75.12,
        value=-5.12, **bounds, decision="open",
    )  # fmt: skip
    line = "444 of 2,212 images: overall -5.12, at least -8.04 and at most -2.11: "
    assert round_words(known) == f"{line}go on"
    assert round_words(replace(known, decision="fail")) == f"{line}fail"
    assert round_words(replace(known, images=2212)).endswith(": open")
