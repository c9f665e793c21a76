"""PairComp: whether pictures match two captions that differ in one thing, by the judge's share of yes.

A pair's score is the arithmetic (`overall`) or the geometric mean over its four pictures; the benchmark's
is the mean over six categories, of which "overall appearance" has 250 of the 550 pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sar_eval.errors import BadInput
from sar_eval.measures import Measure, merge, stratum
from sar_eval.suites.listed_answers import Answered, AnsweredImage, answered_images
from sar_eval.suites.paircomp.scoring import CATEGORIES, is_official, official_score, pair_means
from sar_eval.types import Prompt, Verdict

Value = Callable[[Answered], float]
ARITHMETIC, GEOMETRIC = 0, 1  # of `pair_means`


class Pair(NamedTuple):
    """A pair's pictures in the order of its captions and draws."""

    id: str
    category: str
    answers: tuple[Answered, ...]


class PaircompFold:
    """Both scorings of the same answers; intervals are over pairs."""

    version = "1"

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """`overall` (arithmetic), `geometric`, both by category and over all pairs; `reference/*`.

        The reference rounds every score to 4 digits before it takes roots, and has figures only of a
        whole suite of 550 pairs. `listed_mass` is the probability of yes and no together: where it is low,
        the judge answers something else. `floor/geometric_at_most` is what `geometric` would be if every
        spelling that a server hid had the probability of its last token.

        Raises:
            BadInput: a prompt has no question, pair or category, or the evidence is another suite's.
        """
        pairs = _pairs(list(answered_images(prompts, verdicts, "paircomp")))
        return (
            _mean("overall", pairs, _share, ARITHMETIC),
            _mean("geometric", pairs, _share, GEOMETRIC),
            _mean("pairs", pairs, _share, ARITHMETIC, merged=True),
            _mean("pairs_geometric", pairs, _share, GEOMETRIC, merged=True),
            _mean("listed_mass", pairs, _listed, ARITHMETIC, merged=True),
            *_floor(pairs),
            *_by_category("", pairs, _share),
            *(_reference(pairs) if is_official(_numbers(prompts, pairs)) else ()),
        )


def _share(answer: Answered) -> float:
    return answer.listed.distinct / _listed(answer)


def _listed(answer: Answered) -> float:
    return answer.listed.distinct + answer.listed.against


def _official(answer: Answered) -> float:
    return official_score(answer.listed.mass, answer.listed.against)


def _most(answer: Answered) -> float:
    return answer.most / (answer.most + answer.listed.against)


def _pairs(images: Sequence[AnsweredImage]) -> list[Pair]:
    """Every pair with a scored picture, in the order of the suite."""
    found: dict[str, tuple[str, list[Answered]]] = {}
    for image in images:
        pair, category = (image.prompt.checks.get(name) for name in ("pair", "category"))
        if not isinstance(pair, str) or category not in CATEGORIES:
            raise BadInput(
                f"prompt {image.prompt.id}: no pair and category: the fold reads PairComp's suite"
            )
        found.setdefault(pair, (category, []))[1].extend(image.answers)
    return [Pair(pair, category, tuple(answers)) for pair, (category, answers) in found.items()]


def _numbers(prompts: Sequence[Prompt], pairs: Sequence[Pair]) -> dict[str, int]:
    """Pairs of each category if all of the suite are there, in the order of `CATEGORIES`."""
    complete = len(pairs) == len({prompt.checks["pair"] for prompt in prompts})
    return {name: sum(pair.category == name for pair in pairs) * complete for name in CATEGORIES}


def _reference(pairs: Sequence[Pair]) -> list[Measure]:
    rounding = [(pair.id, 0, _geometric(pair, _share) - _geometric(pair, _official), 1.0) for pair in pairs]
    affected = sum(row[2] != 0 for row in rounding)
    return [
        _mean("reference/overall", pairs, _official, ARITHMETIC),
        _mean("reference/geometric", pairs, _official, GEOMETRIC),
        *_by_category("reference/", pairs, _official),
        Measure("quirk/rounding", (stratum(rounding),), count=affected, is_effect=True),
    ]


def _geometric(pair: Pair, value: Value) -> float:
    return pair_means([value(answer) for answer in pair.answers])[GEOMETRIC]


def _floor(pairs: Sequence[Pair]) -> list[Measure]:
    """How much a server's floor can matter; nothing where all probabilities are known."""
    if all(answer.listed.floor is None for pair in pairs for answer in pair.answers):
        return []
    return [_mean("floor/geometric_at_most", pairs, _most, GEOMETRIC)]


def _by_category(prefix: str, pairs: Sequence[Pair], value: Value) -> list[Measure]:
    measures = []
    for ending, which in (("", ARITHMETIC), ("_geometric", GEOMETRIC)):
        for category in CATEGORIES:
            group = [pair for pair in pairs if pair.category == category]
            name = f"{prefix}category/{category}{ending}"
            measures += [_mean(name, group, value, which)] if group else []
    return measures


def _mean(
    name: str, pairs: Sequence[Pair], value: Value, which: int, *, merged: bool = False, **known: Any
) -> Measure:
    """The mean over categories of their pairs' means, or over all pairs if `merged`."""
    strata = []
    for category in CATEGORIES:
        rows = [
            (pair.id, 0, pair_means([value(answer) for answer in pair.answers])[which], 1.0)
            for pair in pairs
            if pair.category == category
        ]
        strata += [stratum(rows, category)] if rows else []
    return Measure(name, (merge(strata),) if merged and strata else tuple(strata), **known)


BENCHMARK = PaircompFold
