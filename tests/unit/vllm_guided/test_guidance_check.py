"""The check at the start of an engine: it takes the right tokens and no others."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch

from sar_eval.decoding.load import load_decoder
from sar_eval.decoding.loop import Vocabulary
from sar_eval.decoding.noise import gumbel, keys_at
from sar_eval.decoding.sampling import log_probabilities, policy_scores
from sar_eval.decoding.transformer import Decoder
from sar_eval.families.simplear import find_checkpoint
from sar_eval.vllm_guided.driver import Drawn, Order
from sar_eval.vllm_guided.guidance_check import ROUNDING, NotGuided, check_guidance, telling

TEXTS = ("a photo of a cat", "two red apples on a table", "a blue star above a ring", "a house")
Orders = Sequence[Order]


@cache
def _load(name: str, dtype: str) -> tuple[Decoder, Vocabulary]:
    checkpoint = find_checkpoint(name)
    decoder = load_decoder(checkpoint, "cpu", dtype)
    first = checkpoint.text_vocabulary
    return decoder, Vocabulary(decoder, range(first, first + checkpoint.codebook_size), full=False)


@cache
def _telling(name: str, guidance: float) -> list[Order]:
    """Orders of the check, as an engine would get them."""
    checkpoint = find_checkpoint(name)
    negative = tuple(checkpoint.prompt_ids(""))
    rows = [(tuple(checkpoint.prompt_ids(text)), negative) for text in TEXTS]
    orders = [Order(r[: 1 if guidance == 1 else 2], n, guidance) for n, r in enumerate(rows)]
    return telling(*_load(name, "float32"), orders)


@torch.inference_mode()
def _draw(decoder: Decoder, vocabulary: Vocabulary, order: Order) -> Drawn:
    """Two tokens as an engine would draw them."""
    image = Drawn()
    for step in range(2):
        scores = []
        for prompt in order.prompts:
            ids = [*prompt, *(token + vocabulary.first for token in image.tokens)]
            cache = decoder.new_cache(1, len(ids))
            positions = torch.arange(len(ids))[None]
            hidden = decoder.forward(torch.tensor([ids]), positions, cache, len(ids))
            scores.append(vocabulary.head(hidden[:, -1]).float())
        policy = policy_scores(torch.cat(scores), order.branch("", False, 0).protocol)
        token = (policy + gumbel(keys_at([order.seed], [step]), vocabulary.ids)).argmax(-1)
        image.tokens.append(int(token))
        image.scores[0].append(float(log_probabilities(policy, token)))
        image.scores[1].append(float(log_probabilities(scores[0] / order.temperature, token)))
    return image


@pytest.mark.parametrize("guidance", [1.0, 1.5, 6.0])
@pytest.mark.parametrize("name", ["demo:sft", "demo:pretrain"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_right_engine_is_taken(name: str, guidance: float, dtype: str) -> None:
    decoder, vocabulary = _load(name, "float32")
    orders = _telling(name, guidance)
    drawn = [_draw(*_load(name, dtype), order) for order in orders]
    found = check_guidance(decoder, vocabulary, orders, drawn, ROUNDING[dtype])
    assert found.found < (1e-4 if dtype == "float32" else found.wrong / 4)


WRONG: dict[str, Callable[[Orders], Orders]] = {
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
    orders = _telling(name, guidance)
    drawn = [_draw(decoder, vocabulary, order) for order in WRONG[wrong](orders)]
    with pytest.raises(NotGuided, match="are allowed; nothing was drawn"):
        check_guidance(decoder, vocabulary, orders, drawn, ROUNDING["bfloat16"])


def test_other_weights_and_lost_images_are_refused() -> None:
    decoder, vocabulary = _load("demo:sft", "float32")
    orders = _telling("demo:sft", 3.0)
    drawn = [_draw(*_load("demo:pretrain", "float32"), order) for order in orders]
    with pytest.raises(NotGuided):
        check_guidance(decoder, vocabulary, orders, drawn, ROUNDING["bfloat16"])
    drawn = [_draw(decoder, vocabulary, order) for order in orders]
    drawn[2].error = "vLLM refused it"
    with pytest.raises(NotGuided, match="vLLM refused it"):
        check_guidance(decoder, vocabulary, orders, drawn, 1.0)
