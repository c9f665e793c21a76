"""What a comparison of runs says: plain records that the terminal, the page, the gate and JSON share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sar_eval.types import DrawProtocol, Json, Metric

ALPHA = 0.05  # of every test, and 1 - the level of every two-sided interval
POWER = 0.80  # at which differences count as detectable
FailIf = Literal["not-shown", "worse"]  # when a gate fails: unless good is shown, or if bad is
Winner = Literal["first", "second", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What must be known of a run to compare it: what was drawn, by what, and how it was judged.

    Attributes:
        name: of the run folder.
        judge_options: those that decide verdicts.
        expected, failed: draws that the run is of, and those of them without a result.
        spec_digest: of the run (see `RunSpec.digest`).
        beside: version of each scorer whose numbers stand beside the verdicts.
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
    beside: Mapping[str, str] = field(default_factory=dict)

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
        detectable: the smallest true difference that would be found with 80 % power, by the unadjusted p;
            None if prompts are too few to find any, or their spread is not known.
        prompts_needed: prompts with as many images that would find a difference as large as this one with
            80 % power; None if it is 0, or with `detectable`.
        images_needed: images of each of these prompts that would; None if no number of images would, or it
            is not known.
        noise_share: of the difference's variance, the part that more images would remove; None if unknown.
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
    noise_share: float | None = None

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
        shares_noise: whether draws of the same key began with the same noise (same seed and size),
            so that pairing by draw removes what they share of it.
        missing: keys of draws with a score in one run alone, some of them, by letter.
        missing_count: how many there are, by letter of the run that lacks them.
        preferences: of each scorer that is a preference model, by its name: the mean probability that the
            second run's picture is preferred to the first's of the same prompt and index.
    """

    first: str
    second: str
    shares_noise: bool
    differences: tuple[Difference, ...]
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing_count: Mapping[str, int] = field(default_factory=dict)
    preferences: tuple[Metric, ...] = ()

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question that a gate asks of one measure, and its answer.

    Attributes:
        asked: `not-worse`: is the run shown to be at most `limit` worse than the baseline? `worse`: is it
            shown to be more than that worse? `floor`: is its own figure at least `limit`?
        measure, scale: as of a `Metric`.
        limit: the tolerance, or the floor, in the measure's unit.
        answer: `yes` and `no` are shown; `undecided`: neither is.
        passed: whether the gate may pass.
        figure: the run's own, over what is compared, or over all its draws for a floor.
        baseline: the baseline's; None for a floor.
        value: figure - baseline.
        lower, upper: one-sided bounds of the difference; None for a floor or if they cannot be estimated.
        confidence: of each bound.
        prompts: that both have.
        prompts_needed, images_needed: as of a `Difference`, for an answer if the difference is as observed.
    """

    asked: Literal["not-worse", "worse", "floor"]
    measure: str
    scale: int
    limit: float
    answer: Literal["yes", "no", "undecided"]
    passed: bool
    figure: float
    baseline: float | None = None
    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    confidence: float = 1 - ALPHA
    prompts: int = 0
    prompts_needed: int | None = None
    images_needed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What was known after a round of a sequential run, in the measure's unit. See docs/sequential.md.

    Attributes:
        prompts, images: drawn and judged so far; `of` is all of the suite's images.
        figure, baseline, value: of them, as of a `Question`.
        lower, upper: one-sided bounds of the difference, each of which holds after all rounds at once with
            95 % confidence.
        low, high: both bounds of the 95 % confidence sequence.
        decision: `pass` and `fail`: the loss is shown to be below, or above, the tolerance; `open`.
    """

    measure: str
    scale: int
    prompts: int
    images: int
    of: int
    figure: float
    baseline: float
    value: float
    lower: float
    upper: float
    low: float
    high: float
    decision: Literal["pass", "fail", "open"]

    @property
    def drawn(self) -> str:
        """`144 of 1,440 images`."""
        return f"{self.images:,} of {self.of:,} images"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What a gate asked of a run, and whether it passes: if every question does.

    Attributes:
        run, run_path: the checkpoint's name, and the run folder.
        baseline, baseline_path: what it was held against; "" without one.
        questions: in the order of the measures, floors last.
        comparison: with the baseline, as first run.
        notes: what readers must know.
        rounds: of a sequential run.
    """

    benchmark: str
    run: str
    run_path: str
    baseline: str = ""
    baseline_path: str = ""
    questions: tuple[Question, ...]
    comparison: Comparison | None = None
    notes: tuple[str, ...] = ()
    rounds: tuple[Round, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every question passes."""
        return all(question.passed for question in self.questions)

    @property
    def failures(self) -> tuple[Question, ...]:
        """The questions that do not."""
        return tuple(question for question in self.questions if not question.passed)


def sentence(comparison: Comparison, pair: Pair) -> str:
    """What a pair's headline figure says, in words."""
    found = pair.overall
    figures = f"{found.measure} {found.written(found.value)}, {interval_words(found)}, {p_words(found)}"
    if found.winner:
        return f"{claim(comparison, pair)}: {figures}, {found.prompts:,} prompts."
    return f"{claim(comparison, pair)}: {figures}. {_power_words(found)}"


def claim(comparison: Comparison, pair: Pair) -> str:
    """Which of the two is better by the headline figure, without the figures."""
    first, second = (comparison.side(letter).name for letter in (pair.first, pair.second))
    if not pair.overall.winner:
        return f"{first} and {second} are not distinguishable"
    better, worse = (second, first) if pair.overall.winner == "second" else (first, second)
    return f"{better} is better than {worse}"


def preference_words(pair: Pair, found: Metric) -> str:
    """`pickscore prefers B's picture to A's with probability 0.531, ...`."""
    limits = found.low, found.high
    value, low, high = ("-" if v is None else found.written(v) for v in (found.value, *limits))
    return (
        f"{found.name} prefers {pair.second}'s picture to {pair.first}'s with a mean probability of "
        f"{value}, 95 % interval [{low}, {high}], {found.n:,} pairs of pictures"
    )


def interval_words(found: Difference) -> str:
    """`95 % interval [-0.010, +0.031]`."""
    if found.low is None or found.high is None:
        return "no interval (too few prompts)"
    return f"95 % interval [{found.written(found.low)}, {found.written(found.high)}]"


def p_words(found: Difference) -> str:
    """`p = 0.031`, `p < 0.001`; adjusted where that makes a difference."""
    p = found.p_adjusted
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _prompts(found: Difference) -> str:
    return "1 prompt is" if found.prompts == 1 else f"{found.prompts:,} prompts are"


def _power_words(found: Difference) -> str:
    if found.detectable is None and found.won + found.lost == 0:
        return "No prompt differs, so nothing is known of what would have been found."
    if found.detectable is None:
        return f"{_prompts(found)} too few to find a difference of any size with 80 % power."
    smallest = found.written(found.detectable, "-")
    words = f"{found.prompts:,} prompts find a difference of {smallest} with 80 % power"
    if found.prompts_needed is None:
        return f"{words}."
    more = f"{found.prompts_needed:,} prompts"
    if found.images_needed is not None:
        more += f", or {found.images_needed:,} images of each of these,"
    return f"{words}; {more} would find one as large as this."
