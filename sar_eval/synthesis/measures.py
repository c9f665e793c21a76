"""Measures: judges and scorers by name, what they cost, and what they say of draws.

    with OpenMeasures(measure_specs(["shapes", "hps"], {"hps": {"dtype": "bfloat16"}}), "cuda") as measures:
        values = measures.ask("hps", drawn)

Whatever is wrong with one picture is that draw's error. What is wrong with the device or with what a judge
needs is raised, so that another process can try.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from sar_eval import discover
from sar_eval.documents import convert, shorten
from sar_eval.errors import BadInput, SarEvalError
from sar_eval.options import check_storable
from sar_eval.scoring import ScorerSet, finite, is_scorer, label, lost_device, measure_source
from sar_eval.spec import without
from sar_eval.stages.resolve import make_judge, version_of
from sar_eval.storage.set_rows import Value
from sar_eval.types import Draw, Generation, Json, Prompt, Verdict, checked_verdict

if TYPE_CHECKING:
    from sar_eval.images.picture import Picture

BATCH = "images_at_once"  # option of all scorers here, as of the judge `score`: changes speed, not scores
DTYPE = "dtype"
MAX_ERROR = 300  # characters of an error that a manifest keeps


@dataclass(slots=True, eq=False)
class Drawn:
    """A finished draw of a block, and its picture, decoded once for all that look at it.

    Attributes:
        row: of its prompt in the prompt file, from 0.
        draw: prompt, index, seed.
        generation: what the engine made of it.
    """

    row: int
    draw: Draw
    generation: Generation
    _picture: Picture | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """Row, slash, index: unique in a set, as ids of prompts need not be."""
        return f"{self.row}/{self.draw.index}"

    @property
    def picture(self) -> Picture:
        """Decoded at the first call; BadInput if it cannot be."""
        from sar_eval.images.picture import Picture

        if self._picture is None:
            self._picture = Picture.from_bytes(self.generation.image or b"")
        return self._picture

    def drop(self) -> None:
        """Free the picture for good: it is not kept."""
        self.forget()
        self.generation = replace(self.generation, image=None)

    def forget(self) -> None:
        """Free the decoded picture and what was made of it."""
        self._picture = None


@dataclass(frozen=True, slots=True)
class MeasureSpec:
    """A judge or scorer with everything that decides its values.

    Attributes:
        name: in filters and columns; a file's is its stem.
        source: what is loaded: the name as `sar-eval list` has it, or `path.py:NAME`.
        kind: "judge" or "scorer".
        version: what it says of itself.
        options: all of them.
        ignored: names of those that no value depends on, or whose files are in the version.
        cost: GFLOP a picture, roughly; None if unknown.
    """

    name: str
    source: str
    kind: str
    version: str
    options: Mapping[str, Json] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    cost: float | None = None

    @property
    def identity(self) -> dict[str, Json]:
        """What decides values: the part of a set's digest. Where a file of code lies is not in it."""
        options = without(self.options, self.ignored)
        return {"name": self.name, "kind": self.kind, "version": self.version, "options": options}

    def to_json(self) -> dict[str, Json]:
        """Everything, in plain values."""
        return {**asdict(self), "options": dict(self.options), "ignored": list(self.ignored)}

    @classmethod
    def from_json(cls, data: Json, where: str) -> MeasureSpec:
        """From `to_json`; raises BadInput naming `where` and the key."""
        return convert(data, cls, where)


def measure_specs(
    names: Sequence[str], options: Mapping[str, Mapping[str, Json]] | None = None
) -> tuple[MeasureSpec, ...]:
    """Judges and scorers in the order in which they are asked, checked; no network is loaded.

    The order is that of cost; those of unknown cost come last, in order of appearance.

    Args:
        names: as `sar-eval list` has them, with a scorer's variant, or `path.py:JUDGE`, `path.py:SCORER`.
        options: a table by name, with or without a scorer's variant. Scorers also take `dtype` and
            `images_at_once`.

    Raises:
        BadInput, UnknownName: a name or an option that is not known, missing weights, two files of one
            stem, a table for what is not named.
    """
    sources = list(dict.fromkeys(map(measure_source, names)))
    columns = [label(source) for source in sources]
    if twice := next((name for name in columns if columns.count(name) > 1), ""):
        raise BadInput(f"two measures are called {twice!r}: rename one of the files")
    tables = _tables(options or {}, sources)
    specs = [_spec(source, table) for source, table in zip(sources, tables, strict=True)]
    return tuple(sorted(specs, key=lambda spec: math.inf if spec.cost is None else spec.cost))


def _tables(options: Mapping[str, Mapping[str, Json]], sources: Sequence[str]) -> list[dict[str, Json]]:
    """The options of each source: of a variant, those of its scorer, then its own."""
    found: list[dict[str, Json]] = [{} for _ in sources]
    for written in sorted(options, key=lambda name: ":" in name):
        named, table = measure_source(written), options[written]
        if not isinstance(table, Mapping):
            raise BadInput(f"options of {written!r} are {shorten(table)}: a table, as {{threshold = 0.6}}")
        check_storable(table, f"options of {written!r}")
        owners = [n for n, source in enumerate(sources) if named in (source, _without_variant(source))]
        if not owners:
            raise BadInput(
                f"options for {written!r}, but what is asked is {', '.join(sources) or 'nothing'}"
            )
        for owner in owners:
            found[owner] |= table
    return found


def _without_variant(source: str) -> str:
    return source if discover.is_file(source) else source.partition(":")[0]


def _spec(source: str, options: Mapping[str, Json]) -> MeasureSpec:
    """One measure, made once to read what it says of itself."""
    kind = "scorer" if is_scorer(source) else "judge"
    made = _scorer(source, options) if kind == "scorer" else make_judge(source, options, "cpu")
    with discover.guarded(f"{kind} {source!r} does not say what it is"):
        return MeasureSpec(
            name=label(source),
            source=source,
            kind=kind,
            version=version_of(made, f"{kind} {source!r}"),
            options=dict(options),
            ignored=(*((BATCH,) if kind == "scorer" else ()), *_ignored(made)),
            cost=_cost(made.facts.cost if kind == "scorer" else getattr(made, "cost", None), source),
        )


def _scorer(source: str, options: Mapping[str, Json]) -> Any:
    return _scorer_set(source, options, "cpu").scorers[label(source)]


def _ignored(made: Any) -> tuple[str, ...]:
    return (*getattr(made, "speed_options", ()), *getattr(made, "path_options", ()))


def _cost(cost: Any, source: str) -> float | None:
    if cost is None or (finite(cost) is not None and cost >= 0):
        return finite(cost)
    raise BadInput(f"{source!r} says that it costs {shorten(cost)}: a number of GFLOP, or None")


def _scorer_set(source: str, options: Mapping[str, Json], device: str) -> ScorerSet:
    own = {name: value for name, value in options.items() if name not in (DTYPE, BATCH)}
    return ScorerSet(
        [source],
        device=device,
        dtype=str(options.get(DTYPE, "float32")),
        batch_size=options.get(BATCH, 16),
        options={label(source): own},
    )


class _Measure(Protocol):
    def ask(self, items: Sequence[Drawn]) -> list[Value]: ...


class OpenMeasures:
    """Measures with their networks on a device."""

    def __init__(self, specs: Sequence[MeasureSpec], device: str = "cpu") -> None:
        """Nothing is loaded yet.

        Args:
            specs: from `measure_specs`.
            device: torch device of all networks.
        """
        self.specs, self.device = tuple(specs), device

    def __enter__(self) -> Self:
        """Load all; BadInput if one cannot start."""
        self._open: dict[str, _Measure] = {}
        with ExitStack() as stack:
            for spec in self.specs:
                self._open[spec.name] = self._opened(spec, stack)
            self._stack = stack.pop_all()
        return self

    def _opened(self, spec: MeasureSpec, stack: ExitStack) -> _Measure:
        if spec.kind == "scorer":
            scorers = stack.enter_context(_scorer_set(spec.source, spec.options, self.device))
            _check_version(spec, scorers.scorers[spec.name])
            return _OpenScorer(scorers)
        with discover.guarded(f"judge {spec.source!r} cannot start"):
            judge = stack.enter_context(make_judge(spec.source, spec.options, self.device))
        _check_version(spec, judge)
        return _OpenJudge(judge)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def ask(self, name: str, items: Sequence[Drawn]) -> list[Value]:
        """What a measure says of draws that have a picture, in order.

        Raises:
            DeviceLost: its device failed; and other errors of the kind that no picture is to blame for.
        """
        return self._open[name].ask(items) if items else []


class _OpenScorer:
    """One scorer; what scorers share is kept by their networks and by the draws' pictures."""

    def __init__(self, scorers: ScorerSet) -> None:
        self.scorers = scorers

    def ask(self, items: Sequence[Drawn]) -> list[Value]:
        (name,) = self.scorers.scorers
        found = self.scorers.score((d.picture for d in items), (d.draw.prompt.text for d in items))
        return [
            Value(score=scored.scores[name])
            if name in scored.scores
            else _error(scored.errors.get(name) or scored.errors[""])
            for scored in found
        ]


class _OpenJudge:
    """One judge, which is anyone's code: nothing is believed."""

    def __init__(self, judge: Any) -> None:
        self.judge = judge

    def ask(self, items: Sequence[Drawn]) -> list[Value]:
        found: dict[str, Value] = {}
        if self._collect(items, found) is not None:
            for item in items:  # one picture may be to blame for all that have no verdict yet
                if item.key not in found and (error := self._collect([item], found)) is not None:
                    found[item.key] = _error(_words(error))
        return [found.get(item.key) or _error("the judge gave no verdict") for item in items]

    def _collect(self, items: Sequence[Drawn], found: dict[str, Value]) -> Exception | None:
        """Put the judge's verdicts into `found`; returns what it raised midway, if no device is lost."""
        asked = {item.key for item in items}
        try:
            for verdict in self.judge.judge([_item(item) for item in items]):
                _keep(verdict, asked, found)
        except Exception as error:
            if lost := lost_device(error):
                raise lost from error
            if isinstance(error, SarEvalError) and not isinstance(error, BadInput):
                raise
            return error
        return None


def _item(item: Drawn) -> tuple[Prompt, Generation]:
    """What a judge is given: the generation's key is the draw's in the set, which is unique."""
    return item.draw.prompt, replace(item.generation, key=item.key)


def _keep(verdict: Any, asked: set[str], found: dict[str, Value]) -> None:
    """Put a verdict in its place.

    Raises:
        ValueError: it is none, or the second one, or of what was not asked; the first of two counts not.
    """
    if not isinstance(verdict, Verdict):
        raise TypeError(f"the judge gave a {type(verdict).__name__} in place of a verdict")
    if verdict.key not in asked:
        raise ValueError(f"the judge gave a verdict for {shorten(verdict.key)}, which it was not asked for")
    if verdict.key in found:
        found[verdict.key] = _error("the judge gave two verdicts")
    else:
        found[verdict.key] = _value(verdict)


def _value(verdict: Verdict) -> Value:
    """A verdict's numbers as plain values, or why there are none."""
    score = None if verdict.score is None else finite(verdict.score)
    if verdict.error is None and verdict.score is not None and score is None:
        return _error(f"the judge's score is {shorten(verdict.score)}")
    checked = checked_verdict(replace(verdict, score=score))
    if checked.error is not None:
        return _error(checked.error)
    return Value(checked.score, None if checked.passed is None else bool(checked.passed))


def _error(why: object) -> Value:
    text = " ".join(str(why).split())
    return Value(error=text if len(text) <= MAX_ERROR else f"{text[: MAX_ERROR - 3]}...")


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, SarEvalError) else f"{type(error).__name__}: {error}"


def _check_version(spec: MeasureSpec, made: Any) -> None:
    """Refuse another version than the set was begun with: other weights on this machine, for example."""
    if str(made.version) != spec.version:
        raise BadInput(
            f"{spec.kind} {spec.source!r} has version {made.version} here, but the set was begun with "
            f"{spec.version}: install the same version and weights on all machines"
        )
