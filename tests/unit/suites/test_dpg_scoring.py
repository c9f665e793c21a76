"""How answers count: in graph order, and as the official script has it."""

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
    Counted,
    Image,
    Item,
    ancestors,
    count,
    l1,
    l2,
    label,
    reference,
)


def _graph(parents: dict[int, tuple[int, ...]]) -> list[Question]:
    return [Question(name, f"q{name}?", above) for name, above in parents.items()]


@st.composite
def graphs(draw: st.DrawFn) -> list[Question]:
    """Any graph: cycles, parents that are no question, parents in later rows."""
    size = draw(st.integers(1, 8))
    parents = st.lists(st.integers(1, size + 2), max_size=3).map(tuple)
    return _graph({name: draw(parents) for name in draw(st.permutations(range(1, size + 1)))})


@st.composite
def sorted_graphs(draw: st.DrawFn) -> list[Question]:
    """Graphs whose parents all stand in earlier rows."""
    size = draw(st.integers(1, 8))
    above = {1: ()} | {
        name: tuple(draw(st.lists(st.integers(1, name - 1), max_size=3))) for name in range(2, size + 1)
    }
    return _graph(above)


def _answers(draw: st.DrawFn, questions: list[Question]) -> list[str]:
    said = st.sampled_from(["yes", "no", "yes.", "red"])
    return draw(st.lists(said, min_size=len(questions), max_size=len(questions)))


def _image(answers: list[str]) -> Image:
    return Image(tuple(answers), tuple(answer.startswith("yes") for answer in answers))


def test_a_no_zeroes_its_descendants_and_names_the_parents() -> None:
    questions = _graph({4: (3,), 1: (), 2: (1, 5), 3: (2, 1), 5: ()})
    assert count(questions, [True, True, True, True, False]) == [
        Counted(0, (3,)),
        Counted(1),
        Counted(0, (5,)),
        Counted(0, (2,)),
        Counted(0),
    ]
    assert count(questions, [True] * 5) == [Counted(1)] * 5
    twice = _graph({1: (2, 2, 3), 2: (3,), 3: ()})
    assert count(twice, [True, True, False]) == [Counted(0, (2, 3)), Counted(0, (3,)), Counted(0)]


def test_missing_parents_are_ignored_and_circles_stand_or_fall_together() -> None:
    circle = _graph({1: (3, 9), 2: (1,), 3: (2,), 4: (4,)})
    assert ancestors(circle) == {1: {1, 2, 3}, 2: {1, 2, 3}, 3: {1, 2, 3}, 4: {4}}
    assert [c.counted for c in count(circle, [True] * 4)] == [1, 1, 1, 1]
    assert count(circle, [True, True, False, True]) == [
        Counted(0, (3,)),
        Counted(0, (1,)),
        Counted(0),
        Counted(1),
    ]
    assert [c.counted for c in count(circle, [True, True, True, False])] == [1, 1, 1, 0]


@given(graphs(), st.data())
def test_counting_does_not_depend_on_the_order_of_rows(questions, data) -> None:
    yes = data.draw(st.lists(st.booleans(), min_size=len(questions), max_size=len(questions)))
    order = data.draw(st.permutations(range(len(questions))))
    found = count(questions, yes)
    again = count([questions[i] for i in order], [yes[i] for i in order])
    assert [found[i] for i in order] == again


@given(graphs(), st.data())
def test_a_question_counts_if_it_and_all_that_it_rests_on_are_yes(questions, data) -> None:
    yes = data.draw(st.lists(st.booleans(), min_size=len(questions), max_size=len(questions)))
    said = {q.id: answer for q, answer in zip(questions, yes, strict=True)}
    known = {q.id: [p for p in q.parents if p in said] for q in questions}
    # A fixed point by another way: take away until nothing changes.
    good = {name for name in said if said[name]}
    while bad := {name for name in good if any(parent not in good for parent in known[name])}:
        good -= bad
    for question, found in zip(questions, count(questions, yes), strict=True):
        blamed = {parent for parent in known[question.id] if parent not in good}
        assert found.counted == (question.id in good)
        assert set(found.zeroed_by) == (blamed if said[question.id] else set())


@given(sorted_graphs(), st.data())
def test_the_script_agrees_where_parents_stand_in_earlier_rows(questions, data) -> None:
    image = _image(_answers(data.draw, questions))
    item = Item("a", tuple(questions), (image,))
    exact = [answer == "yes" for answer in image.answers]
    found = reference([item], [quirk for quirk in QUIRKS if quirk != FIRST_ROW])
    counted = [c.counted for c in count(questions, exact)]
    assert found.scores == {"a": [pytest.approx(sum(counted) / len(counted))]}
    assert found.dropped == ()


@given(st.lists(graphs(), min_size=1, max_size=4), st.data())
def test_without_quirks_the_script_counts_as_we_do(suite, data) -> None:
    items = [
        Item(f"{number}", tuple(questions), (_image(_answers(data.draw, questions)),))
        for number, questions in enumerate(suite)
    ]
    found = reference(items, ())
    assert found.dropped == ()
    for item in items:
        counted = [c.counted for c in count(item.questions, item.images[0].yes)]
        assert found.scores[item.id] == [pytest.approx(sum(counted) / len(counted))]


def _suite(parents: dict[int, tuple[int, ...]], *answers: list[str]) -> list[Item]:
    """One item under test, behind another one that loses its first row."""
    first = Item("first", tuple(_graph({1: (), 2: ()})), (_image(["yes", "yes"]),))
    return [first, Item("a", tuple(_graph(parents)), tuple(map(_image, answers)))]


def test_zeros_of_later_rows_come_too_late() -> None:
    items = _suite({1: (2,), 2: (3,), 3: ()}, ["yes", "yes", "no"])
    assert reference(items).scores["a"] == [pytest.approx(1 / 3)]
    assert reference(items, [q for q in QUIRKS if q != ROW_ORDER]).scores["a"] == [0]


def test_only_the_exact_word_counts() -> None:
    items = _suite({1: (), 2: (1,)}, ["yes.", "yes"])
    assert reference(items).scores["a"] == [0]
    assert reference(items, [q for q in QUIRKS if q != EXACT_YES]).scores["a"] == [1]


def test_a_missing_parent_drops_the_item_where_it_is_looked_up() -> None:
    looked_up = _suite({1: (), 2: (9, 1)}, ["yes", "yes"], ["no", "yes"])
    assert reference(looked_up).dropped == ("a",)
    assert reference(looked_up).categories.keys() == {"first"}
    assert reference(looked_up, [q for q in QUIRKS if q != DROPPED]).scores["a"] == [1, 0]
    # The search stops at the first no; one image that gets past it is enough to fail.
    parents = {1: (), 2: (1, 9)}
    assert reference(_suite(parents, ["no", "yes"])).dropped == ()
    assert reference(_suite(parents, ["no", "yes"], ["yes", "yes"])).dropped == ("a",)


def test_the_first_row_is_never_asked() -> None:
    alone, child = _graph({1: ()}), _graph({1: (), 2: (1,)})
    other = Item("b", tuple(alone), (_image(["yes"]),))
    only = reference([Item("a", tuple(alone), (_image(["no"]),)), other])
    assert (only.dropped, only.scores) == (("a",), {"b": [1]})
    rests = reference([Item("a", tuple(child), (_image(["yes", "yes"]),)), other])
    assert rests.dropped == ("a",)
    free = reference([Item("a", tuple(_graph({1: (), 2: ()})), (_image(["no", "yes"]),)), other])
    assert free.scores["a"] == [1]


def test_ids_that_the_script_cannot_match() -> None:
    questions, seen = tuple(_graph({1: (), 2: ()})), (_image(["yes", "yes"]),)
    numbers = [Item("0", questions, seen), Item("1.5", questions, seen)]
    assert reference(numbers).dropped == ("0", "1.5")
    assert reference([*numbers, Item("x", questions)]).dropped == ("1.5",)


def test_categories_are_of_the_last_image_before_zeroing() -> None:
    items = _suite({1: (), 2: (1,)}, ["no", "no"], ["no", "yes"])
    assert [yes for _, yes in reference(items).categories["a"]] == [0, 1]


def test_category_names() -> None:
    question = Question(1, "?", (), "attribute", "color", "relation - non-spatial (a, b)")
    assert (l2(question), l1(l2(question)), label(question)) == (
        "relation - non-spatial",
        "relation",
        "attribute - color",
    )
    assert l2(Question(1, "?", (), "global")) == label(Question(1, "?", (), "global")) == "global"
