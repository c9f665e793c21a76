"""DPG-Bench's corrected and reference scores of the same answers."""

import pytest

from sar_eval.benchmarks.dpg import DpgFold
from sar_eval.errors import BadInput
from sar_eval.measures import Measure, stratum
from sar_eval.stats.intervals import metric_of
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.types import Metric, Prompt, Verdict

WHOLE, COLOR, GLOBAL = ("entity", "whole"), ("attribute", "color"), ("global", "")


def _prompt(name: str, *nodes: tuple[tuple[int, ...], tuple[str, str]]) -> Prompt:
    questions = [
        Question(number, f"{number}?", parents, category, detail)
        for number, (parents, (category, detail)) in enumerate(nodes, 1)
    ]
    return Prompt(name, "text", checks=write_questions(questions))


def _verdict(key: str, *answers: str, soft: float | None = None) -> Verdict:
    rows = [
        {
            "id": number,
            "question": f"{number}?",
            "answer": answer,
            "yes": answer.startswith("yes"),
            "soft": soft,
        }
        for number, answer in enumerate(answers, 1)
    ]
    return Verdict(key, "vqa", "1", score=0.5, evidence={"answerer": "mplug", "questions": rows})


def _fold(prompts: list[Prompt], *verdicts: Verdict) -> dict[str, Metric]:
    return {m.name: metric_of(m) for m in DpgFold().fold(prompts, {v.key: v for v in verdicts})}


FREE = _prompt("free", ((), WHOLE), ((), GLOBAL))
CHAIN = _prompt("chain", ((), WHOLE), ((1,), COLOR))


def test_both_scores_are_on_the_published_scale() -> None:
    metrics = _fold(
        [FREE, CHAIN],
        _verdict("free/0", "no", "yes"),
        _verdict("free/1", "no", "yes"),
        _verdict("chain/0", "no", "yes"),
        _verdict("chain/1", "yes", "yes"),
    )
    assert all(metric.scale == 100 for metric in metrics.values())
    # The question that the script skips is answered no.
    assert (metrics["overall"].value, metrics["overall"].n) == (50.0, 4)
    assert (metrics["reference/overall"].value, metrics["reference/overall"].n) == (75.0, 4)
    assert metrics["category/entity"].value == pytest.approx(25)
    assert metrics["category/entity"].n == 4
    assert metrics["reference/category/entity"].value == 100
    assert metrics["reference/category/entity"].n == 1
    # Zeroed in ours, not in the script's, which uses the last image only.
    assert (metrics["detail/attribute - color"].value, metrics["detail/attribute - color"].n) == (50, 2)
    assert (metrics["reference/detail/attribute - color"].value, metrics["detail/global"].value) == (
        100,
        100,
    )
    assert list(metrics)[:2] == ["overall", "category/global"]
    for metric in metrics.values():
        if not metric.name.startswith("quirk/"):
            assert 0 <= metric.low <= metric.value <= metric.high <= 100


def test_a_quirks_effect_is_the_change_if_it_were_repaired() -> None:
    late = _prompt("late", ((2,), WHOLE), ((3,), WHOLE), ((), WHOLE))
    lost = _prompt("lost", ((7,), WHOLE), ((), WHOLE))
    prompts = [FREE, CHAIN, late, lost]
    metrics = _fold(
        prompts,
        _verdict("free/0", "no", "yes"),
        _verdict("chain/0", "yes", "yes."),
        _verdict("late/0", "yes", "yes", "no"),
        _verdict("lost/0", "yes", "no"),
    )
    base = metrics["reference/overall"].value
    assert base == pytest.approx(100 * (1 + 1 / 2 + 1 / 3) / 3)
    effects = {name: metrics[f"quirk/{name}"] for name in (
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
    # Prompts are a sample for these two; the other effects depend on single prompts of the question file.
    for name in ("zeroed_in_row_order", "only_exact_yes"):
        assert effects[name].low <= effects[name].value <= effects[name].high
    assert effects["first_row_skipped"].low is effects["failing_prompts_dropped"].high is None


def test_a_quirk_without_effect_is_zero_with_a_point_interval() -> None:
    metrics = _fold([FREE, CHAIN], _verdict("chain/0", "yes", "no"))
    effect = metrics["quirk/only_exact_yes"]
    assert (effect.value, effect.low, effect.high, effect.n) == (0, 0, 0, 0)


def test_missing_draws_are_left_out_of_both_and_never_zero() -> None:
    failed = Verdict("chain/1", "vqa", "1", error="no answer to question 2")
    metrics = _fold([FREE, CHAIN], _verdict("chain/0", "yes", "yes"), failed)
    assert (metrics["overall"].value, metrics["overall"].n) == (100, 1)
    assert (metrics["reference/overall"].value, metrics["reference/overall"].n) == (100, 1)
    nothing = _fold([FREE, CHAIN], failed)
    assert nothing["overall"] == Metric("overall", None, None, None, 0, 100)
    assert nothing["quirk/first_row_skipped"].value is None


def test_images_are_ordered_by_index() -> None:
    verdicts = [
        _verdict(f"chain/{index}", "yes", "yes" if index == 10 else "no") for index in (10, 9, 0, 2)
    ]
    metrics = _fold([FREE, CHAIN], *verdicts)
    assert metrics["reference/detail/attribute - color"].value == 100


def test_if_all_ids_are_numbers_the_reference_drops_every_prompt() -> None:
    metrics = _fold([_prompt("0", ((), WHOLE), ((), WHOLE))], _verdict("0/0", "yes", "yes"))
    assert metrics["reference/overall"] == Metric("reference/overall", None, None, None, 0, 100)
    assert metrics["overall"].value == 100
    assert (metrics["quirk/failing_prompts_dropped"].value, metrics["quirk/failing_prompts_dropped"].n) == (
        None,
        1,
    )


def test_the_soft_score_needs_a_probability_of_every_answer() -> None:
    both = [_verdict("chain/0", "yes", "no", soft=0.75), _verdict("chain/1", "yes", "no", soft=0.25)]
    assert _fold([CHAIN], *both)["soft"].value == pytest.approx(50)
    assert "soft" not in _fold([CHAIN], both[0], _verdict("chain/1", "yes", "no"))


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
    assert _effect([0.0] * 50) == (0, 0, 0)
    value, low, high = _effect([0.0] * 45 + [-0.5] * 5)
    assert value == pytest.approx(-0.05)
    assert low < value < high <= 0
    value, low, high = _effect([0.0] * 45 + [0.5] * 5)
    assert 0 <= low < value < high


def _effect(differences: list[float]) -> tuple[float | None, float | None, float | None]:
    rows = [(f"p{number}", 0, value, 1.0) for number, value in enumerate(differences)]
    found = metric_of(Measure("quirk/x", (stratum(rows),), is_effect=True))
    return found.value, found.low, found.high
