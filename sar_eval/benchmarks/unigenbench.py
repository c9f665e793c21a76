"""UniGenBench: shares of test points that pictures meet, ours and as its script reads the replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sar_eval.measures import Measure, Row, stratum
from sar_eval.suites.replies import JudgedPrompt, bounds_of, effect, missing_pictures, read_replies
from sar_eval.suites.unigenbench.scoring import (
    TestPoints,
    counted_officially,
    primary,
    primary_officially,
    read_officially,
    read_test_points,
)
from sar_eval.types import Prompt, Verdict

Marks = list[tuple[str, int, tuple[str, ...], tuple[bool, ...]]]  # prompt, index, dimensions, whether right


class UniGenBenchFold:
    """Both figures of the same replies; the script names no overall one, so ours names two.

    `overall` is the mean of the ten primary dimensions, `micro` weighs every test point the same.
    """

    version = "1"

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """`overall`, `micro`, `primary/*`, `dimension/*`; `reference/*`, `quirk/*`.

        `bounds/overall_at_least` and `_at_most` if pictures, or readable replies, are missing.

        Raises:
            BadInput: a prompt has no test points, or a verdict's evidence no score for each.
        """
        points = {p.id: read_test_points(p.checks, f"prompt {p.id}") for p in prompts}
        judged = read_replies(prompts, verdicts, "unigenbench")
        ours, official = _our_marks(points, judged), _official_marks(points, judged)
        lost: Marks = [
            (prompt_id, index, points[prompt_id].dimensions, (False,) * len(points[prompt_id].dimensions))
            for prompt_id, index in missing_pictures(prompts, verdicts)
        ]
        return (
            _mean("overall", _by(primary, ours)),
            _pooled("micro", ours),
            *_each("primary/", _by(primary, ours)),
            *_each("dimension/", _by(str, ours)),
            *bounds_of("overall", _by(primary, ours), _by(primary, lost)),
            *_reference(official),
            *_quirks(ours, official),
        )


def _our_marks(points: Mapping[str, TestPoints], judged: Sequence[JudgedPrompt]) -> Marks:
    marks: Marks = []
    for prompt in judged:
        dimensions = points[prompt.prompt.id].dimensions
        marks += [
            (prompt.prompt.id, index, dimensions, tuple(score == 1 for score in scores))
            for index, scores in prompt.values("scores", list)
        ]
    return marks


def _official_marks(points: Mapping[str, TestPoints], judged: Sequence[JudgedPrompt]) -> Marks | None:
    """By the first reply that the script would take; None if one of them ends the script.

    Pictures without such a reply, and rows that do not survive its table, are left out, as there.
    """
    pictures = [
        (prompt.prompt.id, picture, points[prompt.prompt.id].dimensions)
        for prompt in judged
        for picture in prompt.pictures
    ]
    try:
        return [
            (prompt_id, picture.index, dimensions, right)
            for prompt_id, picture, dimensions in pictures
            if (right := _official(picture.replies, len(dimensions))) is not None
        ]
    except TypeError:
        return None


def _official(replies: Sequence[str], number: int) -> tuple[bool, ...] | None:
    read = (read_officially(reply, number) for reply in replies)
    scores = next((found for found in read if found is not None), None)
    return None if scores is None else counted_officially(scores, number)


def _by(name_of: Callable[[str], str], marks: Marks) -> dict[str, list[Row]]:
    """One row for each picture in each dimension that it is tested for."""
    rows: dict[str, list[Row]] = {}
    for prompt_id, index, dimensions, right in marks:
        of_picture: dict[str, list[bool]] = {}
        for dimension, is_right in zip(dimensions, right, strict=False):
            of_picture.setdefault(name_of(dimension), []).append(is_right)
        for name, found in of_picture.items():
            rows.setdefault(name, []).append((prompt_id, index, float(sum(found)), float(len(found))))
    return rows


def _mean(name: str, rows: Mapping[str, Sequence[Row]]) -> Measure:
    """Dimensions weigh the same."""
    return Measure(name, tuple(stratum(found, dimension) for dimension, found in rows.items()))


def _pooled(name: str, marks: Marks) -> Measure:
    """Test points weigh the same."""
    return Measure(name, tuple(stratum(rows) for rows in _by(lambda _: "", marks).values()))


def _each(prefix: str, rows: Mapping[str, Sequence[Row]]) -> list[Measure]:
    return [Measure(f"{prefix}{name.strip()}", (stratum(found),)) for name, found in rows.items()]


def _reference(marks: Marks | None) -> list[Measure]:
    """The script's dimensions, and the two overall figures that readers make of them."""
    found = marks or []
    return [
        _mean("reference/overall", _by(primary_officially, found)),
        _pooled("reference/micro", found),
        *_each("reference/primary/", _by(primary_officially, found)),
        *_each("reference/dimension/", _by(str, found)),
    ]


def _quirks(ours: Marks, official: Marks | None) -> list[Measure]:
    """What the script's `micro` would gain if it read what we read; `n` counts the pictures it drops."""
    if not ours or not official:
        return [effect("first_block_as_python", None, len(ours))]
    read, script = (_share(marks) for marks in (ours, official))
    dropped = len({mark[:2] for mark in ours} - {mark[:2] for mark in official})
    return [effect("first_block_as_python", read - script, dropped)]


def _share(marks: Marks) -> float:
    right = [is_right for mark in marks for is_right in mark[3]]
    return sum(right) / len(right)


BENCHMARK = UniGenBenchFold
