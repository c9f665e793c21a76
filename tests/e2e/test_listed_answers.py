"""The answerer `server` with questions that list their answers: top tokens, floor, and refusals."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from fake_chat_server import FakeChatServer, pixels, serving

from sar_eval.answerers.server import ServerAnswerer, listed_masses
from sar_eval.answers import Asked
from sar_eval.errors import BadInput
from sar_eval.images.files import encode_png
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.suites.source import to_lines
from sar_eval.types import Answer, Prompt

YES, NO = ("Yes", "yes", " yes", " Yes"), ("No", "no", " no", " No")


@pytest.fixture
def chat():
    with serving() as server:
        yield server


def ask(server: FakeChatServer, *asked: Asked, **options: Any) -> list[Answer]:
    options = {"url": server.url, "model": "judge-7b", "retries": 0, "prompt": "{question}", **options}
    with ServerAnswerer(**options) as answerer:
        [answers] = answerer.ask([(pixels("red"), asked)])
    return list(answers)


def test_spellings_are_summed_as_they_stand_and_the_floor_is_said(chat: FakeChatServer) -> None:
    """The server names Yes 0.5, " no" 0.2, yes 0.1, The 0.05 for a red image."""
    right, wrong, plain = ask(chat, Asked("red", YES, NO), Asked("blue", YES, NO), Asked("red"))
    assert right.yes is True
    assert right.listed.mass == right.listed.distinct == pytest.approx(0.6)
    assert right.listed.against == pytest.approx(0.2)
    assert (right.listed.floor, right.listed.unlisted) == (pytest.approx(0.05), 2)
    assert (wrong.yes, wrong.listed.distinct) == (False, pytest.approx(0.2))
    assert plain.listed is None
    assert [body["max_tokens"] for body in sorted(chat.requests, key=str)].count(1) == 2
    assert plain.yes is True


def test_a_spelling_that_is_listed_twice_counts_twice_in_the_official_sum() -> None:
    listed = listed_masses({"4": 0.5, " ": 0.3}, Asked("how many", ("4", "4", " 4", " 4"), ("4", "5")))
    assert (listed.mass, listed.distinct, listed.against, listed.unlisted) == (1.0, 0.5, 0.0, 1)


def test_a_text_that_says_neither_yes_nor_no_is_an_answer(chat: FakeChatServer) -> None:
    [answer] = ask(chat, Asked("nonsense", ("four", "4")))
    assert answer.error == "the response has no first-token probabilities, which the question needs"
    [count] = ask(chat, Asked("red", ("four", "4")))
    assert (count.error, count.yes, count.listed.distinct, count.listed.unlisted) == (None, False, 0.0, 2)


def test_a_server_without_probabilities_gives_an_error_and_not_a_guess() -> None:
    with serving(logprobs=False) as server:
        [listed, plain] = ask(server, Asked("red", YES), Asked("red"), top_logprobs=100, concurrency=1)
    assert "logprobs are not supported" in listed.error
    assert "100 were requested: start vLLM with --max-logprobs" in listed.error
    assert plain.yes is True


def test_the_number_of_top_tokens_is_asked_for_and_in_the_version(chat: FakeChatServer) -> None:
    ask(chat, Asked("red", YES), top_logprobs=1000)
    assert chat.requests[-1]["top_logprobs"] == 1000
    usual = {"url": chat.url, "model": "judge-7b"}
    assert ServerAnswerer(**usual).version == ServerAnswerer(**usual, top_logprobs=20).version
    assert ServerAnswerer(**usual).version != ServerAnswerer(**usual, top_logprobs=1000).version
    with pytest.raises(BadInput, match="top_logprobs"):
        ServerAnswerer(**usual, top_logprobs=0)


@pytest.mark.parametrize("odd", [None, {}, [{"token": 1}], [{"token": "Yes", "logprob": math.nan}], ["x"]])
def test_odd_probabilities_are_none(odd: Any) -> None:
    from sar_eval.answerers.server import first_token_probabilities

    assert first_token_probabilities(odd) == {}


@pytest.mark.slow
def test_paircomp_is_scored_from_the_command_line(chat: FakeChatServer, sar_eval, tmp_path: Path) -> None:
    """One pair, two pictures of each caption; the server prefers yes where a picture is of the colour."""
    prompts = []
    for which, color in enumerate(("red", "blue")):
        question = Question(1, f"{color}?", expect=("yes", "Yes"), against=("no", "No"), is_ratio=True)
        checks = {"pair": "0", "category": "color", **write_questions([question])}
        prompts.append(Prompt(f"0_{which}", f"a {color} box", "color", checks))
    (tmp_path / "paircomp.jsonl").write_bytes(to_lines(prompts))
    for name, color in (("0_0_0", "red"), ("0_0_1", "blue"), ("0_1_0", "blue"), ("0_1_1", "blue")):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"{name}.png").write_bytes(encode_png(pixels(color)))
    options = [f"--judge-option=url={chat.url}", "--judge-option=model=judge-7b"]
    places = [
        f"--images={tmp_path / 'images'}",
        f"--suite={tmp_path / 'paircomp.jsonl'}",
        f"--out={tmp_path / 'run'}",
    ]
    sar_eval("score", "paircomp", *places, *options)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    figures = {metric["name"]: metric["value"] for metric in summary["metrics"]}
    # The right colour: Yes 0.5 and yes 0.1, " no" is no piece. Another one: no 0.1 and No 0.5.
    assert figures["overall"] == pytest.approx(3 / 4)
    assert figures["geometric"] == 0.0
    floor = 0.05
    most = 2 * floor / (2 * floor + 0.6)
    assert figures["floor/geometric_at_most"] == pytest.approx(most ** (1 / 4))
    assert not any(name.startswith("reference/") for name in figures)  # 550 pairs, or none
