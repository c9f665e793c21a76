"""The self-check of an engine accepts the right tokens and refuses wrong ones."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch

from sar_eval.decoding.load import load_decoder
from sar_eval.decoding.loop import Vocabulary
from sar_eval.decoding.noise import gumbel, noise_keys_at
from sar_eval.decoding.sampling import log_probabilities, process_logits
from sar_eval.decoding.transformer import Decoder
from sar_eval.families.simplear import find_checkpoint
from sar_eval.vllm_guided.driver import ImageOutput, ImageRequest
from sar_eval.vllm_guided.guidance_check import (
    ROUNDING,
    GuidanceCheckFailed,
    check_guidance,
    check_requests,
)

TEXTS = ("a photo of a cat", "two red apples on a table", "a blue star above a ring", "a house")
Requests = Sequence[ImageRequest]


@cache
def _load(name: str, dtype: str) -> tuple[Decoder, Vocabulary]:
    checkpoint = find_checkpoint(name)
    decoder = load_decoder(checkpoint, "cpu", dtype)
    return decoder, Vocabulary(decoder, checkpoint.visual_ids, full_vocab=False)


@cache
def _check_requests(name: str, guidance: float) -> list[ImageRequest]:
    """The requests of the check, as an engine would get them."""
    checkpoint = find_checkpoint(name)
    negative = tuple(checkpoint.prompt_ids(""))
    prompts = [(tuple(checkpoint.prompt_ids(text)), negative) for text in TEXTS]
    requests = [ImageRequest(p[: 1 if guidance == 1 else 2], n, guidance) for n, p in enumerate(prompts)]
    return check_requests(*_load(name, "float32"), requests)


def _append(output: ImageOutput, sampled_from: float, conditional: float) -> None:
    for row, value in zip(output.log_probabilities, (sampled_from, conditional), strict=True):
        row.append(value)


@torch.inference_mode()
def _generate(decoder: Decoder, vocabulary: Vocabulary, request: ImageRequest) -> ImageOutput:
    """Two codes as an engine would sample them, and what is forced between them."""
    output, branch, code = ImageOutput(), request.branch("", 0, 0), 0
    while code < 2:
        if (forced := request.forced.get(len(output.tokens))) is not None:
            output.tokens.append(forced - vocabulary.first_id)
            _append(output, 0.0, 0.0)
            continue
        logits = []
        for prompt in request.prompts:
            ids = [*prompt, *(token + vocabulary.first_id for token in output.tokens)]
            cache = decoder.new_cache(1, len(ids))
            positions = torch.arange(len(ids))[None]
            hidden = decoder.forward(torch.tensor([ids]), positions, cache, len(ids))
            logits.append(vocabulary.head(hidden[:, -1]).float())
        scores = process_logits(torch.cat(logits), branch.protocol, branch.weights_of(code))
        noise = gumbel(noise_keys_at([request.seed], [code]), vocabulary.noise_ids)
        token = (scores + noise).argmax(-1)
        output.tokens.append(int(token))
        conditional = log_probabilities(logits[0] / request.temperature, token)
        _append(output, float(log_probabilities(scores, token)), float(conditional))
        code += 1
    return output


@pytest.mark.parametrize("guidance", [1.0, 1.5, 6.0])
@pytest.mark.parametrize("name", ["demo:sft", "demo:pretrain"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_right_engine_is_accepted(name: str, guidance: float, dtype: str) -> None:
    decoder, vocabulary = _load(name, "float32")
    requests = _check_requests(name, guidance)
    outputs = [_generate(*_load(name, dtype), request) for request in requests]
    deviation = check_guidance(decoder, vocabulary, requests, outputs, ROUNDING[dtype])
    assert deviation.measured < (1e-4 if dtype == "float32" else deviation.wrong / 4)


WRONG: dict[str, Callable[[Requests], Requests]] = {
    "no guidance": lambda o: [replace(x, guidance=1.0, prompts=x.prompts[:1]) for x in o],
    "prompt ignored": lambda o: [replace(x, prompts=(x.prompts[1],) * 2) for x in o],
    "negative prompt ignored": lambda o: [replace(x, prompts=(x.prompts[0],) * 2) for x in o],
    "branches swapped": lambda o: [replace(x, prompts=x.prompts[::-1]) for x in o],
    "half the guidance": lambda o: [replace(x, guidance=x.guidance / 2) for x in o],
    "another image's prompt": lambda o: [
        replace(x, prompts=(y.prompts[0], x.prompts[1])) for x, y in zip(o, [*o[1:], o[0]], strict=True)
    ],
    "another seed": lambda o: [replace(x, seed=x.seed + 1) for x in o],
}


@pytest.mark.parametrize("guidance", [1.5, 6.0])
@pytest.mark.parametrize("name", ["demo:sft", "demo:pretrain"])
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_engines_are_refused_at_half_precision_too(name: str, guidance: float, wrong: str) -> None:
    decoder, vocabulary = _load(name, "float32")
    requests = _check_requests(name, guidance)
    outputs = [_generate(decoder, vocabulary, request) for request in WRONG[wrong](requests)]
    with pytest.raises(GuidanceCheckFailed, match="are allowed; nothing was drawn"):
        check_guidance(decoder, vocabulary, requests, outputs, ROUNDING["bfloat16"])


def test_other_weights_and_failed_images_are_refused() -> None:
    decoder, vocabulary = _load("demo:sft", "float32")
    requests = _check_requests("demo:sft", 3.0)
    outputs = [_generate(*_load("demo:pretrain", "float32"), request) for request in requests]
    with pytest.raises(GuidanceCheckFailed):
        check_guidance(decoder, vocabulary, requests, outputs, ROUNDING["bfloat16"])
    outputs = [_generate(decoder, vocabulary, request) for request in requests]
    outputs[2].error = "vLLM refused it"
    with pytest.raises(GuidanceCheckFailed, match="vLLM refused it"):
        check_guidance(decoder, vocabulary, requests, outputs, 1.0)


PLANNED: dict[str, Callable[[Requests], Requests]] = {
    "the third branch ignored": lambda o: [replace(x, prompts=(*x.prompts[:2], x.prompts[1])) for x in o],
    "weights swapped": lambda o: [replace(x, weights=tuple(w[::-1] for w in x.weights)) for x in o],
    "nothing forced": lambda o: [replace(x, forced={}) for x in o],
    "another token forced": lambda o: [replace(x, forced={1: 7}) for x in o],
}


def test_a_plan_with_three_branches_and_forced_tokens_is_checked() -> None:
    decoder, vocabulary = _load("demo:sft", "float32")
    requests = [
        replace(
            r, prompts=(*r.prompts, r.prompts[0][-2:]), weights=((3.0, -1.0), (2.0, 1.0)), forced={1: 5}
        )
        for r in _check_requests("demo:sft", 3.0)
    ]
    requests = check_requests(decoder, vocabulary, requests)
    assert {request.weights[0] for request in requests} == {(3.0, -1.0), (6.0, -2.0)}
    outputs = [_generate(decoder, vocabulary, request) for request in requests]
    assert check_guidance(decoder, vocabulary, requests, outputs, 0.001).measured < 1e-4
    for wrong in PLANNED.values():
        outputs = [_generate(decoder, vocabulary, request) for request in wrong(requests)]
        with pytest.raises(GuidanceCheckFailed, match="nothing was drawn"):
            check_guidance(decoder, vocabulary, requests, outputs, 0.001)
