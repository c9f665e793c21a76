"""The core types that all parts of sar-eval exchange: plain, frozen, standard library only."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from json.encoder import encode_basestring_ascii
from typing import Any

from sar_eval.answers import Answer as Answer  # noqa: PLC0414 - where answerers import it from
from sar_eval.draw_protocol import DrawProtocol as DrawProtocol  # noqa: PLC0414 - as well

Json = Any  # JSON-shaped data: dict, list, str, int, float, bool or None
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels; x1 and y1 lie outside
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # of a prompt: safe as a file name


@dataclass(frozen=True, slots=True)
class Prompt:
    """One line of a prompt suite.

    Attributes:
        id: unique in its suite, safe as a file name.
        text: what the checkpoint is asked to draw; untrusted.
        tag: the task or category the prompt belongs to ("" if none).
        checks: what a judge looks for (GenEval metadata, DPG questions), else None.
        split: part of the suite for split scores ("seen", "unseen"; "" if none).
    """

    id: str
    text: str
    tag: str = ""
    checks: Json = None
    split: str = ""


@dataclass(frozen=True, slots=True)
class Draw:
    """One image to make. The seed depends on nothing but the run's seed and the draw's name."""

    prompt: Prompt
    index: int
    seed: int

    @property
    def key(self) -> str:
        """Prompt id, slash, index."""
        return f"{self.prompt.id}/{self.index}"


@dataclass(frozen=True, slots=True)
class Generation:
    """One finished draw. Either `image` is set or `error` says why not.

    Attributes:
        key: of the draw.
        seed: of the draw.
        tokens: visual codes in raster order, 0 up to codebook size - 1.
        image: an encoded PNG or lossless WebP (or None).
        elapsed_s: seconds of the draw's batch divided by the images in it.
        out_of_range_tokens: sampled tokens outside the visual range (only with `full_vocab`).
        error: why there is no image.
        provenance: what made it (engine, versions, device, wave size); not part of the draw's identity.
        steps: forward passes of the decoder after the prompt (0 if unknown).
    """

    key: str
    seed: int
    tokens: tuple[int, ...] = ()
    image: bytes | None = None
    elapsed_s: float = 0.0
    out_of_range_tokens: int = 0
    error: str | None = None
    provenance: Mapping[str, Json] = field(default_factory=dict)
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's result for one generation. Unscored is None, never NaN and never 0."""

    key: str
    judge: str
    judge_version: str
    score: float | None = None
    passed: bool | None = None
    reason: str = ""
    evidence: Json = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """What a scorer says of one picture: a number, or why there is none.

    Attributes:
        value: in the scorer's unit.
        error: why there is no value.
        truncated: the prompt was longer than the network reads, and its end was cut off.
        more: further numbers of the same network, as HPSv3's spread.
    """

    value: float | None = None
    error: str | None = None
    truncated: bool = False
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScorerFacts:
    """What a scorer, or one variant of it, says of itself.

    Attributes:
        unit: of its numbers, in a word or two ("cosine", "points").
        low, high: the range of its numbers; None where there is no limit.
        needs_prompt: whether a picture without a prompt has no score.
        licence: of code and weights.
        weights: names of its published files (see `tensors.published_weights`).
        cost: of a picture of 1024 pixels a side, in GFLOP (1e9 floating-point operations, two for each
            multiplication with addition), roughly; None if unknown. The cheapest is asked first.
    """

    unit: str
    low: float | None
    high: float | None
    needs_prompt: bool
    licence: str
    weights: tuple[str, ...] = ()
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """One object found in an image.

    Attributes:
        name: its class.
        box: in pixels of the image.
        score: the detector's confidence, 0 to 1.
        color: the classifier's colour for this box, if it was asked.
        colors: the classifier's probability of every colour, if it was asked.
        mask: COCO run-length encoding `{"size": [h, w], "counts": ...}`, if kept.
    """

    name: str
    box: Box
    score: float
    color: str | None = None
    mask: Json = None
    colors: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """A headline figure with its 95 % interval; `n` counts what it is a mean of (draws or prompts).

    `scale` is what its benchmark calls a perfect score: 1, or 100 for points; `bounds` as of a `Measure`.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    scale: int = 1
    bounds: tuple[float, float] | None = (0.0, 1.0)

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and `scale`, as a share of correct images does."""
        return self.bounds == (0.0, 1.0)

    def written(self, value: float, sign: str = "-") -> str:
        """A value as papers print it, 0.797 or 79.66; `sign` is "-" or, for effects, "+"."""
        return f"{value:{sign}.{3 if self.scale == 1 else 2}f}"


@dataclass(frozen=True, slots=True)
class Summary:
    """The outcome of a run, as `summary.json` stores it.

    An incomplete run has metrics only if they were asked for: they are then computed over the images
    that are there, and `partial` is set. `steps_per_image` is the mean number of forward passes of the
    decoder after the prompt, None if unknown; `out_of_range_tokens` counts text tokens drawn as code 0;
    `devices` names devices and wave sizes if there are several and the dtype's rounding depends on them;
    `shard` is "2/8" for one of eight shares of a run, which has no metrics, else "".
    `stopped` says why a sequential run drew no more: what it did not draw is not `failed`, and its metrics
    are partial.
    """

    spec_digest: str
    benchmark: str
    checkpoint: str
    protocol: Mapping[str, Json]
    expected: int
    generated: int
    judged: int
    failed: int
    metrics: tuple[Metric, ...]
    problems: tuple[str, ...]
    versions: Mapping[str, str]
    partial: bool = False
    steps_per_image: float | None = None
    out_of_range_tokens: int = 0
    devices: tuple[str, ...] = ()
    shard: str = ""
    stopped: str = ""

    @property
    def complete(self) -> bool:
        """Whether something was expected, and nothing of it is missing or failed."""
        return self.expected > 0 and self.failed == 0 and self.generated == self.expected


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """What an engine's `find` says of a checkpoint that is no folder of `families`.

    Attributes:
        name: what the run calls it; the engine is made with it.
        digest: of what the images depend on beside the protocol, 16 hex digits.
        native_resolution: side in pixels, where neither recipe nor command line says another.
        downsample: the least resolution.
        protocol_keys: fields of the protocol that the engine draws by. A recipe's others are of other
            checkpoints and are left out; on the command line they are refused.
        recipe_keys: those among them that a recipe for another engine may set.
        protocol: its own protocol: fields by name where nobody says another value, and `name`.
        notes: what was assumed, for the user.
    """

    name: str
    digest: str
    native_resolution: int
    downsample: int = 1
    protocol_keys: tuple[str, ...]
    recipe_keys: tuple[str, ...]
    protocol: Mapping[str, Json] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `of` shares of a run, counted from 1: every block belongs to exactly one of them."""

    index: int = 1
    of: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingOrder:
    """In which order a sequential run draws its prompts (see `runtime.drawing_order`).

    Attributes:
        seed: of the order.
        by_tag: whether the prompts of a tag are a task of their own, of which every round has some.
    """

    seed: int
    by_tag: bool


def suite_digest(prompts: Iterable[Prompt]) -> str:
    """SHA-256 over ids, texts, tags, checks and splits, 16 hex digits."""
    total, lines = hashlib.sha256(), _digested(prompts)
    while chunk := "".join(islice(lines, 4096)):
        total.update(chunk.encode())
    return total.hexdigest()[:16]


def _digested(prompts: Iterable[Prompt]) -> Iterator[str]:
    """What json.dumps([id, text, tag, checks, split], sort_keys=True) gives, several times as fast."""
    quoted, rests = encode_basestring_ascii, dict[tuple[str, str], str]()
    for p in prompts:
        if p.checks is not None:
            rest = f", {quoted(p.tag)}, {json.dumps(p.checks, sort_keys=True)}, {quoted(p.split)}]"
        elif (labels := (p.tag, p.split)) in rests:
            rest = rests[labels]
        else:
            rest = f", {quoted(p.tag)}, null, {quoted(p.split)}]"
            if len(rests) < 1000:  # tags and splits are few, or there is nothing to gain
                rests[labels] = rest
        yield f"[{quoted(p.id)}, {quoted(p.text)}{rest}"


def checked_verdict(verdict: Verdict) -> Verdict:
    """A judge's verdict with a finite score, or with an error: nothing leaves a mean in silence."""
    if verdict.error is not None:
        return replace(verdict, score=None, passed=None)
    if verdict.score is None and verdict.passed is not None:
        return replace(verdict, score=float(verdict.passed))
    if verdict.score is None:
        return replace(verdict, error="the judge gave no score")
    if not math.isfinite(verdict.score):
        return replace(verdict, score=None, passed=None, error=f"the judge's score is {verdict.score}")
    return verdict


def safe_id(name: str) -> str:
    """A prompt's id as a file name: itself if it is safe, else what is left of it and a digest.

    It depends on nothing but the name, so files and manifests that use the original find their prompt.
    """
    if SAFE_ID.fullmatch(name):
        return name
    rest = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-._")[:80]
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{rest}-{digest}" if rest else f"id-{digest}"


def draw_seed(run_seed: int, prompt_id: str, index: int) -> int:
    """63-bit seed of a draw: the same for any number of workers, any resume and any order."""
    name = f"{run_seed}\x00{prompt_id}\x00{index}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1


def make_draw(prompt: Prompt, index: int, run_seed: int) -> Draw:
    """The draw `prompt.id/index` of a run."""
    return Draw(prompt, index, draw_seed(run_seed, prompt.id, index))
