"""Parsing of yes-or-no answers: DPG's exact rule, and the rule for chat models."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sar_eval.errors import BadInput
from sar_eval.suites.dpg.yes_no import (
    DEFAULT_TEMPLATE,
    MAX_QUOTED,
    chat_answer,
    check_template,
    fill_template,
    read_chat,
    read_exact,
    soft_score,
    template_digest,
)

YES = [
    "yes",
    "Yes",
    "YES!!!",
    " yes\n",
    "Yes.",
    "Yes。",
    "yes, there are",
    "Yes, there is no doubt.",
    "Yes, there are dogs and no cats.",
    "Yes there is",
    "**Yes**",
    "**Yes**, the dog is brown.",
    "- Yes",
    "> `yes`",
    '"Yes"',
    "The answer is yes",
    "The answer is: Yes.",
    "The answer to the question is **yes**.",
    "Answer: yes",
    "My answer would be yes.",
    "I would say yes.",
    "There is a dog, yes.",
    "Is there a dog? Yes.",
    "The dog stands on the left.\n\nYes",
    "So yes.",
    r"\boxed{yes}",
    '{"answer": "yes"}',
    '{"answer": "Yes.", "reason": "no, not hidden"}',
    '{"answer": true}',
    '```json\n{"answer": "yes"}\n```',
    '{"answer": "yes"',
    "<think>No dog at first sight. No.</think>\nYes",
    "is there no dog? no... </think> yes",
    "Yes. Yes, it is.",
]
NO = [
    "no",
    "No.",
    "NO",
    "No, there is no dog.",
    "No, no dog is there.",
    "No dog is visible.",
    "No there isn't",
    "**No**",
    "The answer is no.",
    "answer: **No**",
    '{"answer": "no"}',
    '{"answer": false}',
    '```\n{"answer": "no"}\n```',
    "<think>Yes? yes</think> no",
    "I'd say no",
    "No, I can't see one.",
    "Actually, no.",
]
NEITHER = [
    "",
    " ",
    "...",
    "Yes and no",
    "yes/no",
    "yes or no",
    "No, but yes in a way",
    "No, but yes…",
    "No. Wait, yes.",
    "Yes... actually no",
    "yes, no",
    "No dog on the left. So the answer is yes.",
    "Yes. The answer is no.",
    "not sure",
    "I'm not sure.",
    "No doubt about it",
    "No idea.",
    "maybe yes",
    "I can't answer yes or no.",
    "I would not say yes",
    "The answer isn't yes",
    "yesterday",
    "None",
    "Nope",
    "know",
    "There is a dog.",
    "a dog",
    "2",
    "true",
    "<think>yes",
    '{"answer": null}',
    '{"answer": "maybe"}',
    '{"answer": ["yes"], "other": "no"}',
    '{"result": "a dog"}',
    "[1, 2]",
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [(t, True) for t in YES] + [(t, False) for t in NO] + [(t, None) for t in NEITHER],
)
def test_texts_of_chat_models(text: str, expected: bool | None) -> None:
    assert read_chat(text) is expected
    answer = chat_answer(text, 0.5)
    assert (answer.text, answer.yes, answer.soft) == (text, expected, 0.5)
    assert (answer.error is not None) == (expected is None)


def test_the_error_quotes_the_text_and_shortens_a_long_one() -> None:
    assert chat_answer("a dog").error == "neither yes nor no: 'a dog'"
    answer = chat_answer("dog " * 1000)
    assert len(answer.error or "") < MAX_QUOTED + 40
    assert len(answer.text) == 4000


@pytest.mark.parametrize(
    ("text", "counts"),
    [("yes", True)] + [(t, False) for t in ("Yes", "yes ", " yes", "yes.", "no", "", "yes yes", "YES")],
)
def test_only_the_exact_word_counts_for_dpg(text: str, counts: bool) -> None:
    assert read_exact(text) is counts


@given(st.text())
def test_any_text_is_read_without_an_error_and_the_same_in_capitals(text: str) -> None:
    assert read_chat(text) in (True, False, None)
    if text.isascii():
        assert read_chat(text) is read_chat(text.upper())


@given(st.text("xyz ,.!\n"), st.sampled_from(["yes", "no"]))
def test_an_answer_and_its_contrary_are_no_answer(between: str, first: str) -> None:
    other = {"yes": "no", "no": "yes"}[first]
    assert read_chat(f"{first}.{between}.{first}.") is (first == "yes")
    assert read_chat(f"{first}.{between}.{other}.") is None


def test_soft_scores() -> None:
    assert soft_score(0.3, 0.1) == 0.75
    assert soft_score(0.0, 0.2) == 0.0
    assert soft_score(0.0, 0.0) is None


def test_templates_insert_any_question_verbatim() -> None:
    assert (
        fill_template(DEFAULT_TEMPLATE, "Is {x} 100% {question}?")
        == "Is {x} 100% {question}? Answer with yes or no."
    )
    assert template_digest(DEFAULT_TEMPLATE) != template_digest("{question}")
    check_template("{question}", "answerer 'x'")
    for wrong in ("no place", "", 3, None):
        with pytest.raises(BadInput, match=r"a text with \{question\} in it"):
            check_template(wrong, "answerer 'x'")
