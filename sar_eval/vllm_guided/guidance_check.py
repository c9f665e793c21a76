"""Self-check of an engine: compare a few of its tokens with plain PyTorch on the same weights.

An engine that silently ignored the negative branch, or the prompt, would still draw images. So before it
draws any it samples two tokens of a few images; each must be the token that the checkpoint's guided scores
and the draw's noise select, and have the log-probability that follows from these scores.

The tokens are sampled at the temperature that puts the best guided score `BEST_ABOVE_MEAN` above the mean
one, and every other image with a guidance of at least `STRONG_GUIDANCE`. At the protocol's own temperature
the first tokens of a trained checkpoint are often almost certain, with guidance and without, and a weak
guidance changes little: the check would not distinguish a wrong engine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sar_eval.decoding.loop import Vocabulary, prefill
from sar_eval.decoding.noise import gumbel, noise_keys_at
from sar_eval.decoding.sampling import log_probabilities, process_logits
from sar_eval.decoding.transformer import Decoder
from sar_eval.errors import SarEvalError
from sar_eval.types import DrawProtocol
from sar_eval.vllm_guided.driver import ImageOutput, ImageRequest

BEST_ABOVE_MEAN = 6.0  # nats; the best of thousands of tokens is then likely, but not certain
STRONG_GUIDANCE = 6.0  # of every other image, so that ignoring a branch changes more than rounding does
# Deviation in nats that rounding may cause; always allowed, even where a wrong engine would deviate little.
ROUNDING = {"float32": 0.001, "bfloat16": 0.05, "float16": 0.02}


class GuidanceCheckFailed(SarEvalError):
    """The engine does not sample from the guided checkpoint."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far an engine deviates from plain PyTorch, in nats, and how far a wrong engine would.

    Attributes:
        measured: mean over tokens of: the best token's score plus noise minus that of the sampled token,
            plus the absolute differences of the log-probabilities.
        wrong: mean difference of log-probability between the guided distribution and the nearest one that
            a wrong engine would sample from (one branch alone, another image's prompts).
    """

    measured: float
    wrong: float


def check_requests(
    decoder: Decoder, vocabulary: Vocabulary, requests: Sequence[ImageRequest]
) -> list[ImageRequest]:
    """The same images with the guidance and temperature of the check, and with log-probabilities.

    Images with the same guidance share a temperature, so that an engine samples them together.
    """
    plain = [
        replace(request, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, return_log_probabilities=True)
        for request in requests
    ]
    strong = [
        replace(r, guidance=max(r.guidance, STRONG_GUIDANCE)) if n % 2 and r.guidance != 1 else r
        for n, r in enumerate(plain)
    ]
    temperatures: dict[float, float] = {}
    logits = _next_token_logits(decoder, vocabulary, [request.prompts for request in strong])
    for request, rows in zip(strong, logits, strict=True):
        scores = process_logits(rows, _protocol(request))
        temperature = float(scores.max() - scores.mean()) / BEST_ABOVE_MEAN
        guidance = request.guidance
        temperatures[guidance] = max(temperatures.get(guidance, 1e-3), temperature)
    return [replace(request, temperature=temperatures[request.guidance]) for request in strong]


def check_guidance(
    decoder: Decoder,
    vocabulary: Vocabulary,
    requests: Sequence[ImageRequest],
    outputs: Sequence[ImageOutput],
    rounding: float,
) -> Deviation:
    """Compare an engine's tokens with the checkpoint's own scores.

    An engine is accepted if its deviation is at most half of that of the nearest wrong engine, or at most
    `rounding`.

    Args:
        decoder, vocabulary: the checkpoint in plain PyTorch, on the CPU.
        requests: at least two images (see `check_requests`).
        outputs: their first tokens, as indices into the vocabulary, with log-probabilities.
        rounding: nats.

    Raises:
        GuidanceCheckFailed: the engine deviates more, or an image has no tokens.
    """
    for output in outputs:
        if output.error or output.failed_at >= 0 or not output.tokens:
            reason = output.error or "its scores are NaN or infinite"
            raise GuidanceCheckFailed(f"the engine could not draw the tokens of its self-check: {reason}")
    measured: list[float] = []
    wrong: dict[str, list[float]] = defaultdict(list)
    for step in range(min(len(output.tokens) for output in outputs)):
        previous = [[token + vocabulary.first_id for token in output.tokens[:step]] for output in outputs]
        sequences = [
            [[*prompt, *ids] for prompt in request.prompts]
            for request, ids in zip(requests, previous, strict=True)
        ]
        logits = _next_token_logits(decoder, vocabulary, sequences)
        for n, (request, output) in enumerate(zip(requests, outputs, strict=True)):
            measured.append(_deviation(logits[n], request, output, vocabulary, step))
            # At the first token alone: the later ones of another image follow other tokens.
            other = None if step else logits[(n + 1) % len(logits)]
            token = torch.tensor([output.tokens[step]])
            for name, difference in _wrong_engines(logits[n], other, request, token).items():
                wrong[name].append(difference)
    deviation = Deviation(
        sum(measured) / len(measured), min(sum(each) / len(each) for each in wrong.values())
    )
    limit = max(rounding, deviation.wrong / 2)
    if not deviation.measured <= limit:
        raise GuidanceCheckFailed(
            f"the engine does not sample from the guided checkpoint: it deviates by "
            f"{deviation.measured:.3g} nats from plain PyTorch on the same weights, {limit:.3g} are "
            "allowed; nothing was drawn"
        )
    return deviation


def _deviation(
    logits: Tensor, request: ImageRequest, output: ImageOutput, vocabulary: Vocabulary, step: int
) -> float:
    """How far the sampled token is from the best one, plus the errors of its log-probabilities."""
    token = torch.tensor([output.tokens[step]])
    scores = process_logits(logits, _protocol(request))
    noisy = scores + gumbel(noise_keys_at([request.seed], [step]), vocabulary.noise_ids)
    expected = [log_probabilities(scores, token)]
    if len(request.prompts) > 1:
        expected.append(log_probabilities(logits[:1] / request.temperature, token))
    returned = [row[step] for row in output.log_probabilities[: len(request.prompts)]]
    error = sum(abs(float(e) - r) for e, r in zip(expected, returned, strict=True))
    return float(noisy.max() - noisy[0, token]) + error


def _wrong_engines(
    logits: Tensor, other_logits: Tensor | None, request: ImageRequest, token: Tensor
) -> dict[str, float]:
    """How far the log-probabilities of wrong engines are from the right one, by kind of error."""
    wrong: dict[str, Tensor] = {}
    if len(logits) > 1:
        wrong |= {f"branch {n} alone": row[None] / request.temperature for n, row in enumerate(logits)}
    if other_logits is not None:
        wrong["another image's prompts"] = process_logits(other_logits, _protocol(request))
    right = log_probabilities(process_logits(logits, _protocol(request)), token)
    return {name: float(abs(log_probabilities(scores, token) - right)) for name, scores in wrong.items()}


def _protocol(request: ImageRequest) -> DrawProtocol:
    return request.branch("", False, 0).protocol


def _next_token_logits(
    decoder: Decoder, vocabulary: Vocabulary, sequences: Sequence[Sequence[Sequence[int]]]
) -> list[Tensor]:
    """Logits `[branches, V]` of the token after each image's sequences, computed in one prefill."""
    rows = [row for image in sequences for row in image]
    cache = decoder.new_cache(len(rows), max(map(len, rows)))
    with torch.inference_mode():
        hidden, _ = prefill(decoder, rows, cache, torch.device("cpu"))
        logits: Tensor = vocabulary.head(hidden)
    return list(logits.split([len(image) for image in sequences]))
