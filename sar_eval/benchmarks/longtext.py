"""LongText-Bench: the share of a long text that is read in the picture, as we count and as its script does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sar_eval.measures import Measure, Row, stratum
from sar_eval.suites.longtext.scoring import Counts, Key, count, count_officially, read_key
from sar_eval.suites.replies import Judged, JudgedPrompt, bounds_of, effect, mean_of_rows, read_replies
from sar_eval.types import Prompt, Verdict

PictureCounts = tuple[JudgedPrompt, Judged, Counts]


class LongTextFold:
    """Every picture weighs the same in ours; in the script's figure every word does."""

    version = "1"

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """`overall` (recall by picture), `f1`, `micro`; `category/*`, `length/*`; `reference/*`, `quirk/*`.

        `bounds/overall/low` and `high` if pictures are missing.

        Raises:
            BadInput: a prompt has no text to be read, or a verdict's evidence no reply.
        """
        keys = {prompt.id: read_key(prompt.checks, f"prompt {prompt.id}") for prompt in prompts}
        judged = read_replies(prompts, verdicts, "longtext")
        ours = [(p, i, count(keys[p.prompt.id], i.last)) for p in judged for i in p.scored]
        official = [(p, i, _official(keys[p.prompt.id], i)) for p in judged for i in p.scored]
        recall = _rows(ours, "recall")
        missing = [(p.prompt.id, index, 0.0, 1.0) for p in judged for index in p.missing]
        return (
            _measure("overall", recall),
            _measure("f1", _rows(ours, "f1")),
            _measure("micro", _unit_rows(ours)),
            *_by_label(ours),
            *bounds_of("overall", recall, missing),
            _measure("reference/overall", _unit_rows(official)),
            *_quirks(ours, official),
        )


def _official(key: Key, picture: Judged) -> Counts:
    return count_officially(key.parts, picture.last, key.chinese)


def _rows(counted: Sequence[PictureCounts], figure: str) -> list[Row]:
    """One row for each picture, of weight 1."""
    return [(p.prompt.id, i.index, float(getattr(c, figure)), 1.0) for p, i, c in counted]


def _unit_rows(counted: Sequence[PictureCounts]) -> list[Row]:
    """One row for each picture, which weighs as much as its key has units."""
    return [(p.prompt.id, i.index, float(c.matched), float(c.key)) for p, i, c in counted]


def _measure(name: str, rows: Sequence[Row]) -> Measure:
    return Measure(name, (stratum(rows),) if rows else ())


def _by_label(counted: Sequence[PictureCounts]) -> list[Measure]:
    """`category/*` by the prompts' tags and `length/*` by their splits, in suite order."""
    measures = []
    for kind, attribute in (("category", "tag"), ("length", "split")):
        labels = dict.fromkeys(getattr(p.prompt, attribute) for p, _, _ in counted)
        for label in filter(None, labels):
            some = [row for row in counted if getattr(row[0].prompt, attribute) == label]
            measures.append(_measure(f"{kind}/{label}", _rows(some, "recall")))
    return measures


def _quirks(ours: Sequence[PictureCounts], official: Sequence[PictureCounts]) -> list[Measure]:
    """What the script's figure would gain without each quirk; `n` counts the pictures concerned."""
    if not ours:
        return [effect(name, None, 0) for name in ("phrases_stay", "every_word_weighs_the_same")]
    cleaned, script = mean_of_rows(_unit_rows(ours)), mean_of_rows(_unit_rows(official))
    changed = sum(a[2] != b[2] for a, b in zip(ours, official, strict=True))
    return [
        effect("phrases_stay", cleaned - script, changed),
        effect("every_word_weighs_the_same", mean_of_rows(_rows(ours, "recall")) - cleaned, len(ours)),
    ]


BENCHMARK = LongTextFold
