"""The language of filters and ranks: what it takes and refuses, and Kleene's logic against brute force."""

import itertools
import keyword
import string

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sar_eval.errors import BadInput, UnknownName
from sar_eval.storage.set_rows import Value
from sar_eval.synthesis.expression import parse_filter, parse_rank

NAMES = "abcde"
LEVEL = {False: 0, None: 1, True: 2}
ASKED = {"yes": Value(1.0, True), "no": Value(0.0, False), "missing": Value(error="lost")}


def read(text):
    return parse_filter(text, str)


@st.composite
def filters(draw, names=NAMES, once=False):
    """A filter's text with the same condition as a function of levels 0, 1, 2 (False, missing, True)."""
    names = list(names)

    def atom():
        name = draw(st.sampled_from(names))
        if once:
            names.remove(name)
        text = draw(st.sampled_from(["{}.passed", "{} > 0.5", "0.25 < {}.score", "{} == 1", "1 - {} <= 0"]))
        return text.format(name), lambda levels: levels[name]

    def condition(depth):
        kind = draw(st.sampled_from(["atom", "and", "or", "not"])) if depth and len(names) > 1 else "atom"
        if kind == "atom" or not names:
            return atom()
        if kind == "not":
            text, of = condition(depth - 1)
            return f"not ({text})", lambda levels: 2 - of(levels)
        parts = [condition(depth - 1)]
        while len(parts) < 3 and names and (len(parts) < 2 or draw(st.booleans())):
            parts.append(condition(depth - 1))
        pick = min if kind == "and" else max
        text = f" {kind} ".join(f"({part})" for part, _ in parts)
        return text, lambda levels: pick(of(levels) for _, of in parts)

    return condition(3)


def levels_of(values):
    return {name: LEVEL[value.passed] for name, value in values.items()}


@settings(max_examples=60)
@given(filters(), st.data())
def test_outcomes_are_those_of_kleenes_logic(made, data):
    text, of = made
    values = {name: ASKED[data.draw(st.sampled_from(list(ASKED)))] for name in NAMES}
    assert LEVEL[read(text).evaluate(values)] == of(levels_of(values))


@st.composite
def half_asked(draw, once):
    text, of = draw(filters(once=once))
    asked = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(list(ASKED.values()))))
    return text, of, asked


def outcomes(of, asked, open_names):
    """The outcome for each completion, as a list of (levels, outcome)."""
    for completion in itertools.product(range(3), repeat=len(open_names)):
        levels = levels_of(asked) | dict(zip(open_names, completion, strict=True))
        yield completion, of(levels)


@settings(max_examples=60)
@given(half_asked(once=True))
def test_asked_is_exactly_what_can_change_the_outcome(case):
    """Where each name stands once, so that no two conditions depend on each other."""
    text, of, asked = case
    condition = read(text)
    open_names = [name for name in condition.names if name not in asked]
    table = dict(outcomes(of, asked, open_names))
    matters = {
        name
        for place, name in enumerate(open_names)
        if any(
            table[key] != table[(*key[:place], level, *key[place + 1 :])]
            for key in table
            for level in range(3)
        )
    }
    assert condition.needs(asked) == matters


@settings(max_examples=60)
@given(half_asked(once=False))
def test_what_is_not_asked_changes_nothing(case):
    """However often names stand there: asking one by one ends at the outcome of knowing everything."""
    text, of, asked = case
    condition = read(text)
    open_names = [
        name for name in condition.names if name not in asked and name not in condition.needs(asked)
    ]
    rest = [name for name in condition.names if name not in asked and name in condition.needs(asked)]
    for fixed in itertools.product(range(3), repeat=len(rest)):
        known = dict(zip(rest, fixed, strict=True))
        results = {
            of(levels_of(asked) | known | dict(zip(open_names, o, strict=True)))
            for o in itertools.product(range(3), repeat=len(open_names))
        }
        assert len(results) == 1


PIECES = [
    *"ab()<>=!+-*/. '\",:_[]{}\\#@\n\x00é1",
    *(
        "and ",
        "or ",
        "not ",
        "lambda ",
        "__import__",
        "if ",
        "else ",
        "in ",
        "is ",
        "1e9",
        "0x1",
        ".passed",
    ),
]


@settings(max_examples=200)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_any_text_is_read_or_refused_and_never_run(text):
    """What is read has conditions of numbers alone: it evaluates without a name of Python's."""
    try:
        found = read(text)
    except BadInput:
        return
    assert found.evaluate({name: Value(1.0, True) for name in found.names}) in (True, False, None)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch here')",
        "a.__class__ > 1",
        "(lambda: 1)() > 0",
        "[1][0] > 0",
        "a if b else a",
        "a := 1",
        "a > 1; b",
        "f'{a}' > 1",
        "a ** 9 ** 9 > 1",
        "a // 1 > 0",
        "a % 2 > 0",
        "a in b",
        "a is b",
        "await a",
        "a > 1j",
        "a > True",
        "True > a",
        "a.passed > 0",
        "a.error",
        "a and b > 1",
        "a",
        "1",
        "not a",
        "a > 1e999",
        "a > " + 400 * "9",
        "a = 1",
        "a > 1 # and b",
        "a > 1)",
        "a > 1) or (b > 1",
        "((((a > 1)",
        60 * "not " + "a.passed",
        99 * "(" + "a" + 99 * ")" + ">" + "-" * 70 + "a",
        "a > " + "+".join(60 * ["a"]),
        "a > 1 and\x00 b > 1",
        "ä > 1",
        "'' > 1",
        "'a' 'b' > 1",
        5000 * " " + "a > 1",
        3000 * "-" + "a > 1",
    ],
)
def test_what_is_no_filter_is_refused(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"filter"):
        read(text)
    assert not list(tmp_path.iterdir())


def test_the_fault_is_marked_under_the_text():
    with pytest.raises(UnknownName) as found:
        parse_filter("shapes.passed and hsp > 0.27")
    assert str(found.value).splitlines() == [
        "filter: unknown judge or scorer 'hsp'; did you mean 'hps'?",
        "  shapes.passed and hsp > 0.27",
        "                    ^^^",
    ]
    with pytest.raises(BadInput) as found:
        read(f"{' and '.join(30 * ['a > 1'])} and b && c and {' and '.join(30 * ['a > 1'])}")
    first, shown, marks = str(found.value).splitlines()
    assert "write `and`" in first
    assert shown[marks.index("^")] == "&"
    assert shown.strip().startswith("...")
    assert shown.endswith("...")


def test_names_are_written_as_they_are_listed():
    text = "shapes-soft > 0.5 and shapes_soft.score < 1 and clip:vit-h>0.2 and hps:v2.1.score - 1 > 0"
    assert parse_filter(text).names == ("shapes-soft", "clip:vit-h", "hps:v2.1")
    found = parse_filter("'my folder/ours.py:SCORER' > 3")
    assert found.sources == {"ours": "my folder/ours.py:SCORER"}
    assert found.evaluate({"ours": Value(4.0)})
    with pytest.raises(UnknownName, match="put spaces round a minus"):
        parse_filter("hps-aesthetic > 0")
    with pytest.raises(BadInput, match="rename one of the files"):
        parse_filter("'a/x.py:SCORER' > 'b/x.py:SCORER'")


def test_clauses_are_what_the_outermost_and_joins():
    found = read("  a > 1 and ( b.passed or\n c > 2) and (not d.passed and 0 < e < 1)")
    assert [clause.text for clause in found.clauses] == [
        "a > 1",
        "b.passed or c > 2",
        "not d.passed",
        "0 < e < 1",
    ]
    assert [clause.names for clause in found.clauses] == [("a",), ("b", "c"), ("d",), ("e",)]
    assert read(" \n").clauses == ()
    assert read("").evaluate({}) is True


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None])
def test_what_is_no_number_is_missing(score):
    values = {"a": Value(score), "b": Value(1.0)}
    assert read("a > 0").evaluate(values) is None
    assert read("a > 0 or b > 0").evaluate(values) is True
    assert read("a > 0 and b > 1").evaluate(values) is False
    assert read("1 / a < 1").evaluate(values) is None
    assert read("b / (b - 1) > 0 or a.passed").evaluate(values) is None
    assert read("b > 0").evaluate({}) is None


def test_an_error_hides_what_a_measure_says_beside_it():
    values = {"a": Value(1.0, True, error="but the picture is torn")}
    assert read("a > 0").evaluate(values) is None
    assert read("a.passed").evaluate(values) is None
    assert parse_rank("a", str).evaluate(values) is None


def test_a_rank_is_a_number_of_scores():
    rank = parse_rank("a + 0.5 * b - -c / 4", str)
    assert rank.evaluate({"a": Value(1.0), "b": Value(2.0), "c": Value(8.0)}) == 4.0
    assert rank.evaluate({"a": Value(1.0), "b": Value(2.0)}) is None
    assert parse_rank("-a", str).evaluate({"a": Value(3.0)}) == -3.0
    for text in ("", "1 + 1", "a.passed", "a > 1", "a +"):
        with pytest.raises(BadInput, match="rank"):
            parse_rank(text, str)


@settings(max_examples=30)
@given(st.text(string.ascii_letters + "_", min_size=1, max_size=8), st.floats(-9, 9), st.floats(-9, 9))
def test_numbers_are_compared_as_python_does(name, score, limit):
    assume(not keyword.iskeyword(name))
    found = read(f"{name} > {limit!r}")
    assert found.evaluate({name: Value(score)}) == (score > limit)
