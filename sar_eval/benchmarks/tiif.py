"""TIIF-Bench: nine groups of types that weigh the same, ours and as its script reads the replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sar_eval.measures import Measure, Row, Stratum, merge, stratum
from sar_eval.suites.replies import JudgedPrompt, bounds_of, effect, missing_pictures, read_replies
from sar_eval.suites.tiif.scoring import (
    GROUPS,
    LENGTHS,
    TYPES,
    Accuracy,
    Item,
    overall_officially,
    read_item,
    read_officially,
    weights_of,
)
from sar_eval.types import Prompt, Verdict

Task = tuple[str, str]  # length and type
Rows = dict[Task, list[Row]]


class TiifFold:
    """Both figures of the same replies, short and long prompts apart and together.

    In ours every question of a picture that the judge answered counts. The script reads lines its own way,
    and rounds the accuracy of each type.
    """

    version = "1"

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """`overall`, `short`, `long`; `by_type`, `by_question`; `group/*`, `type/*`.

        `reference/*` and `quirk/*`; `bounds/overall_at_least` and `_at_most` if pictures are missing.

        Raises:
            BadInput: a prompt has no questions, or a verdict's evidence does not answer them.
        """
        items = {prompt.id: read_item(prompt.checks, f"prompt {prompt.id}") for prompt in prompts}
        judged = read_replies(prompts, verdicts, "tiif")
        ours, official = _our_rows(items, judged), _official_rows(items, judged)
        lost = _missing_rows(items, missing_pictures(prompts, verdicts))
        return (
            _grouped("overall", ours),
            *(_grouped(length, _of_length(ours, length)) for length in LENGTHS),
            Measure("by_type", _strata(ours)),
            Measure("by_question", (merge(_strata(ours)),) if ours else ()),
            *_by_group(ours),
            *_by_type(ours),
            *bounds_of("overall", _named(ours), _named(lost), shares=_shares([*ours, *lost])),
            *_reference(official),
            *_quirks(ours, official),
        )


def _our_rows(items: Mapping[str, Item], judged: Sequence[JudgedPrompt]) -> Rows:
    """One row for each scored picture: questions answered right, and all that count."""
    rows: Rows = {}
    for prompt in judged:
        item = items[prompt.prompt.id]
        for index, answers in prompt.values("answers", list):
            row = (prompt.prompt.id, index, float(item.right(answers)), float(item.total))
            rows.setdefault((item.length, item.type), []).append(row)
    return rows


def _official_rows(items: Mapping[str, Item], judged: Sequence[JudgedPrompt]) -> Rows:
    """The same by the first reply that the script would take; pictures without one are left out."""
    rows: Rows = {}
    for prompt in judged:
        item = items[prompt.prompt.id]
        for picture in prompt.pictures:
            read = (read_officially(reply, len(item.questions)) for reply in picture.replies)
            answers = next((found for found in read if found is not None), None)
            if answers is not None:
                row = (prompt.prompt.id, picture.index, float(item.right(answers)), float(item.total))
                rows.setdefault((item.length, item.type), []).append(row)
    return rows


def _missing_rows(items: Mapping[str, Item], missing: Sequence[tuple[str, int]]) -> Rows:
    rows: Rows = {}
    for prompt_id, index in missing:
        item = items[prompt_id]
        rows.setdefault((item.length, item.type), []).append((prompt_id, index, 0.0, float(item.total)))
    return rows


def _of_length(rows: Rows, length: str) -> Rows:
    return {task: found for task, found in rows.items() if task[0] == length}


def _named(rows: Rows) -> dict[str, list[Row]]:
    return {f"{length} {name}": found for (length, name), found in rows.items()}


def _strata(rows: Rows) -> tuple[Stratum, ...]:
    return tuple(stratum(found, task) for task, found in _named(rows).items())


def _shares(tasks: Sequence[Task]) -> dict[str, float]:
    """The weight of each task's stratum: lengths weigh the same, in them the groups, in these the types."""
    shares: dict[str, float] = {}
    for length in LENGTHS:
        weights = weights_of([name for other, name in tasks if other == length])
        shares |= {f"{length} {name}": weight for name, weight in weights.items()}
    return shares


def _grouped(name: str, rows: Rows) -> Measure:
    """The mean over the nine groups of their types' means."""
    return Measure(name, _strata(rows), shares=_shares(list(rows)))


def _by_group(rows: Rows) -> list[Measure]:
    """`group/short basic attribute` and so on: means over types."""
    measures = []
    for length in LENGTHS:
        for group, types in GROUPS.items():
            some = {(length, name): rows[length, name] for name in types if (length, name) in rows}
            if some:
                measures.append(Measure(f"group/{length} {group}", _strata(some)))
    return measures


def _by_type(rows: Rows) -> list[Measure]:
    """`type/*`, over short and long prompts."""
    tasks = {name: [task for task in rows if task[1] == name] for name in TYPES}
    return [
        Measure(f"type/{name}", _strata({task: rows[task] for task in found}))
        for name, found in tasks.items()
        if found
    ]


def _accuracies(rows: Rows, length: str) -> dict[str, Accuracy]:
    return {
        name: Accuracy(int(sum(row[2] for row in found)), int(sum(row[3] for row in found)))
        for (_, name), found in _of_length(rows, length).items()
    }


def _reference(rows: Rows) -> list[Measure]:
    """The script's figures as it rounds them; they have no interval, since they are no mean of anything."""
    measures = []
    for length in LENGTHS:
        found = _accuracies(rows, length)
        measures.append(_figure(f"reference/{length}", found))
        for group, types in GROUPS.items():
            if some := {name: found[name] for name in types if name in found}:
                measures.append(_figure(f"reference/group/{length} {group}", some))
    return measures


def _figure(name: str, found: Mapping[str, Accuracy]) -> Measure:
    strata = (stratum([("", 0, overall_officially(found), 1.0)]),) if found else ()
    return Measure(name, strata, count=sum(a.total for a in found.values()), has_interval=False)


def _quirks(ours: Rows, official: Rows) -> list[Measure]:
    """What the mean of the script's two figures would gain without each quirk; `n` counts questions."""
    number = int(sum(row[3] for found in official.values() for row in found))
    script, exact = (_both(official, digits=digits) for digits in (True, False))
    read = _both(ours, digits=False)
    if script is None or exact is None:
        return [effect("four_digits", None, 0), effect("only_lines_that_begin_with_an_answer", None, 0)]
    gain = None if read is None else read - exact
    return [
        effect("four_digits", exact - script, number),
        effect("only_lines_that_begin_with_an_answer", gain, number),
    ]


def _both(rows: Rows, *, digits: bool) -> float | None:
    """The mean over the lengths that are there."""
    found = [accuracies for length in LENGTHS if (accuracies := _accuracies(rows, length))]
    figures = [overall_officially(accuracies, digits=digits) for accuracies in found]
    return sum(figures) / len(figures) if figures else None


BENCHMARK = TiifFold
