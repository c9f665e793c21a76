"""Whether two runs may be compared: the same prompts, the same judge, the same rules of scoring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sar_eval.comparisons import Pair, RunFacts, Side
from sar_eval.documents import cut, shorten
from sar_eval.errors import BadInput
from sar_eval.measures import Measure
from sar_eval.types import Json

Unlike = tuple[str, Json, Json]  # what, in the first, in the second
UNKNOWN = "not known (images of another tool)"


def check_alike(a: Side, b: Side, *, across_protocol: bool) -> None:
    """Refuse runs whose figures mean different things, with what differs.

    Args:
        a, b: the two.
        across_protocol: they may have been drawn under other protocols.

    Raises:
        BadInput: naming every value that differs.
    """
    for what, unlike, way_on in (
        ("prompts", _suites(a.facts, b.facts), "compare runs of the same suite"),
        ("rules of scoring", _folds(a.facts, b.facts), "summarise and save both by the same version"),
        ("judges", _judges(a.facts, b.facts), "judge one of them again by `sar-eval judge RUN`"),
    ):
        if unlike:
            raise BadInput(f"{_names(a, b)} have other {what}: {_written(unlike)}: {way_on}")
    protocols = list(_protocols(a.facts, b.facts))
    if protocols and not across_protocol:
        raise BadInput(
            f"{_names(a, b)} were drawn under other protocols: {_written(protocols)}: --across protocol "
            "compares them all the same"
        )


def check_same_rules(a: Side, b: Side, first: Sequence[Measure], second: Sequence[Measure]) -> None:
    """Refuse two runs whose measures of one name are not the same figure, as in a file edited by hand.

    Raises:
        BadInput: their scale, combination, bounds or shares differ, or a prompt is of another task.
    """
    others = {measure.name: measure for measure in second}
    for one in first:
        other = others.get(one.name, one)
        unlike = [*_differing(_rule(one), _rule(other)), *_tasks_unlike(one, other)]
        if unlike:
            raise BadInput(
                f"{_names(a, b)} have another {shorten(one.name)}: {_written(unlike)}: save both baselines "
                "again by the same version"
            )


def _tasks_unlike(one: Measure, other: Measure) -> Iterator[Unlike]:
    """The first prompt of both that is of other tasks."""
    tasks, others = _tasks_of_prompts(one), _tasks_of_prompts(other)
    for prompt in tasks:
        if prompt in others and tasks[prompt] != others[prompt]:
            yield f"the task of prompt {shorten(prompt)}", sorted(tasks[prompt]), sorted(others[prompt])
            return


def _rule(measure: Measure) -> dict[str, Json]:
    names = ("scale", "combine", "is_effect", "bounds")
    shares = {f"the share of task {shorten(task)}": share for task, share in measure.shares.items()}
    return {name: getattr(measure, name) for name in names} | shares


def _tasks_of_prompts(measure: Measure) -> dict[str, set[str]]:
    tasks: dict[str, set[str]] = {}
    for stratum in measure.strata:
        for prompt in stratum.prompts:
            tasks.setdefault(prompt, set()).add(stratum.task)
    return tasks


def describe_unpaired(pair: Pair, first: Sequence[Measure], second: Sequence[Measure]) -> Iterator[str]:
    """What a figure leaves out beyond the draws that the headline lacks: no image is dropped silently."""
    runs = f"{pair.first} and {pair.second}"
    known = sum(pair.missing_count.values())
    for found in pair.differences[1:]:
        if found.unpaired > known:
            yield (
                f"{runs}, {cut(found.measure)}: {found.unpaired} images count in one of the two alone and "
                "are left out of both"
            )
    compared = {found.measure for found in pair.differences}
    scored = [{m.name for m in run if m.strata and not m.is_effect} for run in (first, second)]
    if alone := sorted((scored[0] | scored[1]) - compared):
        some = ", ".join(map(cut, alone[:3])) + (", ..." if len(alone) > 3 else "")
        yield f"{runs} have no image in common of {len(alone)} figures, which are not compared: {some}"


def describe_unlike(a: Side, b: Side) -> list[str]:
    """What else differs, for a reader to know: protocol, engine, dtype."""
    lines = []
    if protocols := list(_protocols(a.facts, b.facts)):
        lines.append(f"{a.letter} and {b.letter} have other protocols: {_written(protocols)}")
    if a.facts.is_imported and b.facts.is_imported:
        lines.append("nothing is known of the protocols of imported images")
    elif how := list(_differing(_engine(a.facts), _engine(b.facts))):
        lines.append(f"{a.letter} and {b.letter} were drawn by other engines: {_written(how)}")
    return lines


def _names(a: Side, b: Side) -> str:
    return f"{a.path} and {b.path}"


def _suites(a: RunFacts, b: RunFacts) -> list[Unlike]:
    names = ("suite_digest", "prompts")
    if a.suite_digest == b.suite_digest:
        return []
    return list(_differing({n: getattr(a, n) for n in names}, {n: getattr(b, n) for n in names}))


def _folds(a: RunFacts, b: RunFacts) -> list[Unlike]:
    names = ("fold", "fold_version")
    return list(_differing({n: getattr(a, n) for n in names}, {n: getattr(b, n) for n in names}))


def _judges(a: RunFacts, b: RunFacts) -> list[Unlike]:
    both = a.beside.keys() & b.beside.keys()
    scorers = [(f"scorer {n}", a.beside[n], b.beside[n]) for n in both if a.beside[n] != b.beside[n]]
    if a.judge_digest == b.judge_digest:
        return scorers
    names = ("judge", "judge_version", "judge_digest")
    first, second = ({n: getattr(f, n) for n in names} | dict(f.judge_options) for f in (a, b))
    return [*_differing(first, second), *scorers]


def _protocols(a: RunFacts, b: RunFacts) -> Iterator[Unlike]:
    if a.is_imported or b.is_imported:
        if a.is_imported != b.is_imported:
            first, second = (UNKNOWN if f.is_imported else f.protocol.name for f in (a, b))
            yield "protocol", first, second
        return
    yield from _differing(a.protocol.conditions(), b.protocol.conditions())


def _engine(facts: RunFacts) -> dict[str, Json]:
    return {n: getattr(facts, n) for n in ("engine", "engine_version", "dtype")}


def _differing(a: Mapping[str, Json], b: Mapping[str, Json]) -> Iterator[Unlike]:
    for name in dict.fromkeys([*a, *b]):
        if a.get(name) != b.get(name):
            yield name, a.get(name), b.get(name)


def _written(unlike: list[Unlike]) -> str:
    return "; ".join(f"{name} is {shorten(a)} and {shorten(b)}" for name, a, b in unlike)
