"""Stage: hold a run against a baseline and against floors, and answer each question that this asks.

docs/ci.md explains the two questions and their errors.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sar_eval.comparisons import ALPHA, Comparison, Difference, FailIf, GateResult, Question, RunFacts, Side
from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.measures import Measure
from sar_eval.stages.alike import check_alike
from sar_eval.stages.compare import Allowed, check_complete, checkpoint_name, compare, share_words, side_of
from sar_eval.stages.measure import ScoredRun
from sar_eval.stats.differences import one_sided_bounds
from sar_eval.stats.power import needed_to_show

ALL = "all"
TOLERANCE = 0.01  # of the largest difference of scores: of the scale for those in [0, 1]
ROUNDING = 1e-9  # of the scale, by which a mean may miss the floor that it equals


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a gate asks.

    Attributes:
        tolerance: how much worse is good enough, in the measures' unit; None for `TOLERANCE`.
        fail_if: `not-shown`: unless the run is shown to be at most so much worse; `worse`: only if it is
            shown to be more than so much worse.
        measures: to hold against the baseline; none for the headline, `all` for every one.
        floors: least values of the run's own figures.
    """

    tolerance: float | None = None
    fail_if: FailIf = "not-shown"
    measures: tuple[str, ...] = ()
    floors: Mapping[str, float] = field(default_factory=dict)

    def limit(self, measure: Measure) -> float:
        """The tolerance for a measure, in its unit.

        Raises:
            BadInput: none is given, and the measure's scores have no bounds that it could be a part of.
        """
        if self.tolerance is not None:
            return self.tolerance
        if measure.bounds is None:
            raise BadInput(
                f"{shorten(measure.name)} has scores of any size, so that no loss is small in itself: say "
                "by --tolerance how large a one does not matter"
            )
        return TOLERANCE * measure.scale * (measure.bounds[1] - measure.bounds[0])


def gate(run: ScoredRun, baseline: ScoredRun | None, asked: Asked, allowed: Allowed) -> GateResult:
    """Ask each question of a finished run.

    Args:
        run: to be held against the baseline.
        baseline: None to ask of floors alone.
        asked: the questions.
        allowed: in what the two may differ.

    Raises:
        BadInput: the two are not alike, or have no such measure.
        Incomplete: draws lack a score or a partner, and more of them than is allowed.
    """
    side = side_of(run, "B", checkpoint_name(run.facts))
    check_complete(side, allowed)
    _check_measures(asked, run.measures)
    _check_floors(asked, run.measures)
    floors = tuple(_floor_questions(asked.floors, side, run.measures))
    known = GateResult(benchmark=run.facts.benchmark, run=side.label, run_path=side.path, questions=floors)
    if baseline is None:
        return known
    _check_measures(asked, baseline.measures)
    found = compare([baseline, run], [], allowed)
    questions = (*_questions(found, baseline.measures, run.measures, asked), *floors)
    return _with_comparison(replace(known, questions=questions), found)


def check_fit(facts: RunFacts, path: Path, baseline: ScoredRun, asked: Asked, allowed: Allowed) -> None:
    """Refuse a baseline that a run could not be held against, before the run is drawn.

    Args:
        facts: of the run, as far as they are known.
        path: of its folder.
        baseline, asked, allowed: as of `gate`.

    Raises:
        BadInput: they are not alike, not of as many images, or the baseline has no such measure.
        Incomplete: the baseline has more holes than are allowed.
    """
    first = side_of(baseline, "A", checkpoint_name(baseline.facts))
    second = Side(letter="B", label="", path=str(path), is_baseline=False, facts=facts, figures={})
    check_complete(first, allowed)
    check_alike(first, second, across_protocol=allowed.protocol)
    _check_measures(asked, baseline.measures)
    _check_tolerance(asked, baseline.measures)
    if not allowed.missing:  # then it has all that the run will have
        _check_floors(asked, baseline.measures)
    for side, other in ((first, second), (second, first)):
        total = other.facts.expected
        lacking = total - min(total, side.facts.expected)
        if lacking > allowed.missing * total:
            raise BadInput(
                f"{side.path} is of {side.facts.images_per_prompt} images of each prompt, {other.path} of "
                f"{other.facts.images_per_prompt}: draw as many (-n), or --allow-missing "
                f"{share_words(lacking / total)} compares what both have"
            )


def _check_measures(asked: Asked, measures: Sequence[Measure]) -> None:
    for name in asked.measures:
        if name != ALL:
            _check_name("--measure", name, [m.name for m in measures if not m.is_effect])


def _check_tolerance(asked: Asked, measures: Sequence[Measure]) -> None:
    """Refuse a measure that needs a tolerance of its own before anything is drawn."""
    names = asked.measures or (measures[0].name,)
    for measure in measures:
        if not measure.is_effect and (ALL in names or measure.name in names):
            asked.limit(measure)


def _check_floors(asked: Asked, measures: Sequence[Measure]) -> None:
    for name in asked.floors:
        _check_name("--floor", name, [m.name for m in measures])


def _check_name(flag: str, name: str, known: Collection[str]) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, 1, 0.4) or [k for k in known if k.endswith(f"/{name}")]
    hint = f"did you mean {shorten(near[0])}?" if near else f"known: {', '.join(map(shorten, known))}"
    raise BadInput(f"{flag} {shorten(name)}: there is no such measure to ask of; {hint}")


def _with_comparison(known: GateResult, found: Comparison) -> GateResult:
    baseline = found.sides[0]
    return replace(
        known,
        baseline=checkpoint_name(baseline.facts),
        baseline_path=baseline.path,
        comparison=found,
        notes=found.notes,
    )


def _questions(
    found: Comparison, first: Sequence[Measure], second: Sequence[Measure], asked: Asked
) -> Iterator[Question]:
    """One for each measure.

    Where all must be shown, an error of 5 % each is one of at most 5 % for the gate (an intersection-union
    test, Berger 1982). Where one that is shown to be worse fails the gate, errors add up: they are shared
    out (Bonferroni).
    """
    differences = list(_chosen(found.pairs[0].differences, asked))
    alpha = ALPHA / len(differences) if asked.fail_if == "worse" else ALPHA
    before, after = ({m.name: m for m in measures} for measures in (first, second))
    for difference in differences:
        lower, upper = difference.lower, difference.upper
        if alpha < ALPHA:
            name = difference.measure
            lower, upper = one_sided_bounds(before[name], after[name], alpha)
        yield _question(difference, (lower, upper), alpha, asked, before[difference.measure])


def _chosen(differences: Sequence[Difference], asked: Asked) -> Iterator[Difference]:
    """The measures asked of, in the comparison's order.

    Raises:
        BadInput: one has no image in common.
    """
    names = set(asked.measures or (differences[0].measure,))
    if ALL in names:
        names = {d.measure for d in differences}
    if unknown := sorted(names - {d.measure for d in differences}):
        raise BadInput(f"--measure {shorten(unknown[0])}: the two runs have no image of it in common")
    return (d for d in differences if d.measure in names)


def _question(
    found: Difference,
    bounds: tuple[float | None, float | None],
    alpha: float,
    asked: Asked,
    measure: Measure,
) -> Question:
    (lower, upper), tolerance = bounds, asked.limit(measure)
    is_near = lower is not None and lower > -tolerance  # shown to be at most so much worse
    is_worse = upper is not None and upper < -tolerance  # shown to be more than that
    wants_worse = asked.fail_if == "worse"
    yes, no = (is_worse, is_near) if wants_worse else (is_near, is_worse)
    prompts, images = needed_to_show(found, abs(found.value + tolerance), alpha)
    return Question(
        asked="worse" if wants_worse else "not-worse",
        measure=found.measure,
        scale=found.scale,
        limit=tolerance,
        answer="yes" if yes else "no" if no else "undecided",
        passed=not is_worse if wants_worse else is_near,
        figure=found.second,
        baseline=found.first,
        value=found.value,
        lower=lower,
        upper=upper,
        confidence=1 - alpha,
        prompts=found.prompts,
        prompts_needed=prompts,
        images_needed=images,
    )


def _floor_questions(
    floors: Mapping[str, float], side: Side, measures: Sequence[Measure]
) -> Iterator[Question]:
    scales = {measure.name: measure.scale for measure in measures}
    for name, floor in floors.items():
        figure = side.figures.get(name)
        if figure is None:
            raise BadInput(f"--floor {shorten(name)}: {side.path} has no score of it")
        holds = figure >= floor - ROUNDING * scales[name]
        yield Question(
            asked="floor",
            measure=name,
            scale=scales[name],
            limit=floor,
            answer="yes" if holds else "no",
            passed=holds,
            figure=figure,
        )
