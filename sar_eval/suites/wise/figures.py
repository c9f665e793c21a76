"""WISE's figures of judged draws: as we count, and as the official calculator does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sar_eval.errors import BadInput
from sar_eval.measures import Measure, Row, Stratum, stratum
from sar_eval.suites.wise.official import Form, Results, calculate, read_tries
from sar_eval.types import Prompt, Verdict

TRIES = 3  # of the official scripts: later replies do not count there


@dataclass(frozen=True, slots=True)
class _Draw:
    """A draw that there should be.

    Attributes:
        number: id of its prompt.
        score: None if it has none.
        official: its sample as the official script reads the replies; None if it reads none of them.
        replied: whether there are replies.
    """

    number: int
    index: int
    category: str
    score: float | None = None
    official: float | None = None
    replied: bool = False


def measures_of_categories(
    form: Form, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]
) -> tuple[Measure, ...]:
    """`overall`, `category/*`; `bounds/*`, `share/*` if draws have no score; `reference/*`.

    `overall` weighs the categories as the official script does, whatever is missing in them.
    `bounds/all_wrong` and `bounds/all_right` are what it would be if all draws without a score were so.

    Raises:
        BadInput: a prompt's id is none of WISE's.
    """
    draws = _expected(form, prompts, verdicts)
    return (
        *_measures(form, "", _strata(draws, lambda draw: draw.score)),
        *_doubts(form, draws),
        *_reference(form, draws),
    )


def _expected(form: Form, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> list[_Draw]:
    """All draws in suite order, those without a verdict among them."""
    numbers = {prompt.id: _number(form, prompt) for prompt in prompts}
    found: dict[tuple[str, int], _Draw] = {}
    for key, verdict in verdicts.items():
        prompt_id, _, index = key.rpartition("/")
        if prompt_id in numbers:
            draw = _draw(form, numbers[prompt_id], int(index), verdict)
            found[prompt_id, draw.index] = draw
    indices = sorted({index for _, index in found})
    return [
        found.get((prompt_id, index)) or _draw(form, number, index, None)
        for prompt_id, number in numbers.items()
        for index in indices
    ]


def _draw(form: Form, number: int, index: int, verdict: Verdict | None) -> _Draw:
    category = str(form.category(number)).lower()
    if verdict is None:
        return _Draw(number, index, category)
    evidence = verdict.evidence if isinstance(verdict.evidence, Mapping) else {}
    replies = evidence.get("replies") or []
    scores = read_tries(form, replies[:TRIES])
    official = None if scores is None else form.sample(scores)
    return _Draw(number, index, category, verdict.score, official, bool(replies))


def _strata(draws: Sequence[_Draw], value: Callable[[_Draw], float | None]) -> tuple[Stratum, ...]:
    """One stratum for each category, of the draws that have a value."""
    rows: dict[str, list[Row]] = {}
    for draw in draws:
        if (score := value(draw)) is not None:
            rows.setdefault(draw.category, []).append((str(draw.number), draw.index, score, 1.0))
    return tuple(stratum(of_category, category) for category, of_category in rows.items())


def _measures(form: Form, prefix: str, strata: tuple[Stratum, ...]) -> list[Measure]:
    """The overall figure and one for each category."""
    by_category = [Measure(f"{prefix}category/{one.task}", (one,)) for one in strata]
    return [_overall(form, f"{prefix}overall", strata), *by_category]


def _overall(form: Form, name: str, strata: tuple[Stratum, ...]) -> Measure:
    shares = {category.lower(): share for category, share in form.shares.items()}
    return Measure(name, strata, shares=shares)


def _doubts(form: Form, draws: Sequence[_Draw]) -> list[Measure]:
    """How far the draws without a score can move the figure, and which share of all they are."""
    if all(draw.score is not None for draw in draws):
        return []

    def filled(score: float) -> Callable[[_Draw], float]:
        return lambda draw: score if draw.score is None else draw.score

    def share(name: str, of_kind: Callable[[_Draw], bool]) -> Measure:
        rows = [(str(d.number), d.index, float(d.score is None and of_kind(d)), 1.0) for d in draws]
        return Measure(f"share/{name}", (stratum(rows),), has_interval=False)

    return [
        _overall(form, "bounds/all_wrong", _strata(draws, filled(0.0))),
        _overall(form, "bounds/all_right", _strata(draws, filled(1.0))),
        share("unreadable", lambda draw: draw.replied),
        share("missing", lambda draw: not draw.replied),
    ]


def _reference(form: Form, draws: Sequence[_Draw]) -> list[Measure]:
    """The official figures of the same replies; no value where the calculator refuses to give one."""
    samples = [(draw.number, draw.official) for draw in draws if draw.official is not None]
    results = Results(samples, frozenset(number for number, _ in samples))
    if calculate(form, results).overall is None:
        return [Measure("reference/overall", ())]
    return _measures(form, "reference/", _strata(draws, lambda draw: draw.official))


def _number(form: Form, prompt: Prompt) -> int:
    number = int(prompt.id) if prompt.id.isascii() and prompt.id.isdecimal() and len(prompt.id) < 9 else 0
    if form.category(number) is None:
        raise BadInput(
            f"prompt {prompt.id}: its id is none of WISE's, which are 1 to 1000: get the suite "
            "with `sar-eval prompts fetch`"
        )
    return number
