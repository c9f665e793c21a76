"""Scores of answers: along the question graph, and as the official script has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sar_eval.suites.dpg.questions import Question
from sar_eval.suites.dpg.scoring import (
    DROPPED,
    EXACT_YES,
    FIRST_ROW,
    QUIRKS,
    ROW_ORDER,
    ImageAnswers,
    PromptAnswers,
    QuestionScore,
    ancestors,
    column_category,
    l1_category,
    l2_category,
    reference_scores,
    score_questions,
)


def _graph(parents: dict[int, tuple[int, ...]]) -> list[Question]:
    return [Question(name, f"q{name}?", parent_ids) for name, parent_ids in parents.items()]


@st.composite
def graphs(draw: st.DrawFn) -> list[Question]:
    """Any graph: with cycles, missing parents, parents in later rows."""
    size = draw(st.integers(1, 8))
    parents = st.lists(st.integers(1, size + 2), max_size=3).map(tuple)
    return _graph({name: draw(parents) for name in draw(st.permutations(range(1, size + 1)))})


@st.composite
def sorted_graphs(draw: st.DrawFn) -> list[Question]:
    """Graphs with all parents in earlier rows."""
    size = draw(st.integers(1, 8))
    parents = {1: ()} | {
        name: tuple(draw(st.lists(st.integers(1, name - 1), max_size=3))) for name in range(2, size + 1)
    }
    return _graph(parents)


def _answers(draw: st.DrawFn, questions: list[Question]) -> list[str]:
    texts = st.sampled_from(["yes", "no", "yes.", "red"])
    return draw(st.lists(texts, min_size=len(questions), max_size=len(questions)))


def _image(answers: list[str]) -> ImageAnswers:
    return ImageAnswers(tuple(answers), tuple(answer.startswith("yes") for answer in answers))


def test_a_no_zeroes_its_descendants_and_names_the_parents() -> None:
    questions = _graph({4: (3,), 1: (), 2: (1, 5), 3: (2, 1), 5: ()})
    assert score_questions(questions, [True, True, True, True, False]) == [
        QuestionScore(0, (3,)),
        QuestionScore(1),
        QuestionScore(0, (5,)),
        QuestionScore(0, (2,)),
        QuestionScore(0),
    ]
    assert score_questions(questions, [True] * 5) == [QuestionScore(1)] * 5
    twice = _graph({1: (2, 2, 3), 2: (3,), 3: ()})
    assert score_questions(twice, [True, True, False]) == [
        QuestionScore(0, (2, 3)),
        QuestionScore(0, (3,)),
        QuestionScore(0),
    ]


def test_missing_parents_are_ignored_and_cycles_score_together_or_not_at_all() -> None:
    circle = _graph({1: (3, 9), 2: (1,), 3: (2,), 4: (4,)})
    assert ancestors(circle) == {1: {1, 2, 3}, 2: {1, 2, 3}, 3: {1, 2, 3}, 4: {4}}
    assert [c.counted for c in score_questions(circle, [True] * 4)] == [1, 1, 1, 1]
    assert score_questions(circle, [True, True, False, True]) == [
        QuestionScore(0, (3,)),
        QuestionScore(0, (1,)),
        QuestionScore(0),
        QuestionScore(1),
    ]
    assert [c.counted for c in score_questions(circle, [True, True, True, False])] == [1, 1, 1, 0]


@given(graphs(), st.data())
def test_scores_do_not_depend_on_the_order_of_rows(questions, data) -> None:
    yes = data.draw(st.lists(st.booleans(), min_size=len(questions), max_size=len(questions)))
    order = data.draw(st.permutations(range(len(questions))))
    scores = score_questions(questions, yes)
    reordered = score_questions([questions[i] for i in order], [yes[i] for i in order])
    assert [scores[i] for i in order] == reordered


@given(graphs(), st.data())
def test_a_question_counts_if_it_and_all_its_ancestors_are_yes(questions, data) -> None:
    yes = data.draw(st.lists(st.booleans(), min_size=len(questions), max_size=len(questions)))
    is_yes = {q.id: answer for q, answer in zip(questions, yes, strict=True)}
    parents = {q.id: [p for p in q.parents if p in is_yes] for q in questions}
    # The fixed point by another algorithm: remove until nothing changes.
    counting = {name for name in is_yes if is_yes[name]}
    while failed := {name for name in counting if any(p not in counting for p in parents[name])}:
        counting -= failed
    for question, score in zip(questions, score_questions(questions, yes), strict=True):
        zeroed_by = {parent for parent in parents[question.id] if parent not in counting}
        assert score.counted == (question.id in counting)
        assert set(score.zeroed_by) == (zeroed_by if is_yes[question.id] else set())


@given(sorted_graphs(), st.data())
def test_the_reference_equals_our_scores_if_parents_are_in_earlier_rows(questions, data) -> None:
    image = _image(_answers(data.draw, questions))
    item = PromptAnswers("a", tuple(questions), (image,))
    exact = [answer == "yes" for answer in image.answers]
    reference = reference_scores([item], [quirk for quirk in QUIRKS if quirk != FIRST_ROW])
    counted = [c.counted for c in score_questions(questions, exact)]
    assert reference.scores == {"a": [pytest.approx(sum(counted) / len(counted))]}
    assert reference.dropped == ()


@given(st.lists(graphs(), min_size=1, max_size=4), st.data())
def test_without_quirks_the_reference_equals_our_scores(suite, data) -> None:
    items = [
        PromptAnswers(f"{number}", tuple(questions), (_image(_answers(data.draw, questions)),))
        for number, questions in enumerate(suite)
    ]
    reference = reference_scores(items, ())
    assert reference.dropped == ()
    for item in items:
        counted = [c.counted for c in score_questions(item.questions, item.images[0].yes)]
        assert reference.scores[item.id] == [pytest.approx(sum(counted) / len(counted))]


def _suite(parents: dict[int, tuple[int, ...]], *answers: list[str]) -> list[PromptAnswers]:
    """One item under test, behind another one that loses its first row."""
    first = PromptAnswers("first", tuple(_graph({1: (), 2: ()})), (_image(["yes", "yes"]),))
    return [first, PromptAnswers("a", tuple(_graph(parents)), tuple(map(_image, answers)))]


def test_zeros_of_later_rows_do_not_affect_earlier_rows() -> None:
    items = _suite({1: (2,), 2: (3,), 3: ()}, ["yes", "yes", "no"])
    assert reference_scores(items).scores["a"] == [pytest.approx(1 / 3)]
    assert reference_scores(items, [q for q in QUIRKS if q != ROW_ORDER]).scores["a"] == [0]


def test_only_the_exact_word_counts() -> None:
    items = _suite({1: (), 2: (1,)}, ["yes.", "yes"])
    assert reference_scores(items).scores["a"] == [0]
    assert reference_scores(items, [q for q in QUIRKS if q != EXACT_YES]).scores["a"] == [1]


def test_a_missing_parent_drops_the_item_where_it_is_looked_up() -> None:
    looked_up = _suite({1: (), 2: (9, 1)}, ["yes", "yes"], ["no", "yes"])
    assert reference_scores(looked_up).dropped == ("a",)
    assert reference_scores(looked_up).categories.keys() == {"first"}
    assert reference_scores(looked_up, [q for q in QUIRKS if q != DROPPED]).scores["a"] == [1, 0]
    # The search stops at the first no; one image that gets past it is enough to fail.
    parents = {1: (), 2: (1, 9)}
    assert reference_scores(_suite(parents, ["no", "yes"])).dropped == ()
    assert reference_scores(_suite(parents, ["no", "yes"], ["yes", "yes"])).dropped == ("a",)


def test_the_first_row_is_never_asked() -> None:
    alone, child = _graph({1: ()}), _graph({1: (), 2: (1,)})
    other = PromptAnswers("b", tuple(alone), (_image(["yes"]),))
    only = reference_scores([PromptAnswers("a", tuple(alone), (_image(["no"]),)), other])
    assert (only.dropped, only.scores) == (("a",), {"b": [1]})
    rests = reference_scores([PromptAnswers("a", tuple(child), (_image(["yes", "yes"]),)), other])
    assert rests.dropped == ("a",)
    free = reference_scores(
        [PromptAnswers("a", tuple(_graph({1: (), 2: ()})), (_image(["no", "yes"]),)), other]
    )
    assert free.scores["a"] == [1]


def test_ids_that_the_script_cannot_match() -> None:
    questions, images = tuple(_graph({1: (), 2: ()})), (_image(["yes", "yes"]),)
    numbers = [PromptAnswers("0", questions, images), PromptAnswers("1.5", questions, images)]
    assert reference_scores(numbers).dropped == ("0", "1.5")
    assert reference_scores([*numbers, PromptAnswers("x", questions)]).dropped == ("1.5",)


def test_categories_are_of_the_last_image_before_zeroing() -> None:
    items = _suite({1: (), 2: (1,)}, ["no", "no"], ["no", "yes"])
    assert [yes for _, yes in reference_scores(items).categories["a"]] == [0, 1]


def test_category_names() -> None:
    question = Question(1, "?", (), "attribute", "color", "relation - non-spatial (a, b)")
    assert (l2_category(question), l1_category(l2_category(question)), column_category(question)) == (
        "relation - non-spatial",
        "relation",
        "attribute - color",
    )
    assert (
        l2_category(Question(1, "?", (), "global"))
        == column_category(Question(1, "?", (), "global"))
        == "global"
    )
