"""Stage: whether the scorers' weights are here, and give published pictures their published scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sar_eval import discover
from sar_eval.errors import BadInput, Incomplete, SarEvalError
from sar_eval.scoring import ScorerSet, label, split_variant
from sar_eval.stages.anchors import Anchor
from sar_eval.stages.fetch import fetch
from sar_eval.stages.fetch_plan import SCORERS, weights_of
from sar_eval.tensors.published_weights import find_weights
from sar_eval.tensors.remote_file import RemoteFile
from sar_eval.types import Json


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
    for name in [form for each in asked for form in _forms(each)]:
        missing = _missing(name)
        own = [anchor for anchor in anchors if anchor.scorer in (name, _bare(name))]
        if missing:
            yield Comparison(name, "", None, missing)
        elif not own:
            yield Comparison(name, "", True, "ready; no published score to compare with")
        for anchor in own if not missing else ():
            yield _compare(name, anchor, device)


def _forms(name: str) -> list[str]:
    """A scorer's name with each of its variants; a name with a variant, or a file's, as it is."""
    scorer, variant = split_variant(name)
    weights_of(name)  # which knows the name, or says what is near
    if variant or discover.is_file(name):
        return [name]
    return [f"{scorer}:{form}" if form else scorer for form in discover.load(SCORERS, scorer).variants]


def _bare(name: str) -> str:
    """What an anchor may call a scorer: its default variant needs no name, a file has its own."""
    scorer, variant = split_variant(name)
    if discover.is_file(name):
        return label(name)
    return scorer if variant == next(iter(discover.load(SCORERS, scorer).variants)) else name


def _missing(name: str) -> str:
    """What a scorer lacks, in words; "" if nothing."""
    for weights in weights_of(name):
        try:
            find_weights(weights)
        except BadInput as error:
            return str(error)
    return ""


def _compare(name: str, anchor: Anchor, device: str) -> Comparison:
    picture = anchor.picture.name.rpartition("/")[2]
    try:
        path = _picture(anchor)
    except (BadInput, Incomplete) as error:
        return Comparison(name, picture, None, f"no picture: {error}", anchor.value)
    try:
        scores = [(form, _score(name, form, path, anchor.prompt, device)) for form in anchor.forms]
    except (SarEvalError, RuntimeError, AssertionError) as error:  # torch's, of a device that is not there
        return Comparison(name, picture, False, str(error), anchor.value)
    form, ours = min(scores, key=lambda pair: abs(pair[1] - anchor.value))
    off = abs(ours - anchor.value)
    with_form = "".join(f", {key} {value}" for key, value in form.items())
    words = f"{ours:.6g}{with_form}; published {anchor.value:.6g} ({anchor.source}): off by {off:.1e}"
    return Comparison(
        name, picture, off <= anchor.tolerance, f"{words} of {anchor.tolerance:g}", anchor.value, ours
    )


def _picture(anchor: Anchor) -> Path:
    if isinstance(anchor.picture, RemoteFile):
        return fetch((anchor.picture,))[0]
    if not anchor.picture.is_file():
        raise BadInput(f"no {anchor.picture} ({anchor.source})")
    return anchor.picture


def _score(name: str, form: Mapping[str, Json], path: Path, prompt: str, device: str) -> float:
    with ScorerSet([name], device=device, options={label(name): form} if form else None) as scorers:
        (found,) = scorers.score([path], [prompt])
    if found.errors:
        raise BadInput("; ".join(found.errors.values()))
    (value,) = found.scores.values()
    return value
