"""Scores of DSG-1k from answers, as its official script computes them, with and without each of its quirks.

Reimplemented from the behaviour of `scripts/t2i_eval_dsg1k.py` and `dsg/vqa_utils.py` in
https://github.com/j-min/DSG (Cho et al., arXiv 2310.18235). Ours is `dpg.scoring.score_questions`.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sar_eval.suites.dpg.answers import mean
from sar_eval.suites.dpg.questions import Question
from sar_eval.suites.dpg.scoring import ImageAnswers, PromptAnswers, score_questions
from sar_eval.suites.dpg.yes_no import read_exact

Id = TypeVar("Id", bound=Hashable)  # of a question
# What the script does and ours does not:
# one word among an item's dependencies, and it forgets them all;
# a question counts if its direct parents are answered yes, whether these count or not;
# items without answers are left out, but for one, which it adds by name with a score of 0;
# only the very text `yes` is one.
UNREAD, DIRECT, ADDED, EXACT_YES = QUIRKS = (
    "dependencies_forgotten",
    "direct_parents_only",
    "unanswered_item_added",
    "only_exact_yes",
)
ADDED_ITEM = "tifa160_134"  # its question 1, of which others depend, is not in the table
# Eight categories of ten sources, by parts of the id in the script's order.
CATEGORIES = {
    "tifa": ("tifa",),
    "paragraph": ("stanford", "localized"),
    "count": ("countbench",),
    "relation": ("vrd",),
    "real_user": ("diffusion", "midjourney"),
    "pose": ("posescript",),
    "defying": ("whoops",),
    "text": ("drawtext",),
}


class UnansweredParentError(LookupError):
    """A question depends on one that has no answer; the official script stops there."""


@dataclass(frozen=True, slots=True)
class ItemScore:
    """The score of one image.

    Attributes:
        score: share of the answered questions that count; 0 if none is answered.
        without_dependency: share of those answered rightly.
        invalid: ids of the questions that a parent zeroes, in the order of the dependencies.
    """

    score: float
    without_dependency: float
    invalid: tuple[Hashable, ...]


def category_of(item: str) -> str:
    """The category of an item's id; "" if the script knows none."""
    return next((name for name, parts in CATEGORIES.items() if any(p in item for p in parts)), "")


def score_item(right: Mapping[Id, bool], parents: Mapping[Id, Sequence[Id]] | None) -> ItemScore:
    """The official score of an image: a question is zeroed by a direct parent that was answered wrongly.

    Args:
        right: whether each answered question was answered rightly.
        parents: of each question, looked up in order up to the first wrong one; 0 is none.

    Raises:
        UnansweredParentError: a parent that is looked up has no answer.
    """
    invalid = tuple(question for question, of in (parents or {}).items() if _is_zeroed(of, right))
    counted = sum(yes for question, yes in right.items() if question not in invalid)
    number = len(right) or 1
    return ItemScore(counted / number, sum(right.values()) / number, invalid)


def _is_zeroed(parents: Sequence[Id], right: Mapping[Id, bool]) -> bool:
    for parent in parents:
        if parent == 0:
            continue
        if parent not in right:
            raise UnansweredParentError(f"question {parent!r} has no answer")
        if not right[parent]:
            return True
    return False


def reference_scores(
    answered: Sequence[PromptAnswers], unread: Collection[str], quirks: Sequence[str] = QUIRKS
) -> dict[str, list[float]]:
    """The script's scores of each item's images; without any quirk, they equal ours.

    An item of which a question depends on one that does not exist stops the script once it is answered: in
    the released answers there is none, and it counts here as an item without answers.

    Args:
        answered: items with their images.
        unread: ids of items of which the script forgets the dependencies.
        quirks: those that are on.
    """
    scores = {}
    for item in answered:
        found = _image_scores(item, item.id in unread, quirks) if item.images else []
        if found:
            scores[item.id] = found
        elif item.id == ADDED_ITEM and ADDED in quirks:
            scores[item.id] = [0.0] * max(1, len(item.images))
    return scores


def _image_scores(item: PromptAnswers, is_unread: bool, quirks: Sequence[str]) -> list[float]:
    """Scores of an item's images; none where the script would stop."""
    parents = {q.id: () if is_unread and UNREAD in quirks else q.parents for q in item.questions}
    if ADDED not in quirks:
        parents = {of: tuple(p for p in ids if p in parents) for of, ids in parents.items()}
    try:
        return [_image_score(item.questions, parents, image, quirks) for image in item.images]
    except UnansweredParentError:
        return []


def _image_score(
    questions: Sequence[Question],
    parents: Mapping[int, Sequence[int]],
    image: ImageAnswers,
    quirks: Sequence[str],
) -> float:
    yes = image.yes if EXACT_YES not in quirks else tuple(map(read_exact, image.answers))
    if DIRECT in quirks:
        right = {question.id: ok for question, ok in zip(questions, yes, strict=True)}
        return score_item(right, parents).score
    linked = [Question(q.id, q.text, tuple(parents[q.id])) for q in questions]
    return mean([score.counted for score in score_questions(linked, yes)])
