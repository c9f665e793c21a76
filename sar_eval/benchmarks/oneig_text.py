"""OneIG-Bench's rendered text: nearness, complete texts and matched words, ours and its script's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sar_eval.measures import Measure, Row, stratum
from sar_eval.suites.oneig.text import (
    Key,
    Reading,
    combined,
    read,
    read_key,
    read_officially,
)
from sar_eval.suites.replies import bounds_of, effect, missing_pictures, read_replies
from sar_eval.types import Prompt, Verdict

Read = tuple[str, int, Key, Reading]  # of a picture: its prompt's id and its index there


class OneigTextFold:
    """`overall` is the mean over pictures of each one's text score, so that it has an interval.

    The script puts the score together of three means, which is another number; `composite` does so, too,
    with our readings and each picture's edit distance cut.
    """

    version = "1"

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """`overall`, `composite`, `nearness`, `complete`, `words_*`; `reference/*`, `quirk/*`.

        `bounds/overall_at_least` and `_at_most` if pictures are missing.

        Raises:
            BadInput: a prompt has no text to be read, or a verdict's evidence no text that was read.
        """
        keys = {prompt.id: read_key(prompt.checks, f"prompt {prompt.id}") for prompt in prompts}
        judged = read_replies(prompts, verdicts, "oneig_text")
        at = [(p, keys[p.prompt.id]) for p in judged]
        ours = [(p.prompt.id, i, key, read(key, t)) for p, key in at for i, t in p.values("text", str)]
        official = [
            (p.prompt.id, i.index, key, read_officially(key.text, i.replies[0]))
            for p, key in at
            for i in p.pictures
        ]
        scores = [(p, i, _score(key, found), 1.0) for p, i, key, found in ours]
        missing: list[Row] = [(*lost, 0.0, 1.0) for lost in missing_pictures(prompts, verdicts)]
        return (
            _measure("overall", scores),
            _composite("composite", ours, cut=True),
            *_parts("", ours, cut=True),
            *bounds_of("overall", {"": scores}, {"": missing}),
            _composite("reference/overall", official, cut=False),
            *_parts("reference/", official, cut=False),
            *_quirks(ours, official),
        )


def _score(key: Key, found: Reading) -> float:
    """One picture's text score: 1 for the text itself."""
    return combined(found.distance, float(found.complete), found.share, key.largest)


def _measure(name: str, rows: Sequence[Row], **known: Any) -> Measure:
    return Measure(name, (stratum(rows),) if rows else (), **known)


def _parts(prefix: str, pictures: Sequence[Read], *, cut: bool) -> list[Measure]:
    """Nearness, share of complete texts, share of words by key and by picture.

    Nearness is 1 less the edit distance over the distance that counts as far as any, so that more is
    better as in every figure; the script's, whose distances are not cut, can be below 0.
    """
    near = [(p, i, 1 - _distance(key, found, cut=cut) / key.largest, 1.0) for p, i, key, found in pictures]
    complete = [(p, i, float(found.complete), 1.0) for p, i, _, found in pictures]
    shares = [(p, i, found.share, 1.0) for p, i, _, found in pictures]
    words = [(p, i, float(found.matched), float(found.units)) for p, i, _, found in pictures if found.units]
    return [
        _measure(f"{prefix}nearness", near, bounds=(0.0, 1.0) if cut else None),
        _measure(f"{prefix}complete", complete),
        _measure(f"{prefix}words_micro", words),
        _measure(f"{prefix}words_macro", shares),
    ]


def _distance(key: Key, found: Reading, *, cut: bool) -> int:
    return min(found.distance, key.largest) if cut else found.distance


def _composite(name: str, pictures: Sequence[Read], *, cut: bool) -> Measure:
    """The score of three means; no interval, since it is no mean itself."""
    value = _composite_value(pictures, cut=cut)
    strata = () if value is None else (stratum([("", 0, value, 1.0)]),)
    return Measure(name, strata, count=len(pictures), has_interval=False)


def _composite_value(pictures: Sequence[Read], *, cut: bool) -> float | None:
    """The script's formula; `cut` limits each picture's edit distance, not the mean alone."""
    units = sum(found.units for *_, found in pictures)
    if not units:
        return None
    number = len(pictures)
    distances = [_distance(key, found, cut=cut) for *_, key, found in pictures]
    complete = sum(found.complete for *_, found in pictures) / number
    share = sum(found.matched for *_, found in pictures) / units
    return combined(sum(distances) / number, complete, share, pictures[0][2].largest)


def _quirks(ours: Sequence[Read], official: Sequence[Read]) -> list[Measure]:
    """What the script's score would gain without each quirk; `n` counts the pictures concerned."""
    read_ours, script = (_composite_value(pictures, cut=False) for pictures in (ours, official))
    cut = _composite_value(ours, cut=True)
    as_officially = {(p, i): found for p, i, _, found in official}
    changed = sum(found != as_officially[p, i] for p, i, _, found in ours)
    far = sum(found.distance > key.largest for *_, key, found in ours)
    return [
        effect("phrases_and_blanks_stay", _gain(read_ours, script), changed),
        effect("cut_at_the_mean", _gain(cut, read_ours), far),
    ]


def _gain(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


BENCHMARK = OneigTextFold
