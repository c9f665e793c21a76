"""The pictures of a training page: filmstrips of watched prompts, the best and the worst of some steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sar_eval.report.pictures import THUMBNAIL_SIDE, Picture, embed, thumbnail
from sar_eval.report.training_plots import spread, written
from sar_eval.storage.training_journal import SampleRow, read_samples, sample_kinds, sample_steps

FRAMES = 9  # of a filmstrip
WATCHED = 12  # filmstrips
EXTREMES = 6  # steps with their best and worst
SIDE_BY_SIDE = 3  # best ones of a step, and worst ones


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture with what is written below it; `advantage` is "" where there is none."""

    step: int
    picture: Picture
    prompt: str
    reward: str
    advantage: str
    scores: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Filmstrip:
    """A watched prompt over the steps; every picture was drawn with the same seed."""

    prompt: str
    seed: int
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Extremes:
    """The best and the worst pictures of a step."""

    step: int
    best: tuple[Frame, ...]
    worst: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Samples:
    """All pictures of the page; `left_out` counts watched prompts that it does not show."""

    strips: tuple[Filmstrip, ...]
    extremes: tuple[Extremes, ...]
    left_out: int
    steps: int


def read_page_samples(folder: Path) -> Samples:
    """Choose pictures and make thumbnails of them; only the steps that are shown are read.

    Raises:
        BadInput: a file of samples is damaged.
    """
    kinds = {step: sample_kinds(folder, step) for step in sample_steps(folder)}
    watched = spread([step for step, found in kinds.items() if "watch" in found], FRAMES)
    rows = {step: read_samples(folder, step, ["watch"]) for step in watched}
    names = list(dict.fromkeys(_name(row) for found in rows.values() for row in found))
    strips = [_strip(rows, name) for name in names[:WATCHED]]
    chosen = spread([step for step, found in kinds.items() if found & {"best", "worst"}], EXTREMES)
    extremes = [_extremes(folder, step) for step in reversed(chosen)]
    return Samples(tuple(strips), tuple(extremes), len(names) - len(strips), len(kinds))


def _name(row: SampleRow) -> tuple[str, int]:
    return row.prompt_id, row.index


def _strip(rows: dict[int, list[SampleRow]], name: tuple[str, int]) -> Filmstrip:
    own = {step: row for step, found in rows.items() for row in found if _name(row) == name}
    first = next(iter(own.values()))
    return Filmstrip(first.prompt, first.seed, tuple(_frame(step, row) for step, row in own.items()))


def _extremes(folder: Path, step: int) -> Extremes:
    rows = read_samples(folder, step, ["best", "worst"])
    best, worst = (_frames(step, [row for row in rows if row.kind == kind]) for kind in ("best", "worst"))
    return Extremes(step, best, worst)


def _frames(step: int, rows: Sequence[SampleRow]) -> tuple[Frame, ...]:
    return tuple(_frame(step, row) for row in rows[:SIDE_BY_SIDE])


def _frame(step: int, row: SampleRow) -> Frame:
    return Frame(
        step=step,
        picture=_picture(row),
        prompt=row.prompt,
        reward=_number(row.reward),
        advantage=_number(row.advantage, sign=True),
        scores=tuple(_scores(row)),
    )


def _picture(row: SampleRow) -> Picture:
    if row.image is None:
        return Picture(problem=row.error or "no image stored")
    whole = embed(row.image)
    if max(whole.size) <= THUMBNAIL_SIDE:
        return whole
    return embed(thumbnail(row.image) or row.image)


def _scores(row: SampleRow) -> Iterable[str]:
    return (f"{name} {_number(value) or 'none'}" for name, value in row.scores.items())


def _number(value: float | None, sign: bool = False) -> str:
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:{'+' if sign else '-'}.3f}" if abs(value) < 100 else written(value)
