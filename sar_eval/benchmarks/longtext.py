"""LongText-Bench: the share of a long text that is read in the picture, ours and as its script counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sar_eval.measures import Measure, Row, stratum
from sar_eval.suites.longtext.scoring import Counts, cleaned_officially, count, read_key
from sar_eval.suites.replies import bounds_of, effect, mean_of_rows, missing_pictures, read_replies
from sar_eval.types import Prompt, Verdict

Counted = tuple[Prompt, int, Counts]  # of a picture: its prompt and its index there


class LongTextFold:
    """Every picture weighs the same in ours; in the script's figure every word does."""

    version = "1"

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """`overall` (recall by picture), `f1`, `micro`; `category/*`, `length/*`; `reference/*`, `quirk/*`.

        `bounds/overall_at_least` and `_at_most` if pictures are missing.

        Raises:
            BadInput: a prompt has no text to be read, or a verdict's evidence no text that was read.
        """
        keys = {prompt.id: read_key(prompt.checks, f"prompt {prompt.id}") for prompt in prompts}
        judged = read_replies(prompts, verdicts, "longtext")
        ours = [
            (p.prompt, i, count(keys[p.prompt.id], t)) for p in judged for i, t in p.values("text", str)
        ]
        official = [
            (p.prompt, picture.index, count(keys[p.prompt.id], cleaned_officially(picture.replies[0])))
            for p in judged
            for picture in p.pictures
        ]
        recall = _rows(ours, "recall")
        missing: list[Row] = [(*at, 0.0, 1.0) for at in missing_pictures(prompts, verdicts)]
        return (
            _measure("overall", recall),
            _measure("f1", _rows(ours, "f1")),
            _measure("micro", _unit_rows(ours)),
            *_by_label(ours),
            *bounds_of("overall", {"": recall}, {"": missing}),
            _measure("reference/overall", _unit_rows(official)),
            *_quirks(ours, official),
        )


def _rows(counted: Sequence[Counted], figure: str) -> list[Row]:
    """One row for each picture, of weight 1."""
    return [(p.id, i, float(getattr(c, figure)), 1.0) for p, i, c in counted]


def _unit_rows(counted: Sequence[Counted]) -> list[Row]:
    """One row for each picture, which weighs as much as its key has units."""
    return [(p.id, i, float(c.matched), float(c.key)) for p, i, c in counted]


def _measure(name: str, rows: Sequence[Row]) -> Measure:
    return Measure(name, (stratum(rows),) if rows else ())


def _by_label(counted: Sequence[Counted]) -> list[Measure]:
    """`category/*` by the prompts' tags and `length/*` by their splits, in suite order."""
    measures = []
    for kind, attribute in (("category", "tag"), ("length", "split")):
        labels = dict.fromkeys(getattr(p, attribute) for p, _, _ in counted)
        for label in filter(None, labels):
            some = [row for row in counted if getattr(row[0], attribute) == label]
            measures.append(_measure(f"{kind}/{label}", _rows(some, "recall")))
    return measures


def _quirks(ours: Sequence[Counted], official: Sequence[Counted]) -> list[Measure]:
    """What the script's figure would gain without each quirk; `n` counts the pictures concerned."""
    if not ours:
        return [effect(name, None, 0) for name in ("phrases_stay", "every_word_weighs_the_same")]
    read, script = (mean_of_rows(_unit_rows(counted)) for counted in (ours, official))
    as_officially = {(p.id, i): counts for p, i, counts in official}
    changed = sum(counts != as_officially[p.id, i] for p, i, counts in ours)
    return [
        effect("phrases_stay", read - script, changed),
        effect("every_word_weighs_the_same", mean_of_rows(_rows(ours, "recall")) - read, len(ours)),
    ]


BENCHMARK = LongTextFold
