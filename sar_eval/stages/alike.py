"""Whether two runs may be compared: the same prompts, the same judge, the same rules of scoring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

from sar_eval.comparisons import RunFacts, Side
from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.spec import without
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
    if a.judge_digest == b.judge_digest:
        return []
    names = ("judge", "judge_version", "judge_digest")
    first, second = ({n: getattr(f, n) for n in names} | dict(f.judge_options) for f in (a, b))
    return list(_differing(first, second))


def _protocols(a: RunFacts, b: RunFacts) -> Iterator[Unlike]:
    if a.is_imported or b.is_imported:
        if a.is_imported != b.is_imported:
            first, second = (UNKNOWN if f.is_imported else f.protocol.name for f in (a, b))
            yield "protocol", first, second
        return
    settings = asdict(a.protocol), asdict(b.protocol)
    yield from _differing(*(without(protocol, ("name",)) for protocol in settings))


def _engine(facts: RunFacts) -> dict[str, Json]:
    return {n: getattr(facts, n) for n in ("engine", "engine_version", "dtype")}


def _differing(a: Mapping[str, Json], b: Mapping[str, Json]) -> Iterator[Unlike]:
    for name in dict.fromkeys([*a, *b]):
        if a.get(name) != b.get(name):
            yield name, a.get(name), b.get(name)


def _written(unlike: list[Unlike]) -> str:
    return "; ".join(f"{name} is {shorten(a)} and {shorten(b)}" for name, a, b in unlike)
