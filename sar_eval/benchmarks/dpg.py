"""DPG-Bench: shares of questions answered yes, folded anew and as the official script folds them.

Every figure is 100 times a share, as DPG's are published. docs/dpg.md has both foldings in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import fsum

from sar_eval.errors import BadInput
from sar_eval.stats import clustered_metric, difference_interval
from sar_eval.suites.dpg.questions import Question, read_questions
from sar_eval.suites.dpg.scoring import (
    EXACT_YES,
    QUIRKS,
    ROW_ORDER,
    Image,
    Item,
    Reference,
    count,
    l1,
    label,
    reference,
)
from sar_eval.types import Json, Metric, Prompt, Verdict

SCALE = 100
ORDER = ("global", "entity", "attribute", "relation", "other")  # of L1 in ELLA's tables
# What the other quirks do hangs on a few prompts that the question file names; prompts are no sample of it.
SAMPLED = (ROW_ORDER, EXACT_YES)
Row = tuple[str, str, float]  # L1, L2, score of one question about one image


class DpgFold:
    """Both foldings of the same answers, and what each quirk of the official one does."""

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Metric, ...]:
        """`overall`, `soft` if told, `category/*` (L1) and `detail/*` (L2); `reference/*`; `quirk/*`.

        Scored draws count only; what is missing is the summary's business.

        Raises:
            BadInput: a prompt has no questions, or a verdict's evidence does not answer them.
        """
        items = read_items(prompts, verdicts)
        official = reference(items)
        quirks = [_quirk(name, items, official) for name in QUIRKS]
        return (*_corrected(items), *_reference(official), *quirks)


def read_items(prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> list[Item]:
    """Questions and answers of every prompt in suite order, also of those without a scored draw.

    Raises:
        BadInput: a prompt has no questions, or a verdict's evidence does not answer them.
    """
    scored: dict[str, list[tuple[int, Verdict]]] = {}
    for key, verdict in verdicts.items():
        if verdict.score is not None:
            name, _, index = key.rpartition("/")
            scored.setdefault(name, []).append((int(index), verdict))
    items = []
    for prompt in prompts:
        questions = read_questions(prompt.checks, f"prompt {prompt.id}")
        drawn = sorted(scored.get(prompt.id, ()), key=lambda found: found[0])
        items.append(Item(prompt.id, questions, tuple(_image(questions, v) for _, v in drawn)))
    return items


def _image(questions: Sequence[Question], verdict: Verdict) -> Image:
    evidence = verdict.evidence if isinstance(verdict.evidence, dict) else {}
    rows: Json = evidence.get("questions")
    try:
        same = [row["id"] for row in rows] == [question.id for question in questions]
        answers = tuple(str(row["answer"]) for row in rows)
        yes = tuple(row["yes"] is True for row in rows)
        soft = tuple(row.get("soft") for row in rows)
    except (AttributeError, KeyError, TypeError):
        same = False
    if not same:
        raise BadInput(
            f"the verdict on {verdict.key} by judge {verdict.judge!r} does not answer its prompt's "
            "questions: the fold dpg reads verdicts of the judge vqa on this suite; judge the run again"
        )
    return Image(answers, yes, soft)


def _corrected(items: Sequence[Item]) -> list[Metric]:
    """Means over images, and over all images' answers of a category, after zeroing."""
    counted = [[[c.counted for c in count(i.questions, p.yes)] for p in i.images] for i in items]
    rows = [
        [
            (question.category, label(question), float(score))
            for image in images
            for question, score in zip(item.questions, image, strict=True)
        ]
        for item, images in zip(items, counted, strict=True)
    ]
    scores = [[_mean(image) for image in images] for images in counted]
    return [_metric("overall", scores), *_soft(items), *_by_category("", rows)]


def _soft(items: Sequence[Item]) -> list[Metric]:
    """The mean probability of yes, nothing zeroed, if the network tells it for every answer."""
    told = [[image.soft for image in item.images] for item in items]
    scores = [
        [_mean([p for p in soft if p is not None]) for soft in images if None not in soft]
        for images in told
    ]
    complete = any(told) and [len(images) for images in told] == [len(images) for images in scores]
    return [_metric("soft", scores)] if complete else []


def _reference(official: Reference) -> list[Metric]:
    """Mean over items of their means over images; categories as the script has them."""
    overall = _metric("reference/overall", [[_mean(images)] for images in official.scores.values()])
    rows = [[(l1(name), name, float(yes)) for name, yes in found] for found in official.categories.values()]
    images = sum(map(len, official.scores.values()))
    return [replace(overall, n=images), *_by_category("reference/", rows)]


def _quirk(name: str, items: Sequence[Item], official: Reference) -> Metric:
    """What the reference score would gain without one quirk; `n` counts the prompts it touches."""
    repaired = reference(items, [quirk for quirk in QUIRKS if quirk != name])
    before, after = ({i: _mean(s) for i, s in found.scores.items()} for found in (official, repaired))
    touched = sum(before.get(item.id) != after.get(item.id) for item in items)
    if not before or not after:
        return Metric(f"quirk/{name}", None, None, None, touched, SCALE)
    if name not in SAMPLED or before.keys() != after.keys():
        gain = _mean(list(after.values())) - _mean(list(before.values()))
        return Metric(f"quirk/{name}", SCALE * gain, None, None, touched, SCALE)
    gain, low, high = difference_interval([after[name] - before[name] for name in before])
    return Metric(f"quirk/{name}", SCALE * gain, SCALE * low, SCALE * high, touched, SCALE)


def _by_category(prefix: str, rows: Sequence[Sequence[Row]]) -> list[Metric]:
    """One metric for each L1 and each L2 category, in ELLA's order; `rows` are by prompt."""
    metrics = []
    for kind in ("category", "detail"):
        found: dict[tuple[str, str], list[list[float]]] = {}
        for prompt in rows:
            held: dict[tuple[str, str], list[float]] = {}
            for first, second, score in prompt:
                held.setdefault((first, first if kind == "category" else second), []).append(score)
            for name, scores in held.items():
                found.setdefault(name, []).append(scores)
        names = sorted(found, key=_place)
        metrics += [_metric(f"{prefix}{kind}/{name[1] or 'untagged'}", found[name]) for name in names]
    return metrics


def _place(name: tuple[str, str]) -> tuple[int, str]:
    return (ORDER.index(name[0]) if name[0] in ORDER else len(ORDER)), name[1]


def _metric(name: str, prompts: Sequence[Sequence[float]]) -> Metric:
    """A mean on DPG's scale with its interval clustered by prompt; None where nothing was scored."""
    return clustered_metric(name, [[scores for scores in prompts if scores]], SCALE)


def _mean(scores: Sequence[float]) -> float:
    return fsum(scores) / len(scores)


BENCHMARK = DpgFold
