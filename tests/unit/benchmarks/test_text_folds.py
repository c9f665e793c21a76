"""LongText-Bench's and OneIG-Bench's text: ours beside the official figures, each quirk on and off."""

import pytest

from sar_eval.benchmarks.longtext import LongTextFold
from sar_eval.benchmarks.oneig_text import OneigTextFold
from sar_eval.errors import BadInput
from sar_eval.suites.rendered_text import edit_distance, kept_characters, matched
from sar_eval.types import Prompt, Verdict
from tests.fold_cases import figures
from tests.rubric_verdicts import rubric_verdict


def _long(name: str, *parts: str, language: str = "en", tag: str = "", split: str = "") -> Prompt:
    return Prompt(name, "a sign", tag, {"text": list(parts), "language": language}, split)


def _short(name: str, text: str, language: str = "en") -> Prompt:
    return Prompt(name, "a sign", "text", {"text": text, "language": language})


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [
        *(("", "", 0), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0)),
        *(("kitten", "sitting", 3), ("flaw", "lawn", 2), ("\u8336\u9986", "\u8336", 1), ("ab", "ba", 2)),
    ],
)
def test_edit_distance(first: str, second: str, distance: int) -> None:
    assert edit_distance(first, second) == edit_distance(second, first) == distance


def test_words_match_as_often_as_they_are_there() -> None:
    assert matched(["the", "tea", "the", "sea"], ["the", "the", "the", "tea"]) == 3


def test_only_french_accents_are_kept() -> None:
    assert kept_characters("Caf\u00e9 \u00d8l, ma\u00f1ana! \u8336\u9fa6") == "Caf\u00e9 l maana \u8336"


def test_longtext_counts_pictures_alike_and_the_script_words() -> None:
    prompts = [_long("long", "one two three four", "five six seven eight"), _long("short", "tea")]
    verdicts = [
        rubric_verdict("longtext", prompts[0], 0, ["one two three four five six seven eight"]),
        rubric_verdict("longtext", prompts[1], 0, ["coffee"]),
    ]
    found = figures(LongTextFold(), prompts, verdicts)
    assert found["overall"].value == 0.5
    assert found["micro"].value == found["reference/overall"].value == pytest.approx(8 / 9)
    effect = found["quirk/every_word_weighs_the_same"]
    assert (effect.value, effect.n) == (pytest.approx(0.5 - 8 / 9), 2)
    assert found["quirk/phrases_stay"].value == 0


def test_longtext_f1_sees_what_should_not_be_there() -> None:
    prompt = _long("p", "tea house")
    found = figures(
        LongTextFold(), [prompt], [rubric_verdict("longtext", prompt, 0, ["tea house sale now"])]
    )
    assert (found["overall"].value, found["f1"].value) == (1, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("reply", "ours", "theirs"),
    [
        ("No text recognized.", 0, 0),  # both remove it
        ("No text recognized", 0, 1 / 3),  # as the question words it: the script finds the word `text`
        ("addCriterionopen text", 2 / 3, 1 / 3),  # glued to a word, it costs the script that word
    ],
)
def test_longtext_removes_the_phrases_that_the_script_leaves(
    reply: str, ours: float, theirs: float
) -> None:
    prompt = _long("p", "Open text now")
    found = figures(LongTextFold(), [prompt], [rubric_verdict("longtext", prompt, 0, [reply])])
    assert found["overall"].value == pytest.approx(ours)
    assert found["reference/overall"].value == pytest.approx(theirs)
    assert found["quirk/phrases_stay"].value == pytest.approx(ours - theirs)
    assert found["quirk/phrases_stay"].n == int(ours != theirs or reply.startswith("add"))


def test_longtext_case_counts_in_chinese_only() -> None:
    prompts = [_long("en", "OPEN"), _long("zh", "\u8336 A", language="zh")]
    verdicts = [
        rubric_verdict("longtext", prompts[0], 0, ["open"]),
        rubric_verdict("longtext-zh", prompts[1], 0, ["a\u8336"]),
    ]
    assert figures(LongTextFold(), prompts, verdicts)["overall"].value == 0.75


def test_longtext_labels_and_missing_pictures() -> None:
    prompts = [_long("a", "tea", tag="menu", split="short"), _long("b", "sea", tag="sign", split="long")]
    verdicts = [
        rubric_verdict("longtext", prompts[0], 0, ["tea"]),
        rubric_verdict("longtext", prompts[0], 1, ["tea"]),
        rubric_verdict("longtext", prompts[1], 0, ["see"]),
        Verdict("b/1", "rubric", "1", error="no reply"),
    ]
    found = figures(LongTextFold(), prompts, verdicts)
    assert found["overall"].value == pytest.approx(2 / 3)
    assert (found["category/menu"].value, found["category/sign"].value) == (1, 0)
    assert (found["length/short"].value, found["length/long"].value) == (1, 0)
    assert (found["bounds/overall_at_least"].value, found["bounds/overall_at_most"].value) == (0.5, 0.75)
    complete = figures(LongTextFold(), prompts, [v for v in verdicts if v.key.endswith("/0")])
    assert "bounds/overall_at_least" not in complete


def test_longtext_refuses_a_key_without_words() -> None:
    with pytest.raises(BadInput, match=r"prompt p: no letter or digit of its text \['\?!'\] counts"):
        LongTextFold().fold([_long("p", "?!")], {})
    with pytest.raises(BadInput, match=r"prompt p: checks: language: Invalid enum value 'fr'"):
        LongTextFold().fold([_long("p", "tea", language="fr")], {})


def test_verdicts_of_another_judge_are_refused() -> None:
    verdict = Verdict("p/0", "vqa", "1", score=1.0, evidence={"questions": []})
    with pytest.raises(BadInput, match=r"the verdict on p/0 by judge 'vqa' has no replies"):
        LongTextFold().fold([_long("p", "tea")], {"p/0": verdict})
    other = Verdict("p/0", "rubric", "1", score=1.0, evidence={"replies": ["1"], "values": {"a": 1.0}})
    with pytest.raises(BadInput, match=r"the verdict on p/0 has no 'text'"):
        LongTextFold().fold([_long("p", "tea")], {"p/0": other})


def test_a_run_without_verdicts_has_no_figures() -> None:
    for fold, prompt in ((LongTextFold(), _long("p", "tea")), (OneigTextFold(), _short("p", "tea"))):
        assert all(metric.value is None for metric in figures(fold, [prompt], []).values())


def _text_figures(reply: str, key: str, language: str = "en") -> dict:
    prompt = _short("p", key, language)
    return figures(OneigTextFold(), [prompt], [rubric_verdict("oneig-text", prompt, 0, [reply])])


def test_oneig_silence_is_not_better_than_a_phrase() -> None:
    """The phrase without its full stop leaves 18 letters in the script, which are nearer to a long key."""
    key = "Fresh bread and good tea at noon"
    with_stop, without = _text_figures("No text recognized.", key), _text_figures("No text recognized", key)
    silent = pytest.approx(1 - len(key) / 100)
    assert with_stop["reference/nearness"].value == silent
    assert without["reference/nearness"].value > 1 - len(key) / 100
    assert without["nearness"].value == with_stop["nearness"].value == silent
    assert without["quirk/phrases_and_blanks_stay"].value < 0
    assert with_stop["quirk/phrases_and_blanks_stay"].value == 0


def test_oneig_chinese_key_and_latin_reading_are_compared_alike() -> None:
    found = _text_figures("a b c", "\u8336", "zh")
    assert found["reference/nearness"].value == 1 - 5 / 50  # `a b c` keeps its blanks
    assert found["nearness"].value == 1 - 3 / 50


def test_oneig_distance_is_cut_for_each_picture() -> None:
    prompts = [_short("far", "tea"), _short("near", "sea")]
    verdicts = [
        rubric_verdict("oneig-text", prompts[0], 0, ["x" * 303]),
        rubric_verdict("oneig-text", prompts[1], 0, ["seas"]),
    ]
    found = figures(OneigTextFold(), prompts, verdicts)
    assert found["reference/overall"].value == 0  # the mean distance is 152, as far as any
    assert found["composite"].value == pytest.approx(1 - 50.5 / 100)
    assert found["nearness"].value == pytest.approx(1 - 50.5 / 100)
    assert found["reference/nearness"].value == pytest.approx(1 - 152 / 100)
    assert found["overall"].value == pytest.approx((0 + 0.99) / 2)
    assert (found["quirk/cut_at_the_mean"].value, found["quirk/cut_at_the_mean"].n) == (
        pytest.approx(1 - 50.5 / 100),
        1,
    )


def test_oneig_words_by_key_and_by_picture() -> None:
    prompts = [_short("a", "one two three"), _short("b", "tea")]
    verdicts = [
        rubric_verdict("oneig-text", prompts[0], 0, ["one two three"]),
        rubric_verdict("oneig-text", prompts[1], 0, ["sea"]),
    ]
    found = figures(OneigTextFold(), prompts, verdicts)
    assert (found["words_micro"].value, found["words_macro"].value) == (0.75, 0.5)
    assert found["complete"].value == 0.5
    assert (found["nearness"].bounds, found["reference/nearness"].bounds) == ((0, 1), None)


def test_oneig_missing_pictures_bound_the_figure() -> None:
    prompts = [_short("a", "tea"), _short("b", "sea")]
    found = figures(OneigTextFold(), prompts, [rubric_verdict("oneig-text", prompts[0], 0, ["tea"])])
    assert (found["overall"].value, found["overall"].n) == (1, 1)
    assert (found["bounds/overall_at_least"].value, found["bounds/overall_at_most"].value) == (0.5, 1)
