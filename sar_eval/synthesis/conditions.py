"""Parsed filters and ranks: trees of numbers and conditions, in Kleene's strong logic of three values.

`and` is the least of False < missing < True, `or` the greatest, `not` the opposite (S. C. Kleene,
Introduction to Metamathematics, 1952, section 64). A missing value (an error, a judge without that verdict,
NaN) leaves the outcome missing only where it decides.

A draw's values arrive one measure after another, the cheapest first. What is still possible is then a span
of the chain, and an outcome known as soon as its ends meet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sar_eval.storage.set_rows import Value

NO, MISSING, YES = range(3)  # the chain
CUTS = (MISSING, YES)  # each parts the outcomes below it from those that reach it

Values = Mapping[str, Value]


def is_missing(number: float | None) -> bool:
    """Whether there is none, or none that can be compared."""
    return number is None or not math.isfinite(number)


class Number(Protocol):
    """A part that stands for a number."""

    def number(self, values: Values) -> float | None:
        """Its value, finite; None where one is missing or that cannot be reckoned."""
        ...

    def reads(self) -> Iterator[Score | Passed]:
        """What it reads of measures, as often as it stands there."""
        ...


class Condition(Protocol):
    """A part that is true or false."""

    def span(self, values: Values) -> tuple[int, int]:
        """The least and greatest outcome possible, where what is not in `values` may be anything."""
        ...

    def needs(self, values: Values, cuts: Sequence[int]) -> Iterator[str]:
        """Of what is not in `values`, the names that can move the outcome over one of the cuts."""
        ...

    def reads(self) -> Iterator[Score | Passed]:
        """What it reads of measures, as often as it stands there."""
        ...


@dataclass(frozen=True, slots=True)
class Literal:
    """A number as written."""

    value: float

    def number(self, values: Values) -> float | None:
        """The same for all draws."""
        del values
        return self.value

    def reads(self) -> Iterator[Score | Passed]:
        """Nothing."""
        yield from ()


@dataclass(frozen=True, slots=True)
class Score:
    """The score of a measure."""

    name: str

    def number(self, values: Values) -> float | None:
        """None if it is missing."""
        value = values[self.name]
        return None if self.lacks(value) else value.score

    def lacks(self, value: Value) -> bool:
        """Whether the measure was asked and gave no score."""
        return value.error is not None or is_missing(value.score)

    def reads(self) -> Iterator[Score | Passed]:
        """Itself."""
        yield self


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Two numbers and what makes a third of them."""

    operation: Callable[[float, float], float]
    left: Number
    right: Number

    def number(self, values: Values) -> float | None:
        """None also where 0 divides or the result is not finite."""
        left, right = self.left.number(values), self.right.number(values)
        if left is None or right is None:
            return None
        try:
            found = self.operation(left, right)
        except ZeroDivisionError:
            return None
        return found if math.isfinite(found) else None

    def reads(self) -> Iterator[Score | Passed]:
        """Of both sides."""
        yield from self.left.reads()
        yield from self.right.reads()


class Atom:
    """Base of conditions that are not made of conditions; a subclass has `outcome` and `reads`."""

    __slots__ = ()

    def outcome(self, values: Values) -> int:
        """The one outcome where everything has been asked and nothing is missing."""
        raise NotImplementedError

    def reads(self) -> Iterator[Score | Passed]:
        """Nothing, unless a subclass says otherwise."""
        yield from ()

    def span(self, values: Values) -> tuple[int, int]:
        """All outcomes until everything is there, or until something is known to be missing."""
        reads = list(self.reads())
        if any(read.name in values and read.lacks(values[read.name]) for read in reads):
            return MISSING, MISSING
        if not all(read.name in values for read in reads):
            return NO, YES
        outcome = self.outcome(values)
        return outcome, outcome

    def needs(self, values: Values, cuts: Sequence[int]) -> Iterator[str]:
        """Everything that was not asked, as long as the outcome is open and somebody sees it."""
        low, high = self.span(values)
        if cuts and low < high:
            yield from (read.name for read in self.reads() if read.name not in values)


@dataclass(frozen=True, slots=True)
class Constant(Atom):
    """True or False as written."""

    value: bool

    def outcome(self, values: Values) -> int:
        """The same for all draws."""
        del values
        return YES if self.value else NO


@dataclass(frozen=True, slots=True)
class Passed(Atom):
    """Whether a judge says that the picture passed."""

    name: str

    def outcome(self, values: Values) -> int:
        """As the judge says."""
        return YES if values[self.name].passed else NO

    def lacks(self, value: Value) -> bool:
        """Whether the measure was asked and said neither."""
        return value.error is not None or value.passed is None

    def reads(self) -> Iterator[Score | Passed]:
        """Itself."""
        yield self


@dataclass(frozen=True, slots=True)
class Comparison(Atom):
    """Two numbers, compared."""

    holds: Callable[[float, float], bool]
    left: Number
    right: Number

    def outcome(self, values: Values) -> int:
        """Missing if a side cannot be reckoned."""
        left, right = self.left.number(values), self.right.number(values)
        if left is None or right is None:
            return MISSING
        return YES if self.holds(left, right) else NO

    def reads(self) -> Iterator[Score | Passed]:
        """Of both sides."""
        yield from self.left.reads()
        yield from self.right.reads()


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite, on the same chain."""

    part: Condition

    def span(self, values: Values) -> tuple[int, int]:
        """The part's, upside down."""
        low, high = self.part.span(values)
        return YES - high, YES - low

    def needs(self, values: Values, cuts: Sequence[int]) -> Iterator[str]:
        """Cuts are upside down, too."""
        yield from self.part.needs(values, [YES + 1 - cut for cut in cuts])

    def reads(self) -> Iterator[Score | Passed]:
        """Of the part."""
        yield from self.part.reads()


@dataclass(frozen=True, slots=True)
class Joined:
    """`and` (the least of all parts, `pick` is min) or `or` (the greatest, `pick` is max)."""

    pick: Callable[..., int]
    parts: tuple[Condition, ...]

    def span(self, values: Values) -> tuple[int, int]:
        """The least or greatest of the ends."""
        spans = [part.span(values) for part in self.parts]
        return self.pick(low for low, _ in spans), self.pick(high for _, high in spans)

    def needs(self, values: Values, cuts: Sequence[int]) -> Iterator[str]:
        """A cut shows through the other parts if none of them must hide it.

        In `or`, that is one that reaches the cut whatever comes; in `and`, one that stays below it.
        """
        spans = [part.span(values) for part in self.parts]
        for number, part in enumerate(self.parts):
            others = spans[:number] + spans[number + 1 :]
            if self.pick is max:
                seen = [cut for cut in cuts if all(low < cut for low, _ in others)]
            else:
                seen = [cut for cut in cuts if all(high >= cut for _, high in others)]
            yield from part.needs(values, seen)

    def reads(self) -> Iterator[Score | Passed]:
        """Of all parts."""
        for part in self.parts:
            yield from part.reads()


@dataclass(frozen=True, slots=True)
class Clause:
    """One of the conditions that a filter joins by `and`."""

    text: str
    condition: Condition

    @property
    def names(self) -> tuple[str, ...]:
        """Of the measures, in order of appearance, each once."""
        return tuple(dict.fromkeys(read.name for read in self.condition.reads()))

    def evaluate(self, values: Values) -> bool | None:
        """Whether it holds; None where a missing value decides."""
        return _evaluate(self.condition, values)


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter; without clauses, everything passes.

    Attributes:
        text: as written.
        clauses: the conditions that are joined by `and` on the outside.
        sources: what the names were written for, by name: the same, but for files.
    """

    text: str
    clauses: tuple[Clause, ...]
    sources: Mapping[str, str]
    _whole: Condition = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        conditions = tuple(clause.condition for clause in self.clauses)
        object.__setattr__(self, "_whole", Joined(min, conditions or (Constant(True),)))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the measures, in order of appearance, each once."""
        return tuple(self.sources)

    def evaluate(self, values: Values) -> bool | None:
        """Whether a draw passes; None where a missing value decides. Names not in `values` are missing."""
        return _evaluate(self._whole, values)

    def needs(self, values: Values) -> frozenset[str]:
        """Of the names that are not in `values`, those whose value can still change the outcome."""
        return frozenset(self._whole.needs(values, CUTS))

    def lacks(self, name: str, value: Value) -> bool:
        """Whether a measure's value has not all that the filter reads of it."""
        return any(read.lacks(value) for read in self._whole.reads() if read.name == name)


@dataclass(frozen=True, slots=True)
class Rank:
    """A parsed rank: a number made of scores, of which more is better.

    Attributes:
        text: as written.
        expression: the number.
        sources: as of a `Filter`.
    """

    text: str
    expression: Number
    sources: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the measures, in order of appearance, each once."""
        return tuple(self.sources)

    def evaluate(self, values: Values) -> float | None:
        """The number; None where a value is missing."""
        return self.expression.number(_asked(self.names, values))


def _evaluate(condition: Condition, values: Values) -> bool | None:
    low, _ = condition.span(_asked((read.name for read in condition.reads()), values))
    return None if low == MISSING else low == YES


def _asked(names: Iterable[str], values: Values) -> Values:
    """The values as if all had been asked: what is not there is missing."""
    return {name: values.get(name) or Value(error="not asked") for name in names}
