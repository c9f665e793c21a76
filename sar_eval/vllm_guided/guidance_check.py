"""Is guidance applied, and with these weights? A few tokens of an engine against plain PyTorch.

An engine that quietly ignored the negative branch, or the prompt, would still draw images. So before it
draws any it samples two tokens of a few images; each must be a token that the checkpoint's own scores,
guided and with the draw's noise, would choose, and have the log-probability that they give it.

The tokens are sampled at the temperature that puts the best guided score `RISE` above the mean one, and
every other image with a guidance of at least `TELLING`. At the protocol's own temperature a trained
checkpoint is often sure of its first tokens, with guidance and without, and a weak guidance changes little:
that would prove nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sar_eval.decoding.loop import Vocabulary, prefill
from sar_eval.decoding.noise import gumbel, keys_at
from sar_eval.decoding.sampling import log_probabilities, policy_scores
from sar_eval.decoding.transformer import Decoder
from sar_eval.errors import SarEvalError
from sar_eval.types import DrawProtocol
from sar_eval.vllm_guided.driver import Drawn, Order

RISE = 6.0  # nats; the best token of thousands is then likelier than another one, but not sure
TELLING = 6.0  # guidance of every other image: what a branch left out changes must exceed rounding
# Deviation in nats that rounding alone may cause where even a wrong engine would hardly deviate.
ROUNDING = {"float32": 0.001, "bfloat16": 0.05, "float16": 0.02}


class NotGuided(SarEvalError):
    """The engine's tokens are not those of the guided checkpoint."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far an engine is from plain PyTorch, in nats, and how far from it a wrong one would be.

    Attributes:
        found: mean over tokens of: what a better token would have had more in score and noise, and the
            differences of the log-probabilities.
        wrong: mean difference of log-probability between the guided distribution and the nearest one that
            a wrong engine would draw from (one branch alone, another image's prompts).
    """

    found: float
    wrong: float


def telling(decoder: Decoder, vocabulary: Vocabulary, orders: Sequence[Order]) -> list[Order]:
    """The same images, sampled so that their tokens tell most, with log-probabilities.

    Those of one guidance share a temperature, so that an engine samples them together.
    """
    plain = [replace(order, temperature=1.0, top_k=0, top_p=1.0, scored=True) for order in orders]
    strong = [
        replace(order, guidance=max(order.guidance, TELLING)) if n % 2 and order.guidance != 1 else order
        for n, order in enumerate(plain)
    ]
    rise: dict[float, float] = {}
    for order, rows in zip(strong, _scores(decoder, vocabulary, [o.prompts for o in strong]), strict=True):
        scores = policy_scores(rows, _protocol(order))
        highest = float(scores.max() - scores.mean()) / RISE
        rise[order.guidance] = max(rise.get(order.guidance, 1e-3), highest)
    return [replace(order, temperature=rise[order.guidance]) for order in strong]


def check_guidance(
    decoder: Decoder,
    vocabulary: Vocabulary,
    orders: Sequence[Order],
    drawn: Sequence[Drawn],
    rounding: float,
) -> Deviation:
    """Compare what an engine drew with the checkpoint's own scores.

    An engine is accepted if it is nearer to the guided checkpoint than half the way to the nearest wrong
    one, or off by no more than rounding.

    Args:
        decoder, vocabulary: the checkpoint in plain PyTorch, on the CPU.
        orders: the images (see `telling`), two at least.
        drawn: their first tokens, numbered as the vocabulary's columns, with log-probabilities.
        rounding: nats.

    Raises:
        NotGuided: it deviates more, or an image has no tokens.
    """
    for image in drawn:
        if image.error or image.failed_at >= 0 or not image.tokens:
            raise NotGuided(
                f"the engine could not draw the tokens of its self-check: {image.error or 'no numbers'}"
            )
    found: list[float] = []
    wrong: dict[str, list[float]] = defaultdict(list)
    for step in range(min(len(image.tokens) for image in drawn)):
        before = [[token + vocabulary.first for token in image.tokens[:step]] for image in drawn]
        texts = [[[*p, *b] for p in order.prompts] for order, b in zip(orders, before, strict=True)]
        scores = _scores(decoder, vocabulary, texts)
        for n, (order, image) in enumerate(zip(orders, drawn, strict=True)):
            place = torch.tensor([image.tokens[step]])
            told = [row[step] for row in image.scores[: len(order.prompts)]]
            found.append(_deviation(scores[n], order, vocabulary, step, place, told))
            # At the first token alone: later ones of another image follow other tokens.
            other = None if step else scores[(n + 1) % len(scores)]
            for name, off in _alternatives(scores[n], other, order, place).items():
                wrong[name].append(off)
    deviation = Deviation(sum(found) / len(found), min(sum(each) / len(each) for each in wrong.values()))
    limit = max(rounding, deviation.wrong / 2)
    if not deviation.found <= limit:
        raise NotGuided(
            f"the engine does not sample from the guided checkpoint: it deviates by {deviation.found:.3g} "
            f"nats from plain PyTorch on the same weights, {limit:.3g} are allowed; nothing was drawn"
        )
    return deviation


def _deviation(
    rows: Tensor, order: Order, vocabulary: Vocabulary, step: int, place: Tensor, told: Sequence[float]
) -> float:
    """How far the chosen token is from the best one, plus how far its log-probabilities are off."""
    scores = policy_scores(rows, _protocol(order))
    noisy = scores + gumbel(keys_at([order.seed], [step]), vocabulary.ids)
    expected = [log_probabilities(scores, place)]
    if len(order.prompts) > 1:
        expected.append(log_probabilities(rows[:1] / order.temperature, place))
    off = sum(abs(float(e) - t) for e, t in zip(expected, told, strict=True))
    return float(noisy.max() - noisy[0, place]) + off


def _alternatives(rows: Tensor, others: Tensor | None, order: Order, place: Tensor) -> dict[str, float]:
    """How far the distributions of wrong engines are from the right one, at this token."""
    wrong: dict[str, Tensor] = {}
    if len(rows) > 1:
        wrong |= {f"branch {n} alone": row[None] / order.temperature for n, row in enumerate(rows)}
    if others is not None:
        wrong["another image's prompts"] = policy_scores(others, _protocol(order))
    right = log_probabilities(policy_scores(rows, _protocol(order)), place)
    return {name: float(abs(log_probabilities(scores, place) - right)) for name, scores in wrong.items()}


def _protocol(order: Order) -> DrawProtocol:
    return order.branch("", False, 0).protocol


def _scores(
    decoder: Decoder, vocabulary: Vocabulary, texts: Sequence[Sequence[Sequence[int]]]
) -> list[Tensor]:
    """Scores `[branches, V]` of the token after each image's texts, each different text read once."""
    rows = [row for image in texts for row in image]
    cache = decoder.new_cache(len(rows), max(map(len, rows)))
    with torch.inference_mode():
        hidden, _ = prefill(decoder, rows, cache, torch.device("cpu"))
        scores: Tensor = vocabulary.head(hidden)
    return list(scores.split([len(image) for image in texts]))
