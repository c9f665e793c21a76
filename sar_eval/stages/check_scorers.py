"""Stage: whether the scorers' weights are here, and give published pictures their published scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sar_eval import discover
from sar_eval.errors import BadInput, Incomplete, SarEvalError
from sar_eval.scoring import ScorerSet, label, split_variant, variants_of
from sar_eval.stages.anchors import Anchor
from sar_eval.stages.fetch import fetch
from sar_eval.stages.fetch_plan import SCORERS, plan, weights_of
from sar_eval.tensors.remote_file import in_words
from sar_eval.types import Json

Form = Mapping[str, Json]  # options of a scorer
_Scored = tuple[Form, float | str]  # a number, or why there is none


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of the table.

    Attributes:
        scorer: its name, with its variant.
        picture: "" for a line about the scorer itself.
        ok: None where something is missing, so that nothing could be compared.
        detail: in words.
        published, ours: the scores; None without a comparison.
    """

    scorer: str
    picture: str
    ok: bool | None
    detail: str
    published: float | None = None
    ours: float | None = None


def check_scorers(
    names: Sequence[str], anchors: Sequence[Anchor], device: str = "cpu"
) -> Iterator[Comparison]:
    """Look for the weights of scorers, and compare scores where there are anchors.

    Args:
        names: of scorers, with or without a variant; without any, all that there are.
        anchors: published scores.
        device: of torch.

    Raises:
        UnknownName: no such scorer.
    """
    asked = names or discover.names(SCORERS)
    unused = {anchor.scorer for anchor in anchors} if not names else set()
    for name in [form for each in asked for form in _forms(each)]:
        own = [anchor for anchor in anchors if anchor.scorer in (name, _bare(name))]
        unused -= {anchor.scorer for anchor in own}
        if missing := _missing(name):
            yield Comparison(name, "", None, missing)
        elif own:
            yield from _compare(name, own, device)
        else:
            ready = "ready" if weights_of(name) else "needs no weights that are fetched"
            yield Comparison(name, "", True, f"{ready}; no published score to compare with")
    for name in sorted(unused):
        yield Comparison(name, "", None, "scores are given for it, but there is no scorer of that name")


def _forms(name: str) -> list[str]:
    """A scorer's name with each of its variants; a name with a variant, or a file's, as it is."""
    scorer, variant = split_variant(name)
    weights_of(name)  # which knows the name, or says what is near
    if variant or discover.is_file(name):
        return [name]
    return [f"{scorer}:{form}" if form else scorer for form in variants_of(scorer)]


def _bare(name: str) -> str:
    """What an anchor may call a scorer: its default variant needs no name, a file has its own."""
    scorer, variant = split_variant(name)
    if discover.is_file(name):
        return label(name)
    return scorer if variant == next(iter(variants_of(scorer))) else name


def _missing(name: str) -> str:
    """What a scorer lacks, in words; "" if nothing."""
    missing = [part for part in plan(SCORERS, [name]) if not part.is_there] if weights_of(name) else []
    if not missing:
        return ""
    size = in_words(sum(part.missing for part in missing), exact=False)
    which = ", ".join(dict.fromkeys(part.name for part in missing))
    return f"no {which} ({size}): `sar-eval fetch scorers {name}`"


def _compare(name: str, anchors: Sequence[Anchor], device: str) -> Iterator[Comparison]:
    """One line for each anchor; a network is loaded once for all pictures of a form."""
    paths: list[Path | str] = [_picture(anchor) for anchor in anchors]
    there = [number for number, path in enumerate(paths) if isinstance(path, Path)]
    scores: list[list[_Scored]] = [[] for _ in anchors]
    for form in _distinct(form for number in there for form in anchors[number].forms):
        with_it = [number for number in there if form in anchors[number].forms]
        pairs = [(paths[number], anchors[number].prompt) for number in with_it]
        for number, score in zip(with_it, _score(name, form, pairs, device), strict=True):
            scores[number].append((form, score))
    for anchor, path, found in zip(anchors, paths, scores, strict=True):
        picture = anchor.picture.name.rpartition("/")[2]
        if isinstance(path, str):
            yield Comparison(name, picture, None, f"no picture: {path}", anchor.value)
        else:
            yield _judge(name, picture, anchor, found)


def _distinct(forms: Iterable[Form]) -> list[Form]:
    found: list[Form] = []
    for form in forms:
        if form not in found:
            found.append(form)
    return found


def _judge(name: str, picture: str, anchor: Anchor, scores: Sequence[_Scored]) -> Comparison:
    """The form that comes nearest counts."""
    numbers = [(form, value) for form, value in scores if isinstance(value, float)]
    if not numbers:
        return Comparison(name, picture, False, str(scores[0][1]), anchor.value)
    form, ours = min(numbers, key=lambda pair: abs(pair[1] - anchor.value))
    off = abs(ours - anchor.value)
    with_form = "".join(f", {key} {value}" for key, value in form.items())
    words = f"{ours:.6g}{with_form}; published {anchor.value:.6g} ({anchor.source}): off by {off:.1e}"
    return Comparison(
        name, picture, off <= anchor.tolerance, f"{words} of {anchor.tolerance:g}", anchor.value, ours
    )


def _picture(anchor: Anchor) -> Path | str:
    """Where the picture lies, or why it does not."""
    if isinstance(anchor.picture, Path):
        return anchor.picture if anchor.picture.is_file() else f"no file {anchor.picture}"
    try:
        return fetch((anchor.picture,))[0]
    except (BadInput, Incomplete) as error:
        return str(error)


def _score(
    name: str, form: Form, pairs: Sequence[tuple[Path | str, str]], device: str
) -> Iterator[float | str]:
    """A number for each picture, or why there is none."""
    pictures, prompts = [path for path, _ in pairs], [prompt for _, prompt in pairs]
    options = {label(name): form} if form else None
    try:
        with ScorerSet([name], device=device, options=options) as scorers:
            scored = list(scorers.score(pictures, prompts))
    except (SarEvalError, RuntimeError, AssertionError) as error:  # torch's, of a device that is not there
        yield from [str(error)] * len(pairs)
        return
    for one in scored:
        yield next(iter(one.scores.values()), "; ".join(one.errors.values()))
