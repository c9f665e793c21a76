"""OneIG-Bench's alignment: shares of questions answered yes, as we score them and as its script does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sar_eval.measures import Measure, Row, stratum
from sar_eval.suites.dpg.answers import read_answers
from sar_eval.suites.dpg.scoring import PromptAnswers
from sar_eval.suites.oneig.alignment import QUIRKS, picture_score
from sar_eval.suites.replies import bounds_of, missing_pictures
from sar_eval.types import Prompt, Verdict


class OneigFold:
    """Both scorings of the same answers, and the effect of each quirk of the official one.

    The verdicts are those of the judge vqa. A question counts in ours if all its ancestors are answered
    yes, in the script's if its parents are, and only the exact answer `Yes` is one there.
    """

    version = "1"

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """`overall` and `class/*` (anime, human, ...); `reference/*`; `quirk/*`.

        `bounds/overall_at_least` and `_at_most` if pictures are missing.

        Raises:
            BadInput: a prompt has no questions, or a verdict's evidence does not answer them.
        """
        answered = read_answers(prompts, verdicts, "oneig")
        ours, official = _rows(answered, ()), _rows(answered, QUIRKS)
        missing: list[Row] = [(*at, 0.0, 1.0) for at in missing_pictures(prompts, verdicts)]
        return (
            _measure("overall", ours),
            *_by_class("class/", prompts, ours),
            *bounds_of("overall", {"": ours}, {"": missing}),
            _measure("reference/overall", official, combine="mean"),
            *_by_class("reference/class/", prompts, official, combine="mean"),
            *(_quirk(name, answered, official) for name in QUIRKS),
        )


def _rows(answered: Sequence[PromptAnswers], quirks: Sequence[str]) -> list[Row]:
    """One row for each picture, of weight 1."""
    return [
        (prompt.id, index, picture_score(prompt.questions, image.answers, image.yes, quirks), 1.0)
        for prompt in answered
        for index, image in zip(prompt.indices, prompt.images, strict=True)
    ]


def _measure(name: str, rows: Sequence[Row], **known: Any) -> Measure:
    return Measure(name, (stratum(rows),) if rows else (), **known)


def _by_class(prefix: str, prompts: Sequence[Prompt], rows: Sequence[Row], **known: Any) -> list[Measure]:
    """One measure for each tag, in suite order."""
    tags = {prompt.id: prompt.tag for prompt in prompts}
    return [
        _measure(f"{prefix}{tag}", [row for row in rows if tags[row[0]] == tag], **known)
        for tag in dict.fromkeys(filter(None, (tags[row[0]] for row in rows)))
    ]


def _quirk(name: str, answered: Sequence[PromptAnswers], official: Sequence[Row]) -> Measure:
    """What the script's figure would gain without one quirk; `n` counts the pictures that it changes."""
    without = _rows(answered, [quirk for quirk in QUIRKS if quirk != name])
    gains: list[Row] = [
        (prompt_id, index, after - before, 1.0)
        for (prompt_id, index, after, _), (_, _, before, _) in zip(without, official, strict=True)
    ]
    changed = sum(gain != 0 for _, _, gain, _ in gains)
    return _measure(f"quirk/{name}", gains, combine="mean", count=changed, is_effect=True)


BENCHMARK = OneigFold
