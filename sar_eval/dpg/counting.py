"""Which of an image's questions count, once their parents' answers are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sar_eval.dpg.questions import Question


@dataclass(frozen=True, slots=True)
class Counted:
    """What a question adds to its image's score.

    Attributes:
        counted: 1 or 0.
        zeroed_by: ids of the parents that do not count, if the question itself was answered yes.
    """

    counted: int
    zeroed_by: tuple[int, ...] = ()


def count(questions: Sequence[Question], yes: Sequence[bool]) -> list[Counted]:
    """One `Counted` for each question: 1 where it and all its ancestors are answered yes.

    A parent that is no question of this image says nothing. In a cycle, each member is an ancestor of
    the others.
    """
    parents = {question.id: question.parents for question in questions}
    said = {question.id: answer for question, answer in zip(questions, yes, strict=True)}
    good = {id_ for id_ in said if all(said[other] for other in _lineage(id_, parents))}
    return [
        Counted(int(q.id in good), _distinct(p for p in q.parents if p in said and p not in good))
        if said[q.id]
        else Counted(0)
        for q in questions
    ]


def _lineage(start: int, parents: Mapping[int, Sequence[int]]) -> set[int]:
    """A question and all its ancestors, whatever way the dependencies go round."""
    found: set[int] = set()
    waiting = [start]
    while waiting:
        if (id_ := waiting.pop()) not in found and id_ in parents:
            found.add(id_)
            waiting.extend(parents[id_])
    return found


def _distinct(ids: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(ids))
