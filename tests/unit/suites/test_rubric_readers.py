"""What rubrics' readers read, and what they refuse."""

import re
import time

import pytest

from sar_eval.errors import BadInput
from sar_eval.suites.rubric.readers import (
    MAX_READ,
    UnreadReply,
    compile_pattern,
    read_list,
    read_numbers,
    read_text,
    read_yes_no,
    without_thinking,
)
from sar_eval.suites.rubric.rules import make_rule, share_of_words
from sar_eval.suites.rubric.template import fill, holes
from sar_eval.types import Prompt

SCORE = {"score": compile_pattern(r"score\s*:\s*(-?[\d.]+)", "numbers.score")}


@pytest.mark.parametrize(
    ("reply", "rest"),
    [
        ("<think>1</think> 2 <THINK>3\n</THINK>\r\n4", "2 \n4"),
        ("thought, </think>4", "4"),
        ("4 <think>cut of", "4"),
        ("<think>a<think>b</think>c</think>4", "4"),
    ],
)
def test_thinking_is_not_read(reply: str, rest: str) -> None:
    assert without_thinking(reply) == rest


@pytest.mark.parametrize("reply", ["", " \n", "<think>all of it", "<think>x</think>", "x" * (MAX_READ + 1)])
def test_a_reply_without_an_answer_or_too_long_is_not_read(reply: str) -> None:
    with pytest.raises(UnreadReply):
        without_thinking(reply)


def test_many_open_thoughts_take_no_time() -> None:
    began = time.monotonic()
    with pytest.raises(UnreadReply):
        without_thinking("<think>" * 30_000)
    assert time.monotonic() - began < 1


def test_the_first_the_last_or_the_same_number() -> None:
    reply = "Score: 2, no: score: 3.1.2"
    assert read_numbers(reply, SCORE, "first") == {"score": 2}
    with pytest.raises(UnreadReply, match="which is no number"):
        read_numbers(reply, SCORE, "last")
    assert read_numbers("Score: 2, no: score: 3", SCORE, "last") == {"score": 3}
    with pytest.raises(UnreadReply, match="told as 2, 3: different"):
        read_numbers("Score: 2, no: score: 3", SCORE)
    assert read_numbers("Score: 2, that is score: 2.0", SCORE) == {"score": 2}
    assert read_numbers("7", {"n": re.compile(r"\d")}) == {"n": 7}


def test_bare_lines_count_only_where_no_name_is_found() -> None:
    patterns = {name: compile_pattern(rf"{name}: (\d)", name) for name in ("a", "b")}
    bare = re.compile("[0-2]")
    assert read_numbers(" 2\nso\n1 ", patterns, bare=bare) == {"a": 2, "b": 1}
    for reply in ("2\n1\n0", "2", "a: 1\n2", "3\n4"):
        with pytest.raises(UnreadReply):
            read_numbers(reply, patterns, bare=bare)


@pytest.mark.parametrize(
    ("reply", "answers"),
    [
        ("yes\nno\nyes", [True, False, True]),
        ("1. Yes\n2. **No**, it is not\n\n3) yes.", [True, False, True]),
        ("2. no\n1. yes\n3. yes", [True, False, True]),
        ("No. 1: yes\nNo. 2: no\nNo. 3: yes", [True, False, True]),
        ("Here they are:\n- Yes\n- no\n- YES", [True, False, True]),
        ("No problem, here:\nQ1: yes\nQ2: no\nQ3: yes", [True, False, True]),
        ("Question 1: Answer: yes\nQuestion 2: no\nQuestion 3: Yes", [True, False, True]),
        ("<think>no\nno\nno</think>yes\nno one is there\nyes", [True, False, True]),
    ],
)
def test_answers_by_line_or_by_number(reply: str, answers: list[bool]) -> None:
    assert read_yes_no(reply, 3) == answers


@pytest.mark.parametrize(
    "reply",
    [
        "yes\nno",
        "yes\nno\nyes\nno",
        "1. yes\n2. no\n2. yes",
        "2. yes\n3. no\n4. yes",
        "no. 1 is fine\nyes\nno",
    ],
)
def test_misaligned_answers_are_refused(reply: str) -> None:
    with pytest.raises(UnreadReply):
        read_yes_no(reply, 3)


def test_one_answer_may_be_a_sentence() -> None:
    assert read_yes_no("The answer is no.", 1) == [False]
    with pytest.raises(UnreadReply):
        read_yes_no("The answer is no.\nThe answer is yes.", 1)


def test_the_last_list_counts() -> None:
    reply = "<score>[0, 0]</score> or rather <score>\n[1, True]\n</score>"
    assert read_list(reply, 2) == [1, 1]
    assert read_list("<analysis>it's</analysis><score>[true, 0.5]</score>", 2) == [1, 0.5]


@pytest.mark.parametrize(
    "inner", ["[1]", "[1, 1, 1]", '["1", 1]', "[1, None]", "1", "{1, 1}", "[1, 1", "[NaN, 1]"]
)
def test_what_is_no_list_of_so_many_numbers(inner: str) -> None:
    with pytest.raises(UnreadReply):
        read_list(f"<score>{inner}</score>", 2)


def test_phrases_for_nothing_are_no_text() -> None:
    assert read_text("no text recognized", ["No text recognized"]) == ""
    assert read_text("STOP addCriterion.", ["addCriterion"]) == "STOP"


@pytest.mark.parametrize("pattern", ["(a+)+b", r"(?:\w+\s*)*x", "(a{2,}){3,}", r"(\s*){2,9}x", "(a+?)+b"])
def test_patterns_that_may_take_for_ever_are_refused(pattern: str) -> None:
    with pytest.raises(BadInput, match=r"numbers\.a of judge 'rubric'.*may take for ever"):
        compile_pattern(pattern, "numbers.a of judge 'rubric'")


@pytest.mark.parametrize("pattern", ["(a++)+b", r"(\*)+", r"(a\+)*", "(?:ab?)*c", r"(\d+)"])
def test_usual_patterns_are_taken(pattern: str) -> None:
    assert compile_pattern(pattern, "p").pattern == pattern


@pytest.mark.parametrize("pattern", ["(", "", 3, "a{99999999999}", "(?P<x>a)(?P<x>b)"])
def test_a_broken_pattern_names_its_key(pattern: object) -> None:
    with pytest.raises(BadInput, match=r"^numbers\.a of judge 'rubric'"):
        compile_pattern(pattern, "numbers.a of judge 'rubric'")


def test_holes_are_filled_once() -> None:
    prompt = Prompt(
        "p", "a {b}", checks={"b": " x ", "questions": [{"id": 1, "text": "Is it? "}, "And?"], "n": 2}
    )
    assert fill('{prompt}|{b}|{questions}|{n}|{{b}}|{"a": 1}', prompt) == (
        'a {b}| x |Is it?\nAnd?|2|{b}|{"a": 1}'
    )
    assert holes("{prompt} {b} {{c}} {b}") == ("prompt", "b")
    for template in ("{c}", "{flag}"):
        with pytest.raises(BadInput, match="prompt 'p'"):
            fill(template, Prompt("p", "", checks={"flag": {"x": 1}}))


def test_a_rule_scores_what_it_reads() -> None:
    prompt = Prompt("p", "", checks={"questions": ["a", "b"], "words": ["Open", "now"]})
    table = {"a": r"a=(\d)", "b": r"b=(\d)"}
    rule = make_rule({"numbers": table, "weights": {"a": 0.7, "b": 0.3}, "divisor": 2}, "judge")
    assert rule.score(rule.read("a=2 b=1", prompt), prompt) == pytest.approx(0.85)
    assert make_rule({"numbers": table, "score": "b"}, "judge").score({"a": 2, "b": 1}, prompt) == 1
    limited = make_rule({"numbers": table, "range": [0, 2]}, "judge")
    with pytest.raises(UnreadReply, match="a is 9, which is not in 0 to 2"):
        limited.read("a=9 b=1", prompt)
    yes = make_rule({"reader": "yes_no"}, "judge")
    assert yes.score(yes.read("yes\nno", prompt), prompt) == 0.5
    listed = make_rule({"reader": "list", "divisor": 5}, "judge")
    assert listed.score(listed.read("<score>[5, 4]</score>", prompt), prompt) == pytest.approx(0.9)
    text = make_rule({"reader": "text", "against": "words"}, "judge")
    assert text.score(text.read("OPEN!", prompt), prompt) == 0.5
    assert share_of_words("\u4f60\u597d \u4f60", "\u4f60 \u597d") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reader": "verse"}, "reader 'verse' of judge: numbers, yes_no, list, text"),
        ({}, "needs numbers"),
        ({"reader": "yes_no", "tag": "x"}, "judge with reader 'yes_no' has no option 'tag'"),
        ({"numbers": {"a": "("}}, r"numbers\.a of judge: '\(' is no regular expression"),
        ({"numbers": {"a": "1"}, "take": "best"}, "take 'best' of judge: first, last, same"),
        ({"numbers": {"a": "1"}, "score": "b"}, "score 'b' of judge: a"),
        ({"numbers": {"a": "1"}, "weights": {"b": 1}}, r"weights\.b of judge: the numbers are a"),
        ({"numbers": {"a": "1"}, "weights": {"a": "1"}}, r"weights\.a '1' of judge: a number"),
        ({"numbers": {"a": "1"}, "weights": {"a": 1}, "score": "a"}, "either score or a table of weights"),
        ({"numbers": {"a": "1"}, "divisor": 0}, "divisor 0 of judge: a number above 0"),
        ({"numbers": {"a": "1"}, "range": [2, 1]}, "the least value comes first"),
        ({"reader": "list", "items": "a b"}, "items 'a b' of judge"),
        ({"reader": "text"}, "against None of judge"),
        ({"reader": "text", "against": "t", "drop": "x"}, "drop 'x' of judge: a list of texts"),
    ],
)
def test_an_option_that_cannot_be_is_named(options: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make_rule(options, "judge")


def test_a_share_of_answers_is_against_what_is_wanted() -> None:
    rule = make_rule({"reader": "yes_no", "against": "answers"}, "judge")
    checks = {"questions": ["a?", "b?", "c?"], "answers": ["yes", " No"]}
    prompt = Prompt("p", "text", checks=checks)
    assert rule.score(rule.read("yes\nyes\nno", prompt), prompt) == 0.5
    assert rule.score(rule.read("yes\nno\nno", prompt), prompt) == 1
    for wanted in (None, [], ["maybe"], "yes"):
        broken = Prompt("p", "text", checks={**checks, "answers": wanted})
        with pytest.raises(BadInput, match=r"prompt 'p': its checks have no list 'answers' of yes and no"):
            rule.score({"answers": [True, True, True]}, broken)
