"""Scores images with reward models and other scorers: HPS, ImageReward, CLIP, aesthetic scores.

    sar-eval judge RUN --judge score --scorers hps,imagereward

A verdict's score is the first scorer's number, another one's (`score = "imagereward"`), or a weighted sum
(`weights = {hps = 1.0, aesthetic = 0.1}`); its evidence holds them all. An image for which any of them
has no number has no score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.options import check_dtype, check_whole_number
from sar_eval.scoring import Scored, ScorerSet, read_names
from sar_eval.types import Generation, Json, Prompt, Verdict

VERSION = "1"
LABEL = "judge 'score'"  # in error messages
LARGEST = 1e9  # of a weight


class ScoreJudge:
    """Several scorers over one decoding of each image."""

    fold = "scores"  # of its verdicts, on whatever suite

    def __init__(
        self,
        *,
        device: str = "cpu",
        scorers: str | list[str] = "",
        score: str = "",
        weights: Mapping[str, float] | None = None,
        dtype: str = "float32",
        images_at_once: int = 16,
        **options: Any,
    ) -> None:
        """Make the scorers, which check their options; networks are loaded on enter.

        Args:
            device: torch device of the networks.
            scorers: their names, as "hps,clip:hessel" or a list.
            score: name of the one whose number is the verdict's score; the first by default.
            weights: of a sum that is the score instead.
            dtype: of the networks; float32 for figures to publish.
            images_at_once: images of one forward pass; changes speed, not scores.
            options: a table for each scorer that needs one, as `hps = {resize = "aliased"}`.

        Raises:
            BadInput: no scorer, an unknown option, weights or a score of a scorer that is not among them.
            UnknownName: no such scorer.
        """
        names = read_names(scorers, LABEL) if scorers else []
        if not names:
            raise BadInput(f"{LABEL} has no scorers: name them, as --scorers hps,imagereward")
        check_dtype(dtype, LABEL)
        check_whole_number("images_at_once", images_at_once, LABEL)
        self.set = ScorerSet(names, device=device, dtype=dtype, batch_size=images_at_once, options=options)
        self.weights = _weights(score, weights, list(self.set.scorers))
        of = "+".join(f"{name}={version}" for name, version in self.set.versions.items())
        self.version = f"{VERSION}+{of}"
        self.speed_options = ("images_at_once", *_inner(self.set, "speed_options", options))
        self.path_options = tuple(_inner(self.set, "path_options", options))
        costs = [scorer.facts.cost for scorer in self.set.scorers.values()]
        self.cost = None if None in costs else sum(cost for cost in costs if cost is not None)
        self.needs_prompt = [name for name, s in self.set.scorers.items() if s.facts.needs_prompt]

    def __enter__(self) -> Self:
        self.set.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.set.__exit__(kind, error, trace)

    def judge(self, items: Sequence[tuple[Prompt, Generation]]) -> Iterator[Verdict]:
        """One verdict for each image, in order."""
        images = [generation.image or b"" for _, generation in items]
        scored = self.set.score(images, [prompt_of(prompt) for prompt, _ in items])
        for (_, generation), found in zip(items, scored, strict=True):
            yield self._verdict(generation, found)

    def _verdict(self, generation: Generation, found: Scored) -> Verdict:
        if error := _error(generation, found):
            evidence = self._evidence(found) if found.scores and not found.is_blank else None
            return Verdict(generation.key, "score", self.version, evidence=evidence, error=error)
        return Verdict(
            generation.key,
            "score",
            self.version,
            score=sum(weight * found.scores[name] for name, weight in self.weights.items()),
            reason=", ".join(f"{name} {value:.4g}" for name, value in found.scores.items()),
            evidence=self._evidence(found),
        )

    def _evidence(self, found: Scored) -> Json:
        """Every number with its scorer's version; what is empty is left out."""
        more = {"truncated": found.truncated, "more": found.more, "errors": found.errors}
        evidence = {"scores": found.scores, "versions": self.set.versions}
        return evidence | {name: value for name, value in more.items() if value}


def prompt_of(prompt: Prompt) -> str:
    """The prompt's text; "" for an image that was found without one."""
    is_missing = isinstance(prompt.checks, dict) and prompt.checks.get("prompt") is False
    return "" if is_missing else prompt.text


def _error(generation: Generation, found: Scored) -> str:
    """Why there is no score; "" if there is."""
    if generation.image is None:
        return f"no image: {generation.error}"
    if "" in found.errors:
        return found.errors[""]
    if found.is_blank:
        return "blank image"
    return "; ".join(f"{name}: {why}" for name, why in found.errors.items())


def _weights(score: Json, weights: Json, names: Sequence[str]) -> dict[str, float]:
    """How the verdict's score is made of the scorers' numbers."""
    if weights is not None and (not isinstance(weights, Mapping) or not weights):
        raise BadInput(f"weights {shorten(weights)} of {LABEL}: a table of numbers, as {{hps = 1.0}}")
    if score and weights:
        raise BadInput(f"{LABEL} takes either `score` or `weights`")
    chosen = weights or {str(score) or names[0]: 1.0}
    for name, weight in chosen.items():
        if name not in names:
            raise BadInput(f"{LABEL} has no scorer {name!r}; they are {', '.join(names)}")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not abs(weight) <= LARGEST:
            raise BadInput(f"weights.{name} {shorten(weight)} of {LABEL}: a number of a usual size")
    if not any(chosen.values()):
        raise BadInput(f"weights of {LABEL} are all 0: the sum says nothing")
    return {name: float(weight) for name, weight in chosen.items()}


def _inner(scorers: ScorerSet, kind: str, options: Mapping[str, Json]) -> Iterator[str]:
    """Names of the scorers' own options of a kind, as `hps.weights`."""
    for name, scorer in scorers.scorers.items():
        for table in {name, name.partition(":")[0]} & options.keys():
            yield from (f"{table}.{option}" for option in getattr(scorer, kind, ()))


JUDGE = ScoreJudge
