"""DPG-Bench's two foldings of one set of answers."""

import pytest

from sar_eval.benchmarks.dpg import DpgFold
from sar_eval.errors import BadInput
from sar_eval.stats import difference_interval
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.types import Metric, Prompt, Verdict

WHOLE, COLOR, GLOBAL = ("entity", "whole"), ("attribute", "color"), ("global", "")


def _prompt(name: str, *asked: tuple[tuple[int, ...], tuple[str, str]]) -> Prompt:
    questions = [
        Question(number, f"{number}?", parents, category, detail)
        for number, (parents, (category, detail)) in enumerate(asked, 1)
    ]
    return Prompt(name, "text", checks=write_questions(questions))


def _verdict(key: str, *answers: str, soft: float | None = None) -> Verdict:
    rows = [
        {
            "id": number,
            "question": f"{number}?",
            "answer": said,
            "yes": said.startswith("yes"),
            "soft": soft,
        }
        for number, said in enumerate(answers, 1)
    ]
    return Verdict(key, "vqa", "1", score=0.5, evidence={"answerer": "mplug", "questions": rows})


def _fold(prompts: list[Prompt], *verdicts: Verdict) -> dict[str, Metric]:
    return {m.name: m for m in DpgFold().fold(prompts, {v.key: v for v in verdicts})}


FREE = _prompt("free", ((), WHOLE), ((), GLOBAL))
CHAIN = _prompt("chain", ((), WHOLE), ((1,), COLOR))


def test_both_foldings_on_the_published_scale() -> None:
    found = _fold(
        [FREE, CHAIN],
        _verdict("free/0", "no", "yes"),
        _verdict("free/1", "no", "yes"),
        _verdict("chain/0", "no", "yes"),
        _verdict("chain/1", "yes", "yes"),
    )
    assert all(metric.scale == 100 for metric in found.values())
    # The question that the script never asks is answered no.
    assert (found["overall"].value, found["overall"].n) == (50.0, 4)
    assert (found["reference/overall"].value, found["reference/overall"].n) == (75.0, 4)
    assert found["category/entity"].value == pytest.approx(25)
    assert found["category/entity"].n == 4
    assert found["reference/category/entity"].value == 100
    assert found["reference/category/entity"].n == 1
    # Zeroed in ours, not in the script's, which looks at the last image only.
    assert (found["detail/attribute - color"].value, found["detail/attribute - color"].n) == (50, 2)
    assert (found["reference/detail/attribute - color"].value, found["detail/global"].value) == (100, 100)
    assert list(found)[:2] == ["overall", "category/global"]
    for metric in found.values():
        if not metric.name.startswith("quirk/"):
            assert 0 <= metric.low <= metric.value <= metric.high <= 100


def test_each_quirk_tells_what_its_repair_would_change() -> None:
    late = _prompt("late", ((2,), WHOLE), ((3,), WHOLE), ((), WHOLE))
    lost = _prompt("lost", ((7,), WHOLE), ((), WHOLE))
    prompts = [FREE, CHAIN, late, lost]
    found = _fold(
        prompts,
        _verdict("free/0", "no", "yes"),
        _verdict("chain/0", "yes", "yes."),
        _verdict("late/0", "yes", "yes", "no"),
        _verdict("lost/0", "yes", "no"),
    )
    base = found["reference/overall"].value
    assert base == pytest.approx(100 * (1 + 1 / 2 + 1 / 3) / 3)
    effects = {name: found[f"quirk/{name}"] for name in (
        "first_row_skipped", "failing_prompts_dropped", "zeroed_in_row_order", "only_exact_yes",
    )}  # fmt: skip
    repaired = {
        "first_row_skipped": (1 / 2 + 1 / 2 + 1 / 3) / 3,
        "failing_prompts_dropped": (1 + 1 / 2 + 1 / 3 + 1 / 2) / 4,
        "zeroed_in_row_order": (1 + 1 / 2 + 0) / 3,
        "only_exact_yes": (1 + 1 + 1 / 3) / 3,
    }
    for name, metric in effects.items():
        assert metric.value == pytest.approx(100 * repaired[name] - base), name
        assert metric.n == 1
    # A sample of prompts tells how far these two vary; the others hang on the question file.
    for name in ("zeroed_in_row_order", "only_exact_yes"):
        assert effects[name].low <= effects[name].value <= effects[name].high
    assert effects["first_row_skipped"].low is effects["failing_prompts_dropped"].high is None


def test_no_effect_is_told_as_none_at_all() -> None:
    found = _fold([FREE, CHAIN], _verdict("chain/0", "yes", "no"))
    told = found["quirk/only_exact_yes"]
    assert (told.value, told.low, told.high, told.n) == (0, 0, 0, 0)


def test_missing_draws_are_left_out_of_both_and_never_zero() -> None:
    failed = Verdict("chain/1", "vqa", "1", error="no answer to question 2")
    found = _fold([FREE, CHAIN], _verdict("chain/0", "yes", "yes"), failed)
    assert (found["overall"].value, found["overall"].n) == (100, 1)
    assert (found["reference/overall"].value, found["reference/overall"].n) == (100, 1)
    nothing = _fold([FREE, CHAIN], failed)
    assert nothing["overall"] == Metric("overall", None, None, None, 0, 100)
    assert nothing["quirk/first_row_skipped"].value is None


def test_images_are_taken_in_drawing_order() -> None:
    verdicts = [
        _verdict(f"chain/{index}", "yes", "yes" if index == 10 else "no") for index in (10, 9, 0, 2)
    ]
    found = _fold([FREE, CHAIN], *verdicts)
    assert found["reference/detail/attribute - color"].value == 100


def test_ids_that_are_all_numbers_leave_the_script_nothing() -> None:
    found = _fold([_prompt("0", ((), WHOLE), ((), WHOLE))], _verdict("0/0", "yes", "yes"))
    assert found["reference/overall"] == Metric("reference/overall", None, None, None, 0, 100)
    assert found["overall"].value == 100
    assert (found["quirk/failing_prompts_dropped"].value, found["quirk/failing_prompts_dropped"].n) == (
        None,
        1,
    )


def test_soft_scores_are_given_if_all_answers_have_one() -> None:
    whole = [_verdict("chain/0", "yes", "no", soft=0.75), _verdict("chain/1", "yes", "no", soft=0.25)]
    assert _fold([CHAIN], *whole)["soft"].value == pytest.approx(50)
    assert "soft" not in _fold([CHAIN], whole[0], _verdict("chain/1", "yes", "no"))


@pytest.mark.parametrize(
    "evidence", [None, {}, {"questions": 3}, {"questions": [{"id": 1}]}, {"boxes": []}]
)
def test_verdicts_of_another_judge_are_refused(evidence) -> None:
    verdict = Verdict("chain/0", "clipscore", "1", score=0.5, evidence=evidence)
    with pytest.raises(BadInput, match=r"chain/0 by judge 'clipscore' does not answer.*judge vqa"):
        DpgFold().fold([CHAIN], {"chain/0": verdict})


def test_prompts_without_questions_are_refused() -> None:
    with pytest.raises(BadInput, match="prompt plain: no list `questions`"):
        DpgFold().fold([Prompt("plain", "a ring")], {})


def test_intervals_of_differences_are_not_widened() -> None:
    assert difference_interval([0.0] * 50) == (0, 0, 0)
    value, low, high = difference_interval([0.0] * 45 + [-0.5] * 5)
    assert value == pytest.approx(-0.05)
    assert low < value < high <= 0
