"""What a comparison of runs says: plain records that the terminal, the page, the gate and JSON share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sar_eval.types import DrawProtocol, Json, Metric

ALPHA = 0.05  # of every test, and 1 - the level of every two-sided interval
POWER = 0.80  # at which differences count as detectable
Winner = Literal["first", "second", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What must be known of a run to compare it: what was drawn, by what, and how it was judged.

    Attributes:
        name: of the run folder.
        judge_options: those that decide verdicts.
        expected, failed: draws that the run is of, and those of them without a result.
        spec_digest: of the run (see `RunSpec.digest`).
        sar_eval: the version that wrote this.
    """

    name: str
    benchmark: str
    fold: str
    fold_version: str
    suite_digest: str
    prompts: int
    images_per_prompt: int
    checkpoint: str
    checkpoint_digest: str
    protocol: DrawProtocol
    engine: str
    engine_version: str
    dtype: str
    seed: int
    judge: str
    judge_version: str
    judge_digest: str
    judge_options: Mapping[str, Json] = field(default_factory=dict)
    spec_digest: str
    expected: int
    failed: int
    sar_eval: str

    @property
    def is_imported(self) -> bool:
        """Whether another tool drew the images, so that protocol and seeds are not known."""
        return self.engine == "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the compared runs.

    Attributes:
        letter: in tables.
        label: in sentences: the checkpoint's name, with the folder's where that is not enough.
        path: of its folder or baseline file.
        is_baseline: whether it is a file without pictures.
        figures: its own value of every measure, over all its draws.
    """

    letter: str
    label: str
    path: str
    is_baseline: bool
    facts: RunFacts
    figures: Mapping[str, float]

    @property
    def name(self) -> str:
        """Label and letter, as sentences name it."""
        return f"{self.letter} ({self.label})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Second less first of one measure, in the measure's unit. docs/comparing.md explains each number.

    Attributes:
        measure, scale: as of a `Metric`.
        first, second: the two figures, over what both have.
        value: second - first.
        low, high: 95 % interval; None if it cannot be estimated.
        lower, upper: the one-sided 95 % bounds that a gate asks for.
        p: of no difference, two-sided (sign-flip permutation test over prompts).
        p_adjusted: Holm's, over the measures of the same group and over the pairs of runs.
        won, lost, tied: prompts by whose score is higher; won by the second.
        prompts, draws: that are in both.
        unpaired: draws with a score in one of the two alone.
        detectable: the smallest true difference that would be found with 80 % power.
        prompts_needed: prompts with as many images that would find a difference as large as this one with
            80 % power; None if it is 0.
        images_needed: images of each of these prompts that would; None if no number of images would.
    """

    measure: str
    scale: int
    first: float
    second: float
    value: float
    low: float | None
    high: float | None
    lower: float | None
    upper: float | None
    p: float
    p_adjusted: float
    won: int
    lost: int
    tied: int
    prompts: int
    draws: int
    unpaired: int = 0
    detectable: float | None = None
    prompts_needed: int | None = None
    images_needed: int | None = None

    @property
    def group(self) -> str:
        """`task` of `task/counting`, "" of `overall`."""
        return self.measure.rpartition("/")[0]

    @property
    def winner(self) -> Winner:
        """Which is better: by the adjusted p, and only if the interval leaves 0 out, too."""
        if self.low is None or self.high is None or self.p_adjusted > ALPHA:
            return ""
        return "second" if self.low > 0 else "first" if self.high < 0 else ""

    def written(self, value: float | None, sign: str = "+") -> str:
        """A value of this measure as papers print it, +0.021 or -1.30; "-" for none."""
        if value is None:
            return "-"
        return Metric(self.measure, None, None, None, 0, self.scale).written(value, sign)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two compared runs, by letter, and their differences, `overall` first.

    Attributes:
        shares_noise: whether draws of the same key had the same seed under the same protocol, so that
            pairing by draw removes the noise that they share.
        missing: keys of draws with a score in one run alone, some of them, by letter.
        missing_count: how many there are, by letter of the run that lacks them.
    """

    first: str
    second: str
    shares_noise: bool
    differences: tuple[Difference, ...]
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing_count: Mapping[str, int] = field(default_factory=dict)

    @property
    def overall(self) -> Difference:
        """The headline: the benchmark's first measure."""
        return self.differences[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """A run's place by the headline figure; runs that share a letter in `groups` cannot be told apart."""

    letter: str
    value: float
    groups: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published score beside a comparison: never paired, as its images are not at hand."""

    name: str
    overall: float
    tasks: Mapping[str, float]
    source: str
    conditions: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs of one benchmark, compared in pairs.

    Attributes:
        benchmark, scale: of all of them.
        sides: in the order asked for; the first is A.
        pairs: every two of them, in that order.
        ranking: best first; of two runs as well.
        published: to show beside.
        notes: what readers must know: other protocols, seeds, missing draws.
    """

    benchmark: str
    scale: int
    sides: tuple[Side, ...]
    pairs: tuple[Pair, ...]
    ranking: tuple[Rank, ...] = ()
    published: tuple[Published, ...] = ()
    notes: tuple[str, ...] = ()

    def side(self, letter: str) -> Side:
        """The run of a letter."""
        return next(side for side in self.sides if side.letter == letter)


def sentence(comparison: Comparison, pair: Pair) -> str:
    """What a pair's headline figure says, in words."""
    found = pair.overall
    first, second = (comparison.side(letter).name for letter in (pair.first, pair.second))
    figures = f"{found.measure} {found.written(found.value)}, {interval_words(found)}, {p_words(found)}"
    if found.winner:
        better, worse = (second, first) if found.winner == "second" else (first, second)
        return f"{better} is better than {worse}: {figures}, {found.prompts:,} prompts."
    return f"{first} and {second} are not distinguishable: {figures}. {_power_words(found)}"


def interval_words(found: Difference) -> str:
    """`95 % interval [-0.010, +0.031]`."""
    if found.low is None or found.high is None:
        return "no interval (too few prompts)"
    return f"95 % interval [{found.written(found.low)}, {found.written(found.high)}]"


def p_words(found: Difference) -> str:
    """`p = 0.031`, `p < 0.001`; adjusted where that makes a difference."""
    p = found.p_adjusted
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _power_words(found: Difference) -> str:
    if found.detectable is None:
        return "No prompt differs, so nothing is known of what would have been found."
    smallest = found.written(found.detectable, "-")
    words = f"{found.prompts:,} prompts find a difference of {smallest} with 80 % power"
    if found.prompts_needed is None:
        return f"{words}."
    more = f"{found.prompts_needed:,} prompts"
    if found.images_needed is not None:
        more += f", or {found.images_needed:,} images of each of these,"
    return f"{words}; {more} would find one as large as this."
