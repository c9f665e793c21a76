"""DSG-1k's two scorings of the same answers, and the effect of each quirk of the official one."""

import pytest

from sar_eval.benchmarks.dsg import DsgFold
from sar_eval.errors import BadInput
from sar_eval.stats.intervals import metric_of
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.suites.dsg.scoring import ADDED_ITEM, UNREAD, category_of
from sar_eval.types import Metric, Prompt, Verdict

CHAIN = ((), (1,), (2,))  # each question depends on the one before


def _prompt(name: str, parents: tuple[tuple[int, ...], ...], first: int = 1, **more: bool) -> Prompt:
    questions = [Question(number, f"{number}?", of) for number, of in enumerate(parents, first)]
    return Prompt(name, "text", checks=write_questions(questions) | more)


def _verdict(prompt: Prompt, *answers: str, index: int = 0) -> Verdict:
    rows = [
        {"id": row["id"], "answer": answer, "yes": answer.lower() == "yes"}
        for row, answer in zip(prompt.checks["questions"], answers, strict=True)
    ]
    return Verdict(f"{prompt.id}/{index}", "vqa", "1", score=0.5, evidence={"questions": rows})


def _fold(*judged: tuple[Prompt, Verdict | None]) -> dict[str, Metric]:
    verdicts = {verdict.key: verdict for _, verdict in judged if verdict is not None}
    prompts = list(dict.fromkeys(prompt.id for prompt, _ in judged))
    by_id = {prompt.id: prompt for prompt, _ in judged}
    return {m.name: metric_of(m) for m in DsgFold().fold([by_id[name] for name in prompts], verdicts)}


def test_direct_parents_only() -> None:
    """A question whose parent was zeroed counts officially, and not here."""
    prompt = _prompt("whoops_1", CHAIN)
    metrics = _fold((prompt, _verdict(prompt, "no", "yes", "yes")))
    assert metrics["reference/overall"].value == pytest.approx(100 / 3)
    assert metrics["overall"].value == 0
    assert metrics["quirk/direct_parents_only"].value == pytest.approx(-100 / 3)
    assert metrics["category/defying"].value == 0
    assert metrics["reference/category/defying"].value == pytest.approx(100 / 3)


def test_one_word_makes_the_script_forget_an_items_dependencies() -> None:
    prompt = _prompt("posescript_19", ((), (1,)), **{UNREAD: True})
    metrics = _fold((prompt, _verdict(prompt, "no", "yes")))
    assert (metrics["reference/overall"].value, metrics["overall"].value) == (50, 0)
    effect = metrics["quirk/dependencies_forgotten"]
    assert (effect.value, effect.n) == (-50, 1)


def test_the_item_that_the_script_adds() -> None:
    """Without an answer, it scores 0 officially; answered, its missing question 1 would stop the script."""
    other, added = _prompt("vrd_1", ((),)), _prompt(ADDED_ITEM, ((1,), (1,)), first=2)
    right = _verdict(other, "yes")
    without = _fold((other, right), (added, None))
    assert (without["reference/overall"].value, without["overall"].value) == (50, 100)
    assert without["quirk/unanswered_item_added"].value == 50
    answered = _fold((other, right), (added, _verdict(added, "yes", "no")))
    assert (answered["reference/overall"].value, answered["overall"].value) == (50, 75)
    assert answered["quirk/unanswered_item_added"].value == 25
    assert answered["reference/category/tifa"].value == 0


def test_another_item_that_would_stop_the_script_counts_as_one_without_answers() -> None:
    good, broken = _prompt("vrd_1", ((),)), _prompt("vrd_2", ((7,),))
    metrics = _fold((good, _verdict(good, "yes")), (broken, _verdict(broken, "yes")))
    assert (metrics["reference/overall"].n, metrics["overall"].n) == (1, 2)


def test_only_the_very_text_yes_counts_officially() -> None:
    prompt = _prompt("countbench_3", ((), ()))
    metrics = _fold((prompt, _verdict(prompt, "Yes", "yes")))
    assert (metrics["reference/overall"].value, metrics["overall"].value) == (50, 100)
    assert metrics["quirk/only_exact_yes"].value == 50


def test_a_question_that_names_itself_changes_nothing_and_cycles_end() -> None:
    own, cycle = _prompt("drawtext_1", ((1,), (1,))), _prompt("drawtext_2", ((2,), (1,)))
    metrics = _fold((own, _verdict(own, "yes", "yes")), (cycle, _verdict(cycle, "yes", "no")))
    assert metrics["overall"].value == metrics["reference/overall"].value == 50


def test_items_weigh_the_same_whatever_their_images() -> None:
    first, second = _prompt("tifa160_1", ((),)), _prompt("midjourney_1", ((),))
    verdicts = [_verdict(first, answer, index=n) for n, answer in enumerate(("yes", "yes", "no"))]
    metrics = _fold(*((first, verdict) for verdict in verdicts), (second, _verdict(second, "no")))
    assert metrics["overall"].value == metrics["reference/overall"].value == pytest.approx(100 / 3)


def test_categories_are_found_in_ids_in_the_scripts_order() -> None:
    items = ("tifa160_2", "stanford_paragraph_5", "localized_narratives_7", "diffusiondb_1", "mine_1")
    assert [*map(category_of, items)] == ["tifa", "paragraph", "paragraph", "real_user", ""]


def test_verdicts_of_another_judge_are_refused() -> None:
    prompt = _prompt("vrd_1", ((),))
    with pytest.raises(BadInput, match="the fold dsg reads verdicts of the judge vqa"):
        _fold((prompt, Verdict("vrd_1/0", "score", "1", score=0.2)))
