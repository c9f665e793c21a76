"""TIIF-Bench, UniGenBench, OneIG-Bench's alignment: ours beside the official figures, quirks on and off."""

from collections.abc import Sequence

import pytest

from sar_eval.benchmarks.oneig import OneigFold
from sar_eval.benchmarks.tiif import TiifFold
from sar_eval.benchmarks.unigenbench import UniGenBenchFold
from sar_eval.errors import BadInput
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.suites.tiif.scoring import GROUPS, TYPES
from sar_eval.types import Metric, Prompt, Verdict
from tests.fold_cases import figures
from tests.rubric_verdicts import rubric_verdict


def _tiif(kind: str, *answers: str, length: str = "short", index: int = 0) -> Prompt:
    checks = {
        "type": kind,
        "length": length,
        "questions": [f"Is it {n}?" for n in range(len(answers))],
        "answers": list(answers),
    }
    return Prompt(f"{kind.replace('+', '.')}-{length}-{index}", "text", kind, checks, length)


def _tiif_figures(*pairs: tuple[Prompt, str]) -> dict[str, Metric]:
    prompts = [prompt for prompt, _ in pairs]
    return figures(
        TiifFold(), prompts, [rubric_verdict("tiif", prompt, 0, [text]) for prompt, text in pairs]
    )


def test_tiif_has_39_types_in_nine_groups() -> None:
    assert (len(TYPES), len(GROUPS)) == (39, 9)


def test_tiif_groups_weigh_the_same_whatever_their_size() -> None:
    found = _tiif_figures(
        (_tiif("shape+color", "yes", "yes"), "yes\nno"),
        (_tiif("color+texture", "yes"), "yes"),
        (_tiif("style", "yes", "yes", "yes", "yes"), "no\nno\nno\nno"),
    )
    assert found["group/short basic attribute"].value == 0.75
    assert found["short"].value == found["overall"].value == 0.375
    assert found["by_type"].value == 0.5
    assert found["by_question"].value == pytest.approx(2 / 7)
    assert found["long"].value is None


def test_tiif_lengths_weigh_the_same() -> None:
    found = _tiif_figures(
        (_tiif("style", "yes"), "yes"),
        (_tiif("text", "yes"), "yes"),
        (_tiif("style", "yes", length="long"), "no"),
    )
    assert (found["short"].value, found["long"].value, found["overall"].value) == (1, 0, 0.5)
    assert found["type/style"].value == 0.5


def test_tiif_a_no_can_be_right() -> None:
    prompt = _tiif("negation", "no", "yes")
    assert rubric_verdict("tiif", prompt, 0, ["no\nyes"]).score == 1
    found = _tiif_figures((prompt, "no\nno"))
    assert found["overall"].value == found["reference/short"].value == 0.5


def test_tiif_numbered_answers_count_in_ours_only() -> None:
    found = _tiif_figures((_tiif("style", "yes", "no"), "1. yes\n2. no"))
    assert found["overall"].value == 1
    assert found["reference/short"].value is None  # for the script there are no answers


def test_tiif_numbers_after_no_are_no_answer_in_ours() -> None:
    found = _tiif_figures((_tiif("style", "yes", "yes"), "No. 1: yes\nNo. 2: yes"))
    assert (found["overall"].value, found["reference/short"].value) == (1, 0)
    effect = found["quirk/only_lines_that_begin_with_an_answer"]
    assert (effect.value, effect.n) == (1, 2)
    plain = _tiif_figures((_tiif("style", "yes", "yes"), "yes\nyes"))
    assert plain["quirk/only_lines_that_begin_with_an_answer"].value == 0


def test_tiif_rounds_to_four_digits_and_ours_does_not() -> None:
    found = _tiif_figures((_tiif("style", "yes", "yes", "yes"), "yes\nno\nno"))
    assert found["overall"].value == pytest.approx(1 / 3, abs=1e-15)
    assert found["reference/short"].value == 0.3333
    assert found["quirk/four_digits"].value == pytest.approx(1 / 3 - 0.3333)


def test_tiif_missing_pictures_bound_the_figure() -> None:
    style, text = _tiif("style", "yes"), _tiif("text", "yes")
    found = figures(
        TiifFold(), [style, text], [rubric_verdict("tiif", style, 0, ["yes"]), _unread(text, "I cannot.")]
    )
    assert (found["overall"].value, found["overall"].n) == (1, 1)
    assert (found["bounds/overall_at_least"].value, found["bounds/overall_at_most"].value) == (0.5, 1)


def _unread(prompt: Prompt, reply: str) -> Verdict:
    verdict = rubric_verdict("tiif", prompt, 0, [reply])
    assert verdict.error
    return verdict


def test_tiif_takes_the_first_reply_that_can_be_read() -> None:
    prompt = _tiif("style", "yes", "yes")
    verdict = rubric_verdict("tiif", prompt, 0, ["yes", None, "yes\nno"])
    found = figures(TiifFold(), [prompt], [verdict])
    assert found["overall"].value == found["reference/short"].value == 0.5


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        ({"type": "colour"}, "type 'colour' is none of TIIF-Bench's"),
        ({"length": "middle"}, "length: Invalid enum value 'middle'"),
        ({"questions": []}, "no questions with their answers"),
        ({"answers": "yes"}, "answers: Expected `array`"),
    ],
)
def test_tiif_broken_checks_are_named(checks: dict, message: str) -> None:
    good = _tiif("style", "yes")
    broken = Prompt("p", "text", checks=good.checks | checks)
    with pytest.raises(BadInput, match=f"prompt p.*{message}"):
        TiifFold().fold([broken], {})


def _points(*dimensions: str, name: str = "p") -> Prompt:
    checks = {"dimensions": list(dimensions), "descriptions": [f"look at {d}" for d in dimensions]}
    return Prompt(name, "text", checks=checks)


def _block(scores: str, analysis: str = "['a', 'b']") -> str:
    return f"<analysis>{analysis}</analysis>\n<score>{scores}</score>"


def _unigen_figures(prompt: Prompt, *replies: Sequence[str]) -> dict[str, Metric]:
    verdicts = [rubric_verdict("unigenbench", prompt, n, tries) for n, tries in enumerate(replies)]
    return figures(UniGenBenchFold(), [prompt], verdicts)


def test_unigenbench_overall_is_the_mean_of_dimensions_and_micro_of_points() -> None:
    prompt = _points("Action - Animal", "Action - State", "Action - State", "Style")
    found = _unigen_figures(prompt, [_block("[1, 1, 0, 0]", "['a'] * 4")])
    assert (found["primary/Action"].value, found["primary/Style"].value) == (pytest.approx(2 / 3), 0)
    assert (found["overall"].value, found["micro"].value) == (pytest.approx(1 / 3), 0.5)
    assert found["dimension/Action - State"].value == 0.5


def test_unigenbench_keeps_the_score_whose_analysis_is_no_list() -> None:
    found = _unigen_figures(_points("Style", "Logical Reasoning"), [_block("[1, 0]", "it looks right")])
    assert found["overall"].value == 0.5
    assert found["reference/overall"].value is None


def test_unigenbench_true_is_read_and_the_script_drops_the_row() -> None:
    prompt = _points("Style", "Style")
    found = _unigen_figures(prompt, [_block("[True, False]")], [_block("[1, 1]")])
    assert found["overall"].value == 0.75
    assert (found["reference/overall"].value, found["reference/overall"].n) == (1, 2)
    effect = found["quirk/first_block_as_python"]
    assert (effect.value, effect.n) == (-0.25, 1)


def test_unigenbench_reads_the_last_block_and_the_script_the_first() -> None:
    reply = f"<description>{_block('[0, 0]')}</description>\n{_block('[1, 1]')}"
    found = _unigen_figures(_points("Style", "Style"), [reply])
    assert (found["overall"].value, found["reference/overall"].value) == (1, 0)


def test_unigenbench_a_bare_number_ends_the_script() -> None:
    prompt = _points("Style")
    found = _unigen_figures(
        prompt, [_block("1", "['a']"), _block("[1]", "['a']")], [_block("[1]", "['a']")]
    )
    assert (found["overall"].value, found["overall"].n) == (1, 2)
    assert found["reference/overall"].value is None


def test_unigenbench_unreadable_replies_are_bounded_and_the_script_forgets_them() -> None:
    prompt = _points("Style", "Style")
    found = _unigen_figures(prompt, [_block("[1, 1]")], ["I cannot."])
    assert found["overall"].value == found["reference/overall"].value == 1
    assert (found["bounds/overall_at_least"].value, found["bounds/overall_at_most"].value) == (0.5, 1)


def test_unigenbench_half_a_point_is_none_and_two_points_are_unread() -> None:
    found = _unigen_figures(_points("Style", "Style"), [_block("[1, 0.5]")])
    assert found["overall"].value == found["reference/overall"].value == 0.5
    found = _unigen_figures(_points("Style", "Style"), [_block("[1, 2]")])
    assert (found["overall"].value, found["reference/overall"].value) == (None, 0.5)


def test_unigenbench_hostile_literals_are_unread() -> None:
    prompt = _points("Style", "Style")
    hostile = ("(" * 5000, "[" * 5000 + "]" * 5000, "-" * 90_000 + "1", "1+" * 9000 + "1", "9" * 5000)
    for scores in (*hostile, "__import__('os')", "'\\d' * 10**9", "<score>" * 2500):
        found = _unigen_figures(prompt, [_block(scores)])
        assert found["overall"].value is found["reference/overall"].value is None


def test_unigenbench_refuses_points_without_descriptions() -> None:
    prompt = Prompt("p", "text", checks={"dimensions": ["Style"], "descriptions": []})
    with pytest.raises(BadInput, match="prompt p: 1 dimensions and 0 descriptions"):
        UniGenBenchFold().fold([prompt], {})


def _alignment(*answers: str, parents: Sequence[tuple[int, ...]]) -> dict[str, Metric]:
    asked = [Question(number, "Is it?", of) for number, of in enumerate(parents, 1)]
    prompt = Prompt("anime_000", "text", "anime", write_questions(asked))
    rows = [
        {"id": q.id, "question": q.text, "answer": a, "yes": a.strip(". ").lower().startswith("yes")}
        for q, a in zip(asked, answers, strict=True)
    ]
    verdict = Verdict("anime_000/0", "vqa", "1", score=0.5, evidence={"questions": rows})
    return figures(OneigFold(), [prompt], [verdict])


def test_oneig_grandparents_count_in_ours_only() -> None:
    found = _alignment("No", "Yes", "Yes", parents=[(), (1,), (2,)])
    assert (found["overall"].value, found["reference/overall"].value) == (0, pytest.approx(1 / 3))
    assert found["quirk/parents_alone"].value == pytest.approx(-1 / 3)
    assert found["quirk/only_exact_yes"].value == 0
    assert found["class/anime"].value == 0


def test_oneig_a_yes_with_a_full_stop_is_a_no_for_the_script() -> None:
    found = _alignment("Yes.", "Yes", parents=[(), ()])
    assert (found["overall"].value, found["reference/overall"].value) == (1, 0.5)
    assert (found["quirk/only_exact_yes"].value, found["quirk/only_exact_yes"].n) == (0.5, 1)
    plain = _alignment("Yes", "Yes", parents=[(), ()])
    assert (plain["quirk/only_exact_yes"].value, plain["quirk/only_exact_yes"].n) == (0, 0)


def test_oneig_a_parent_that_does_not_exist_zeroes_nothing() -> None:
    found = _alignment("Yes", parents=[(7,)])
    assert found["overall"].value == found["reference/overall"].value == 1


def test_oneig_missing_pictures_bound_the_figure() -> None:
    asked = write_questions([Question(1, "Is it?")])
    prompts = [Prompt(f"object_{n}", "text", "object", asked) for n in range(4)]
    rows = [{"id": 1, "question": "Is it?", "answer": "Yes", "yes": True}]
    verdict = Verdict("object_0/0", "vqa", "1", score=1.0, evidence={"questions": rows})
    found = figures(OneigFold(), prompts, [verdict])
    assert (found["overall"].value, found["reference/overall"].value) == (1, 1)
    assert (found["bounds/overall_at_least"].value, found["bounds/overall_at_most"].value) == (0.25, 1)
