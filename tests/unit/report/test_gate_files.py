"""A gate's JUnit XML and Markdown: what CI systems read of them, and names that mean no good."""

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from markdown_it import MarkdownIt

from sar_eval.comparisons import GateResult, Question
from sar_eval.report.gate_words import answer_words, question_words
from sar_eval.report.junit import gate_as_junit, unanswered_as_junit
from sar_eval.report.markdown import escape, gate_as_markdown

EVIL = (
    '<script>alert(1)</script> ]]> &amp; "a" | `b` @team #1 [x](http://evil) ![y](www.evil.org) *c* _d_ '
    "~~e~~ $f$ \x00\x1b[31m\ud800\ufffe\u202e\nnew line: http://evil.org"
)
GOOD = Question(
    asked="not-worse",
    measure="overall",
    scale=1,
    limit=0.01,
    answer="yes",
    passed=True,
    figure=0.603,
    baseline=0.6,
    value=0.003,
    lower=-0.003,
    upper=0.009,
    prompts=553,
)


def undecided(**changes: object) -> Question:
    known = {f: getattr(GOOD, f) for f in Question.__dataclass_fields__}
    known |= {"answer": "undecided", "passed": False, "lower": -0.013, "upper": 0.019}
    return Question(**{**known, **changes})


def result(*questions: Question, name: str = "demo:sft", **changes: object) -> GateResult:
    facts = {"benchmark": name, "run": name, "run_path": name, "baseline": name, "baseline_path": name}
    return GateResult(**{**facts, "questions": questions or (GOOD,), "notes": (name,), **changes})


def check_suite(suite: Element) -> None:
    """What Ant's schema and Jenkins' ask of a suite: attributes, children, and their order."""
    assert set(suite.attrib) == {
        *(
            "name",
            "package",
            "id",
            "tests",
            "failures",
            "errors",
            "skipped",
            "time",
            "timestamp",
            "hostname",
        ),
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp", ""))
    cases = suite.findall("testcase")
    tags = [child.tag for child in suite]
    assert tags == ["properties", *["testcase"] * len(cases), "system-out", "system-err"]
    assert all(set(p.attrib) == {"name", "value"} for p in suite.iterfind("properties/property"))
    for kind in ("failure", "error"):
        assert int(suite.get(f"{kind}s", "")) == len(suite.findall(f"testcase/{kind}"))
    assert int(suite.get("tests", "")) == len(cases)
    for case in cases:
        assert set(case.attrib) == {"classname", "name", "time"}
        assert [child.tag for child in case] in ([], ["failure"], ["error"])
        assert all(set(child.attrib) == {"message", "type"} and child.text for child in case)


@pytest.mark.parametrize(
    "data",
    [
        gate_as_junit(result()),
        gate_as_junit(result(GOOD, undecided(measure="task/counting"), undecided(measure=EVIL))),
        gate_as_junit(result(undecided(), name=EVIL)),
        unanswered_as_junit("no answer"),
    ],
)
def test_junit_is_what_the_schemas_ask_for(data: bytes) -> None:
    root = ElementTree.fromstring(data)
    assert (root.tag, len(root), root.attrib) == ("testsuites", 1, {})
    check_suite(root[0])


def test_a_failure_has_the_interval() -> None:
    found = gate_as_junit(result(GOOD, undecided(prompts_needed=1234, images_needed=12)))
    good, bad = ElementTree.fromstring(found).iter("testcase")
    assert (good.get("classname"), good.get("name"), len(good)) == (
        "sar-eval gate.demo:sft",
        "overall (against the baseline)",
        0,
    )
    assert bad[0].get("message") == (
        "Not shown: overall +0.003, at least -0.013 and at most +0.019, each with 95 % confidence. More "
        "prompts or images are needed: about 1,234 prompts, or about 12 images of each of these 553."
    )
    assert "at most 0.010 worse than the baseline?\nNot shown" in str(bad[0].text)
    assert str(bad[0].text).endswith("note: demo:sft")


def test_names_stay_text_in_xml() -> None:
    """They come back as they were, less the characters that XML cannot hold or that turn the writing."""
    root = ElementTree.fromstring(gate_as_junit(result(undecided(measure=EVIL), name=EVIL)))
    left = re.sub("[\x00\x1b\u202e\ud800\ufffe]", "", EVIL)
    assert root.find(".//property[@name='run']").get("value") == left
    assert "script" not in {element.tag for element in root.iter()}


def test_names_stay_text_in_markdown() -> None:
    text = gate_as_markdown(result(undecided(measure=EVIL), name=EVIL))
    html = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    for tag in ("<script", "<a ", "<img", "<code", "<em", "<s>", "<h1", "<h2"):
        assert tag not in html
    assert (html.count("<strong>"), html.count("<li>")) == (1, 4)  # the answer's; two runs and a note
    assert html.count("<table>") == 1
    assert html.count("<td") == 7
    assert not re.search("[\x00-\x09\x0b-\x1f\ud800\u202e]", text)
    assert "@team" not in text  # a mention calls people
    assert not re.search(r"(?<!\\)://", text)
    assert "www.evil" not in text


def test_plain_names_look_plain() -> None:
    assert escape("demo:sft-0.5b (runs/a, 2 of 3)") == "demo:sft-0.5b (runs/a, 2 of 3)"


@pytest.mark.parametrize(
    ("question", "asked", "answer"),
    [
        (
            GOOD,
            "Is X at most 0.010 worse than the baseline?",
            "Shown: overall +0.003, at least -0.003 with",
        ),
        (
            undecided(asked="worse", answer="yes", value=-0.1, upper=-0.05, limit=0.0125),
            "Is X more than 0.0125 worse than the baseline?",
            "Shown: overall -0.100, at most -0.050 with 95 % confidence.",
        ),
        (
            undecided(lower=None, upper=None, measure="reward", value=1.5),
            "Is X at most 0.010 worse than the baseline in reward?",
            "Not shown: reward +1.500, of too few prompts to know more.",
        ),
        # A bound that would look like the limit has more digits.
        (undecided(lower=-0.01004), "Is X at most", "at least -0.010040 and at most +0.019, each"),
        (
            undecided(scale=100, limit=1.0, value=0.3, lower=-2.0, upper=3.0),
            "most 1.00 worse",
            "overall +0.30, ",
        ),
        (
            undecided(asked="floor", answer="no", limit=0.58, figure=0.5799),
            "Is overall of X at least 0.580?",
            "No: it is 0.579900.",
        ),
    ],
)
def test_words(question: Question, asked: str, answer: str) -> None:
    assert asked in question_words(question, "X")
    assert answer in answer_words(question)
