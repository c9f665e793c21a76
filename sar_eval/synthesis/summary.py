"""What a set holds, in figures, from its done-records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sar_eval.documents import convert
from sar_eval.storage.image_set import REPACKED, SPEC
from sar_eval.storage.set_reader import SetReader
from sar_eval.storage.set_rows import BlockRecord
from sar_eval.synthesis.expression import parse_filter
from sar_eval.synthesis.funnel import FunnelStep, funnel
from sar_eval.synthesis.spec import SetSpec


@dataclass(slots=True)
class SetFigures:
    """Sums over the committed blocks.

    Attributes:
        blocks, prompts, draws: committed.
        kept: pictures in data objects; `removed` of them by `synth dedup`.
        objects, data_bytes: data objects, and their bytes.
        fates: draws by fate, as in a `BlockRecord`.
        devices: blocks by what drew them.
    """

    blocks: int = 0
    prompts: int = 0
    draws: int = 0
    kept: int = 0
    removed: int = 0
    objects: int = 0
    data_bytes: int = 0
    fates: dict[str, int] = field(default_factory=dict)
    devices: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SetSummary:
    """A set's spec, figures and funnel."""

    spec: SetSpec
    figures: SetFigures
    funnel: tuple[FunnelStep, ...]

    def to_json(self) -> dict[str, Any]:
        """As `funnel.json` and `repack.json` have it."""
        return {"figures": asdict(self.figures), "funnel": [asdict(step) for step in self.funnel]}


@dataclass(frozen=True, slots=True)
class _Stored:
    """What `to_json` gave."""

    figures: SetFigures
    funnel: tuple[FunnelStep, ...]


def summarise(reader: SetReader) -> SetSummary:
    """Sum up a set; of a repacked one, with the funnel of the set that it was made of.

    Raises:
        BadInput: its spec or a record is broken.
    """
    spec = SetSpec.from_json(reader.spec, f"{reader.store.uri}, {SPEC}")
    if reader.repacked is not None:
        return _of_repacked(reader, spec)
    figures = SetFigures(removed=sum(1 for _ in _distinct(reader.removed())))
    clauses = [clause.text for clause in parse_filter(spec.selection.filter, lambda name: name).clauses]
    steps = funnel(_counted(reader.image_set.records(), figures), clauses)
    return SetSummary(spec, figures, tuple(steps))


def _counted(records: Iterator[BlockRecord], figures: SetFigures) -> Iterator[BlockRecord]:
    """The records, each added to the figures."""
    fates, devices = Counter[str](), Counter[str]()
    for record in records:
        figures.blocks += 1
        figures.prompts += record.prompts
        figures.draws += record.draws
        figures.objects += bool(record.data)
        figures.data_bytes += record.data_bytes
        fates.update(record.fates)
        devices[record.device] += 1
        yield record
    figures.kept = fates["kept"]
    figures.fates, figures.devices = dict(sorted(fates.items())), dict(sorted(devices.items()))


def _distinct(keys: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    last = None
    for key in keys:
        if key != last:
            yield key
        last = key


def _of_repacked(reader: SetReader, spec: SetSpec) -> SetSummary:
    repacked = reader.repacked
    assert repacked is not None
    told = convert(repacked.summary, _Stored, f"{reader.store.uri}, {REPACKED}", "repack again")
    figures = replace(
        told.figures,
        kept=sum(part.rows for part in repacked.parts),
        removed=0,
        objects=len(repacked.parts),
        data_bytes=sum(part.size for part in repacked.parts),
    )
    return SetSummary(spec, figures, told.funnel)
