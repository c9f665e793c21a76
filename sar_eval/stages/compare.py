"""Stage: compare runs of one benchmark on the same prompts, in pairs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from string import ascii_uppercase

from sar_eval import discover
from sar_eval.comparisons import Comparison, Pair, Published, Rank, RunFacts, Side
from sar_eval.documents import cut, shorten
from sar_eval.errors import BadInput, Incomplete
from sar_eval.measures import Measure
from sar_eval.options import check_name
from sar_eval.scoring import split_variant
from sar_eval.stages.alike import check_alike, check_same_rules, describe_unlike, describe_unpaired
from sar_eval.stages.measure import ScoredRun
from sar_eval.stats.differences import adjust, differences
from sar_eval.stats.multiple import letters
from sar_eval.stats.pairing import missing_keys
from sar_eval.stats.preference import mean_preference
from sar_eval.stats.totals import mean_of, totals_of
from sar_eval.suites.published import read_published
from sar_eval.types import Metric

PUBLISHED = "published:"
MISSING_LISTED = 20
MOST = len(ascii_uppercase)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What runs may differ in.

    Attributes:
        protocol: they may have been drawn under other protocols.
        missing: share of each run's draws that may be without a partner, 0 to 1.
    """

    protocol: bool = False
    missing: float = 0.0


def compare(runs: Sequence[ScoredRun], published: Sequence[str], allowed: Allowed) -> Comparison:
    """Compare every two runs.

    Args:
        runs: at least two, of one benchmark.
        published: models of published scores to show beside.
        allowed: see `Allowed`.

    Raises:
        BadInput: the runs are not alike, or no score of that name is published.
        Incomplete: draws of a run lack a partner in the other.
    """
    sides = _sides(runs)
    for side in sides:
        check_complete(side, allowed)
    for a, b in combinations(range(len(runs)), 2):
        check_alike(sides[a], sides[b], across_protocol=allowed.protocol)
    pairs: list[Pair] = []
    partly: list[str] = []
    for a, b in combinations(range(len(runs)), 2):
        measures = runs[a].measures, runs[b].measures
        pairs.append(_pair(sides[a], sides[b], *measures, allowed))
        partly += describe_unpaired(pairs[-1], *measures)
    found = adjust([pair.differences for pair in pairs])
    pairs = [replace(pair, differences=d) for pair, d in zip(pairs, found, strict=True)]
    facts = sides[0].facts
    return Comparison(
        benchmark=facts.benchmark,
        scale=runs[0].measures[0].scale,
        sides=tuple(sides),
        pairs=tuple(pairs),
        ranking=_rank(sides, pairs),
        published=tuple(find_published(facts.fold, name) for name in published),
        notes=(*_notes(sides, pairs), *partly),
    )


def _sides(runs: Sequence[ScoredRun]) -> list[Side]:
    if not 2 <= len(runs) <= MOST:
        raise BadInput(f"{len(runs)} runs to compare: give two to {MOST} run folders or baselines")
    names = [checkpoint_name(run.facts) for run in runs]
    return [
        side_of(run, letter, name if names.count(name) == 1 else f"{name}, {run.path.name or run.path}")
        for letter, run, name in zip(ascii_uppercase, runs, names, strict=False)
    ]


def side_of(run: ScoredRun, letter: str, label: str) -> Side:
    """A run as a comparison names it, with its own figures."""
    figures = {m.name: m.scale * mean_of(totals) for m in run.measures if (totals := totals_of(m))}
    return Side(
        letter=letter,
        label=label,
        path=str(run.path),
        is_baseline=run.is_baseline,
        facts=run.facts,
        figures=figures,
    )


def checkpoint_name(facts: RunFacts) -> str:
    """What sentences call a run: the last part of its checkpoint's name, on one line."""
    return cut(facts.checkpoint.rstrip("/").split("/")[-1]) or cut(facts.name) or "unnamed"


def _pair(a: Side, b: Side, first: Sequence[Measure], second: Sequence[Measure], allowed: Allowed) -> Pair:
    check_same_rules(a, b, first, second)
    only_a, only_b = missing_keys(first[0].strata, second[0].strata)
    missing = {b.letter: only_a, a.letter: only_b}
    for side, other in ((a, b), (b, a)):
        _check_missing(side, other, missing[side.letter], allowed)
    found = differences(first, second)
    if not found or found[0].measure != first[0].name:
        raise BadInput(f"{a.path} and {b.path} have no image with a score in common: nothing to compare")
    return Pair(
        first=a.letter,
        second=b.letter,
        shares_noise=_share_noise(a, b),
        differences=found,
        missing={letter: tuple(sorted(keys)[:MISSING_LISTED]) for letter, keys in missing.items() if keys},
        missing_count={letter: len(keys) for letter, keys in missing.items() if keys},
        preferences=tuple(_preferences(first, second)),
    )


def _preferences(first: Sequence[Measure], second: Sequence[Measure]) -> Iterator[Metric]:
    """Of every preference model whose raw scores both runs have; `check_alike` saw to its version."""
    others = {measure.name: measure for measure in second}
    for measure in first:
        name = measure.name.removeprefix("scorer/")
        if name == measure.name or measure.name not in others or not _is_preference(name):
            continue
        if found := mean_preference(name, measure, others[measure.name]):
            yield found


def _is_preference(scorer: str) -> bool:
    """Whether the softmax of two of its scores is a probability. Files are not asked: they may be gone."""
    name, _ = split_variant(scorer)
    known = discover.load("scorers", name) if name in discover.names("scorers") else None
    return getattr(known, "preference", "") == "softmax"


def check_complete(side: Side, allowed: Allowed) -> None:
    """Refuse a run with more holes than are allowed, even where the other has the same.

    Raises:
        Incomplete: saying how many.
    """
    failed, total = side.facts.failed, side.facts.expected
    if failed > allowed.missing * total:
        raise Incomplete(
            f"{side.path} is incomplete: {failed} of {total} images have no score: finish it, or "
            f"--allow-missing {share_words(failed / total)} compares what is there"
        )


def _check_missing(side: Side, other: Side, keys: set[str], allowed: Allowed) -> None:
    """Refuse a run that lacks more of the other's draws than is allowed; never intersect silently."""
    total = other.facts.expected
    if len(keys) <= allowed.missing * total:
        return
    some = ", ".join(shorten(key) for key in sorted(keys)[:3])
    raise BadInput(
        f"{side.path} has no score for {len(keys)} of {total} images of {other.path} ({some}"
        f"{', ...' if len(keys) > 3 else ''}): --allow-missing {share_words(len(keys) / total)} compares "
        "what both have"
    )


def share_words(value: float) -> str:
    """A share, rounded up so that it is enough."""
    return f"{-(-value * 1000 // 1) / 1000:g}"


def _share_noise(a: Side, b: Side) -> bool:
    """Whether draws of the same key began with the same seed (see `types.draw_seed`) in the same shape."""
    facts = a.facts, b.facts
    if any(f.is_imported for f in facts) or a.facts.seed != b.facts.seed:
        return False
    return a.facts.protocol.size == b.facts.protocol.size


def _rank(sides: Sequence[Side], pairs: Sequence[Pair]) -> tuple[Rank, ...]:
    """Best first, with groups of runs that cannot be told apart."""
    headline = pairs[0].overall.measure
    order = sorted(sides, key=lambda side: -side.figures[headline])
    place = {side.letter: number for number, side in enumerate(order)}
    told_apart = set()
    for pair in pairs:
        if pair.overall.winner:
            low, high = sorted((place[pair.first], place[pair.second]))
            told_apart.add((low, high))
    groups = letters(len(order), told_apart)
    return tuple(
        Rank(letter=side.letter, value=side.figures[headline], groups=names)
        for side, names in zip(order, groups, strict=True)
    )


def _notes(sides: Sequence[Side], pairs: Sequence[Pair]) -> list[str]:
    notes = []
    for pair in pairs:
        a, b = (next(s for s in sides if s.letter == letter) for letter in (pair.first, pair.second))
        notes += describe_unlike(a, b)
        if not pair.shares_noise:
            notes.append(
                f"{a.letter} and {b.letter} are paired by prompt only: their images were not drawn with "
                "the same seeds, so the noise of draws does not cancel"
            )
        for letter, number in pair.missing_count.items():
            other = b.letter if letter == a.letter else a.letter
            notes.append(
                f"{letter} has no score for {number} images of {other}, which are left out of both: "
                f"{', '.join(cut(key) for key in pair.missing[letter][:3])}{', ...' if number > 3 else ''}"
            )
    return list(dict.fromkeys(notes))


def find_published(benchmark: str, name: str) -> Published:
    """The published score of a model.

    Raises:
        BadInput: none is published for this benchmark, or none of this name.
    """
    scores = read_published(benchmark)
    wanted = name.removeprefix(PUBLISHED)
    for score in scores:
        if _plain(score.model) == _plain(wanted):
            return Published(
                name=score.model,
                overall=score.overall,
                tasks=score.tasks,
                source=score.source,
                conditions=score.conditions,
            )
    names = [score.model for score in scores]
    near = difflib.get_close_matches(wanted, names, 3, 0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    raise BadInput(f"no score of {shorten(wanted)} on {benchmark!r} is published here; {hint}")


def _plain(name: str) -> str:
    """`SimpleAR-0.5B RL` as anybody may write it."""
    return re.sub(r"[^a-z0-9.]+", "", name.casefold())


def is_published(word: str) -> bool:
    """Whether a word of the command line names a published score."""
    return word.startswith(PUBLISHED)


def resolve_path(word: str) -> Path:
    """A run folder or baseline that is there.

    Raises:
        BadInput: it is not, with the nearest names beside it.
    """
    check_name(word, "run folder or baseline")
    path = Path(word)
    if path.exists():
        return path
    there = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, there, 1)
    hint = (
        f"did you mean {shorten(str(path.parent / near[0]))}?"
        if near
        else "give a run folder or a baseline (.parquet)"
    )
    raise BadInput(f"there is no {shorten(word)}: {hint}")
