"""Two foldings of the same verdicts, told apart by their metrics' names.

A fold that also gives the official script's figures calls them `reference/<name of ours>`, and what
repairing one of the script's quirks would change `quirk/<name>`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sar_eval.types import Metric

REFERENCE, QUIRK = "reference/", "quirk/"
QUIRKS_TITLE = "What each quirk of the official script changes"
QUIRKS_NOTE = (
    "Points that the reference score would gain if the script did not do this and did all else; effects "
    "need not add up. n counts the prompts concerned."
)


@dataclass(frozen=True, slots=True)
class Line:
    """A figure of ours and the reference's of the same name; one of the two may be missing."""

    name: str
    ours: Metric | None
    reference: Metric | None

    @property
    def group(self) -> str:
        """What stands before the name's last slash ("" for headline figures)."""
        return self.name.rpartition("/")[0]

    @property
    def label(self) -> str:
        """What stands after it, in words."""
        return self.name.rpartition("/")[2].replace("_", " ") or "untagged"


def lines(metrics: Iterable[Metric]) -> list[Line]:
    """Figures side by side, without the quirks: ours in their order, groups kept together."""
    ours: dict[str, Metric] = {}
    reference: dict[str, Metric] = {}
    for metric in metrics:
        if metric.name.startswith(REFERENCE):
            reference[metric.name.removeprefix(REFERENCE)] = metric
        elif not metric.name.startswith(QUIRK):
            ours[metric.name] = metric
    found = [Line(name, ours.get(name), reference.get(name)) for name in ours | reference]
    groups = list(dict.fromkeys(line.group for line in found))
    return sorted(found, key=lambda line: groups.index(line.group))


def has_reference(metrics: Iterable[Metric]) -> bool:
    """Whether there are two foldings to show."""
    return any(metric.name.startswith(REFERENCE) for metric in metrics)


def quirks(metrics: Iterable[Metric]) -> list[tuple[str, Metric]]:
    """The quirks in words, with their effects."""
    return [
        (metric.name.removeprefix(QUIRK).replace("_", " "), metric)
        for metric in metrics
        if metric.name.startswith(QUIRK)
    ]
