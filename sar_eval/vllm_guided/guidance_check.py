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
    strong = [_stronger(request) if n % 2 else request for n, request in enumerate(plain)]
    temperatures: dict[object, float] = {}
    logits = _next_token_logits(decoder, vocabulary, [request.prompts for request in strong])
    for request, rows in zip(strong, logits, strict=True):
        scores = _scores(rows, request, 0)
        temperature = float(scores.max() - scores.mean()) / BEST_ABOVE_MEAN
        guidance = request.guidance, request.weights
        temperatures[guidance] = max(temperatures.get(guidance, 1e-3), temperature)
    return [replace(r, temperature=temperatures[r.guidance, r.weights]) for r in strong]


def _stronger(request: ImageRequest) -> ImageRequest:
    """The same image with a guidance of at least `STRONG_GUIDANCE`, where there is one."""
    if not request.weights:
        strong = request.guidance if request.guidance == 1 else max(request.guidance, STRONG_GUIDANCE)
        return replace(request, guidance=strong)
    greatest = max((abs(weight) for weights in request.weights for weight in weights), default=0.0)
    factor = STRONG_GUIDANCE / greatest if 0 < greatest < STRONG_GUIDANCE else 1.0
    weights = tuple(tuple(factor * weight for weight in weights) for weights in request.weights)
    return replace(request, weights=weights)


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
        outputs: their first tokens, as indices into the vocabulary (what is forced may lie before it),
            with log-probabilities. Forced slots are the same in all.
        rounding: nats.

    Raises:
        GuidanceCheckFailed: the engine deviates more, an image has no tokens, or a forced slot another.
    """
    for output in outputs:
        if output.error or output.failed_at >= 0 or not output.tokens:
            reason = output.error or "its scores are NaN or infinite"
            raise GuidanceCheckFailed(f"the engine could not draw the tokens of its self-check: {reason}")
    _check_forced(vocabulary, requests, outputs)
    measured: list[float] = []
    wrong: dict[str, list[float]] = defaultdict(list)
    shortest = min(len(output.tokens) for output in outputs)
    slots = [slot for slot in range(shortest) if slot not in requests[0].forced]
    for code, slot in enumerate(slots):
        previous = [[token + vocabulary.first_id for token in output.tokens[:slot]] for output in outputs]
        sequences = [
            [[*prompt, *ids] for prompt in request.prompts]
            for request, ids in zip(requests, previous, strict=True)
        ]
        logits = _next_token_logits(decoder, vocabulary, sequences)
        for n, (request, output) in enumerate(zip(requests, outputs, strict=True)):
            measured.append(_deviation(logits[n], request, output, vocabulary, code, slot))
            # At the first token alone: the later ones of another image follow other tokens.
            other = None if code else logits[(n + 1) % len(logits)]
            token = torch.tensor([output.tokens[slot]])
            for name, difference in _wrong_engines(logits[n], other, request, token, code).items():
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


def _check_forced(
    vocabulary: Vocabulary, requests: Sequence[ImageRequest], outputs: Sequence[ImageOutput]
) -> None:
    for request, output in zip(requests, outputs, strict=True):
        for slot, token_id in request.forced.items():
            if slot < len(output.tokens) and output.tokens[slot] + vocabulary.first_id != token_id:
                raise GuidanceCheckFailed(
                    f"the engine drew a token of its own in slot {slot}, where the id {token_id} is "
                    "forced; nothing was drawn"
                )


def _deviation(
    logits: Tensor,
    request: ImageRequest,
    output: ImageOutput,
    vocabulary: Vocabulary,
    code: int,
    slot: int,
) -> float:
    """How far the sampled token is from the best one, plus the errors of its log-probabilities."""
    token = torch.tensor([output.tokens[slot]])
    scores = _scores(logits, request, code)
    noisy = scores + gumbel(noise_keys_at([request.seed], [code]), vocabulary.noise_ids)
    expected = [log_probabilities(scores, token)]
    if len(request.prompts) > 1:
        expected.append(log_probabilities(logits[:1] / request.temperature, token))
    # Of further branches none are returned.
    returned = [row[slot] for row in output.log_probabilities[: len(expected)]]
    error = sum(abs(float(e) - r) for e, r in zip(expected, returned, strict=True))
    return float(noisy.max() - noisy[0, token]) + error


def _wrong_engines(
    logits: Tensor, other_logits: Tensor | None, request: ImageRequest, token: Tensor, code: int
) -> dict[str, float]:
    """How far the log-probabilities of wrong engines are from the right one, by kind of error."""
    wrong: dict[str, Tensor] = {}
    if len(logits) > 1:
        wrong |= {f"branch {n} alone": row[None] / request.temperature for n, row in enumerate(logits)}
    if other_logits is not None:
        wrong["another image's prompts"] = _scores(other_logits, request, code)
    right = log_probabilities(_scores(logits, request, code), token)
    return {name: float(abs(log_probabilities(scores, token) - right)) for name, scores in wrong.items()}


def _scores(logits: Tensor, request: ImageRequest, code: int) -> Tensor:
    """Scores `[1, V]` of one of its codes, of the logits `[K, V]` of its branches."""
    branch = request.branch("", 0, 0)
    return process_logits(logits, branch.protocol, branch.weights_of(code))


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
