"""Which draws of a block are kept: filter, the best of each prompt, no duplicates. A function of verdicts.

    selection = make_selection(filter="hps > 0.27 and geneval.passed", rank="hps", top=1, duplicates=4)
    with OpenMeasures(selection.measures, "cuda") as measures:
        for outcome in select(drawn, selection, measures):
            print(outcome.drawn.key, outcome.fate, outcome.why)

Measures are asked in order of cost, each only of draws whose outcome it can still change.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from sar_eval.documents import convert, shorten
from sar_eval.errors import BadInput
from sar_eval.images.files import DECODING_THREADS
from sar_eval.images.perceptual_hash import BITS, hash_distance, perceptual_hash, pixel_digest
from sar_eval.options import check_whole_number
from sar_eval.storage.set_rows import Value
from sar_eval.synthesis.conditions import Filter, Rank, is_missing
from sar_eval.synthesis.embeddings import Embedder
from sar_eval.synthesis.expression import parse_filter, parse_rank
from sar_eval.synthesis.measures import Drawn, MeasureSpec, OpenMeasures, measure_specs
from sar_eval.types import Json

DECODED_AT_ONCE = 64  # draws, in whole prompts: of 1024 pixels a side, about 250 MB
EXACT, KEEP = "exact", "keep"  # kinds of `Selection.duplicates`
MAX_DISTANCE = BITS // 2  # bits: that of two pictures which have nothing in common
LABEL = "the selection"  # in messages


@dataclass(frozen=True, slots=True)
class Selection:
    """What is kept of a block.

    Attributes:
        filter: see `expression`; "" lets everything pass.
        rank: what makes one draw of a prompt better than another; "" takes the lower index.
        top: how many of each prompt's draws are kept; 0 keeps all that pass.
        duplicates: what is dropped of a block as a duplicate: "exact", pictures of the same pixels; the
            number of bits, up to 32, in which perceptual hashes may differ; or "keep", nothing.
        measures: in the order in which they are asked. Those that neither filter nor rank name are asked
            of the kept, for their columns.
    """

    filter: str = ""
    rank: str = ""
    top: int = 0
    duplicates: str = "exact"
    measures: tuple[MeasureSpec, ...] = ()

    @property
    def identity(self) -> dict[str, Json]:
        """What decides which draws are kept and what is said of them: the part of a set's digest."""
        return {
            "filter": self.filter,
            "rank": self.rank,
            "top": self.top,
            "duplicates": self.duplicates,
            "measures": [spec.identity for spec in self.measures],
        }

    def to_json(self) -> dict[str, Json]:
        """Everything, in plain values."""
        return {**self.identity, "measures": [spec.to_json() for spec in self.measures]}

    @classmethod
    def from_json(cls, data: Json, where: str) -> Selection:
        """From `to_json`.

        Raises:
            BadInput: naming `where` and the key, or what is wrong with filter or rank.
        """
        selection = convert(data, cls, where)
        _check_numbers(selection)
        _Rules(selection)
        return selection


def make_selection(
    *,
    filter: str = "",  # noqa: A002 - what it is called everywhere
    rank: str = "",
    top: int = 0,
    duplicates: str = "exact",
    columns: Sequence[str] = (),
    options: Mapping[str, Mapping[str, Json]] | None = None,
) -> Selection:
    """A selection with its measures, checked; no network is loaded.

    Args:
        filter, rank, top, duplicates: as of a `Selection`.
        columns: further measures, asked of the kept.
        options: of judges and scorers, a table each (see `measure_specs`).

    Raises:
        BadInput, UnknownName: a text that cannot be read, an unknown name or option, a number out of range.
    """
    sources = [*parse_filter(filter).sources.values(), *columns]
    if rank:
        sources += parse_rank(rank).sources.values()
    selection = Selection(filter, rank, top, duplicates, measure_specs(sources, options))
    _check_numbers(selection)
    return selection


def _check_numbers(selection: Selection) -> None:
    check_whole_number("top", selection.top, LABEL, minimum=0)
    if selection.duplicates not in (KEEP, EXACT):
        bits = selection.duplicates
        if not (bits.isascii() and bits.isdecimal() and len(bits) < 3 and int(bits) <= MAX_DISTANCE):
            raise BadInput(
                f"duplicates {shorten(bits)} of {LABEL}: {EXACT}, {KEEP}, or bits from 0 to {MAX_DISTANCE}"
            )


@dataclass(slots=True, eq=False)
class Outcome:
    """What became of a draw.

    Attributes:
        drawn: the draw.
        values: by measure, those that were asked.
        fate: one of `storage.set_rows.FATES`.
        why: the clause that it fails, the draw that it duplicates, its place, or the error.
        pixels: digest of its pixels; empty without a picture.
        phash: perceptual hash of its picture; None where it was not needed.
        embedding: of its picture, float16 bytes; None where it was not needed, or not to be had.
    """

    drawn: Drawn
    values: dict[str, Value] = field(default_factory=dict)
    fate: str = ""
    why: str = ""
    pixels: bytes = b""
    phash: int | None = None
    embedding: bytes | None = None

    def end(self, fate: str, why: str = "") -> None:
        """Decide it."""
        self.fate, self.why = fate, why


def count_fates(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Draws by fate, as `BlockRecord.fates` counts them; sorted, so that the same block gives the same."""
    counts = Counter(
        f"filtered: {outcome.why}" if outcome.fate == "filtered" else outcome.fate for outcome in outcomes
    )
    return dict(sorted(counts.items()))


def select(
    drawn: Sequence[Drawn], selection: Selection, measures: OpenMeasures, embedder: Embedder | None = None
) -> list[Outcome]:
    """The fates of a block's draws, in their order; each has exactly one.

    Args:
        drawn: all draws of some prompts, as the block has them. Their pictures are decoded a few prompts at
            a time, and forgotten.
        selection: what is kept.
        measures: those of the selection, open.
        embedder: embeds what is kept, open; None for no embeddings.

    Raises:
        DeviceLost: the device of a measure or of the embedder failed.
    """
    rules = _Rules(selection)
    outcomes = [Outcome(item) for item in drawn]
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        for prompts in _some_prompts(outcomes):
            together = [outcome for prompt in prompts for outcome in prompt]
            list(pool.map(_look, together))
            _filter(_undecided(together), rules, measures)
            _ask_all(_undecided(together), rules.rank_names, measures)
            for prompt in prompts:
                _keep_best(_undecided(prompt), rules)
            _ask_all(_undecided(together), rules.columns, measures)
            list(pool.map(_hash, _undecided(together)))
            if embedder is not None:
                _embed(_undecided(together), embedder)
            for outcome in together:
                outcome.drawn.forget()
    for outcome in _undecided(outcomes):
        outcome.end("kept")
    drop_duplicates(outcomes, selection.duplicates)
    return outcomes


@lru_cache(maxsize=4)
def _read_filter(text: str) -> Filter:
    """Once a process: finding names among installed packages takes longer than to select."""
    return parse_filter(text)


@lru_cache(maxsize=4)
def _read_rank(text: str) -> Rank:
    return parse_rank(text)


class _Rules:
    """A selection, parsed."""

    def __init__(self, selection: Selection) -> None:
        self.top = selection.top
        self.filter = _read_filter(selection.filter)
        self.rank = _read_rank(selection.rank) if selection.rank else None
        self.names = [spec.name for spec in selection.measures]  # in order of cost
        ranking = self.rank.names if self.rank else ()
        if missing := {*self.filter.names, *ranking} - set(self.names):
            raise BadInput(f"{LABEL} has no measure {min(missing)!r}")
        self.rank_names = [name for name in self.names if name in ranking]
        self.columns = [name for name in self.names if name not in (*self.filter.names, *ranking)]


def _some_prompts(outcomes: Sequence[Outcome]) -> Iterator[list[list[Outcome]]]:
    """Outcomes by prompt, so many prompts at a time that not all pictures are in memory."""
    by_row: dict[int, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_row[outcome.drawn.row].append(outcome)
    some: list[list[Outcome]] = []
    for prompt in by_row.values():
        if some and sum(map(len, some)) + len(prompt) > DECODED_AT_ONCE:
            yield some
            some = []
        some.append(prompt)
    if some:
        yield some


def _undecided(outcomes: Iterable[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if not outcome.fate]


def _look(outcome: Outcome) -> None:
    """Decode the picture and note the digest of its pixels; without one, the draw has failed."""
    generation = outcome.drawn.generation
    if generation.error is not None or generation.image is None:
        outcome.end("failed", generation.error or "the engine gave no picture")
        return
    try:
        outcome.pixels = pixel_digest(np.asarray(outcome.drawn.picture.rgb))
    except BadInput as error:
        outcome.end("failed", str(error))


def _embed(outcomes: Sequence[Outcome], embedder: Embedder) -> None:
    found = embedder.embed([outcome.drawn.picture for outcome in outcomes])
    for outcome, embedding in zip(outcomes, found, strict=True):
        outcome.embedding = None if embedding is None else embedding.tobytes()


def _hash(outcome: Outcome) -> None:
    outcome.phash = perceptual_hash(np.asarray(outcome.drawn.picture.rgb))


def _filter(outcomes: Sequence[Outcome], rules: _Rules, measures: OpenMeasures) -> None:
    """Ask until the outcome is known; what fails ends as filtered, what cannot be known as unjudged."""
    for name in rules.names:
        _ask(
            [outcome for outcome in outcomes if name in rules.filter.needs(outcome.values)], name, measures
        )
    for outcome in outcomes:
        passes = rules.filter.evaluate(outcome.values)
        if passes is None:
            outcome.end("unjudged", _what_is_missing(rules.filter, outcome.values))
        elif not passes:
            clauses = (c.text for c in rules.filter.clauses if c.evaluate(outcome.values) is False)
            outcome.end("filtered", next(clauses))


def _ask(outcomes: Sequence[Outcome], name: str, measures: OpenMeasures) -> None:
    for outcome, value in zip(outcomes, measures.ask(name, [o.drawn for o in outcomes]), strict=True):
        outcome.values[name] = value


def _ask_all(outcomes: Sequence[Outcome], names: Sequence[str], measures: OpenMeasures) -> None:
    for name in names:
        _ask([outcome for outcome in outcomes if name not in outcome.values], name, measures)


def _what_is_missing(condition: Filter, values: Mapping[str, Value]) -> str:
    """The first measure, as the filter has them, whose value would change the outcome, and its error."""
    known = {name: value for name, value in values.items() if not condition.lacks(name, value)}
    decisive = condition.needs(known)
    return next((_lack(name, values) for name in condition.names if name in decisive), "no finite number")


def _lack(name: str, values: Mapping[str, Value]) -> str:
    return f"{name}: {values[name].error or 'gave none of what is asked'}"


def _keep_best(prompt: Sequence[Outcome], rules: _Rules) -> None:
    """Leave the best `top` draws of a prompt undecided; equal ones go by index."""
    placed: list[tuple[float, int, Outcome]] = []
    for outcome in prompt:
        value = rules.rank.evaluate(outcome.values) if rules.rank else 0.0
        if value is None:
            outcome.end("unjudged", _why_unranked(rules, outcome.values))
        else:
            placed.append((-value, outcome.drawn.draw.index, outcome))
    placed.sort(key=lambda entry: entry[:2])
    for place, (_, _, outcome) in enumerate(placed[rules.top :] if rules.top else (), rules.top + 1):
        outcome.end("outranked", f"place {place} of {len(placed)}")


def _why_unranked(rules: _Rules, values: Mapping[str, Value]) -> str:
    lacking = (name for name in rules.rank_names if is_missing(values[name].score))
    return next((_lack(name, values) for name in lacking), "the rank is no finite number")


def drop_duplicates(outcomes: Sequence[Outcome], duplicates: str) -> None:
    """Of kept pictures with equal pixels, or with hashes within a distance, only the earliest stays kept.

    Args:
        outcomes: of a block, in its order.
        duplicates: as of a `Selection`.
    """
    if duplicates == KEEP:
        return
    distance = -1 if duplicates == EXACT else int(duplicates)
    exact: dict[bytes, Outcome] = {}  # of those that stay
    for outcome in (outcome for outcome in outcomes if outcome.fate == "kept"):
        near = (other for other in exact.values() if _are_alike(other, outcome, distance))
        earlier = exact.get(outcome.pixels) or next(near, None)
        if earlier is None:
            exact[outcome.pixels] = outcome
        else:
            outcome.end("duplicate", earlier.drawn.key)


def _are_alike(left: Outcome, right: Outcome, distance: int) -> bool:
    if distance < 0:
        return False
    assert left.phash is not None
    assert right.phash is not None
    return hash_distance(left.phash, right.phash) <= distance
