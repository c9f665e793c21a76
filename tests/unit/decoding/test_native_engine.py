"""The engine native: parity with transformers, and tokens that do not depend on the batch."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import MinPLogitsWarper, Qwen2ForCausalLM

from sar_eval.decoding import sampling
from sar_eval.decoding.guidance import apply_guidance
from sar_eval.decoding.noise import gumbel, gumbel_from_bits, noise_keys
from sar_eval.decoding.sampling import (
    apply_min_p,
    apply_top_k_top_p,
    process_logits,
    sample,
    sample_and_score,
)
from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput
from sar_eval.families.simplear import find_checkpoint
from sar_eval.types import Draw, DrawProtocol, Prompt, make_draw

PROTOCOL = DrawProtocol("test", 32, guidance=2.0)
SAMPLERS = (sample, sample_and_score)
TEXTS = ["a photo of a red star", "a ring", "a sketch of two blue circles and a green heart", "a cross"]


def _draws(number: int = 4) -> list[Draw]:
    return [make_draw(Prompt(f"p{i}", TEXTS[i % 4]), i, run_seed=7) for i in range(number)]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_tokens_do_not_depend_on_batch_or_order(tiny_checkpoint: Path, batch_size: int) -> None:
    with NativeEngine(str(tiny_checkpoint), PROTOCOL, batch_size=16) as engine:
        reference = {g.key: g.tokens for g in engine.generate(_draws(8))}
    with NativeEngine(str(tiny_checkpoint), PROTOCOL, batch_size=batch_size) as engine:
        again = {g.key: g.tokens for g in engine.generate(_draws(8)[::-1])}
    assert again == reference
    assert len(set(reference.values())) == 8


def test_greedy_tokens_equal_those_of_transformers(tiny_checkpoint: Path) -> None:
    checkpoint = find_checkpoint(str(tiny_checkpoint))
    protocol = DrawProtocol("greedy", 32, temperature=0)
    with NativeEngine(str(tiny_checkpoint), protocol) as engine:
        ours = engine.decode_tokens(_draws(2)).codes.tolist()
    model = Qwen2ForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    for draw, codes in zip(_draws(2), ours, strict=True):
        ids = checkpoint.prompt_ids(draw.prompt.text)
        for code in codes:
            with torch.inference_mode():
                logits = model(torch.tensor([ids])).logits[0, -1, checkpoint.text_vocab_size :]
            assert int(logits.argmax()) == code
            ids.append(code + checkpoint.text_vocab_size)


def test_images_are_the_decoded_tokens(tiny_checkpoint: Path) -> None:
    with NativeEngine(str(tiny_checkpoint), PROTOCOL) as engine:
        [generation] = engine.generate(_draws(1))
        pixels = engine.visual_tokenizer.decode(torch.tensor([generation.tokens]), 4).pixels[0].numpy()
    assert generation.image is not None
    with Image.open(io.BytesIO(generation.image)) as image:
        assert image.size == (32, 32)
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_a_resolution_that_is_no_multiple_of_the_token_size_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(BadInput, match="no multiple of 8"):
        NativeEngine(str(tiny_checkpoint), DrawProtocol("test", 30))


def test_noise_is_a_pure_function_and_standard_gumbel() -> None:
    device = torch.device("cpu")
    keys = noise_keys([1, 2, 2**62 + 5], 50, device)
    ids = torch.arange(4000, dtype=torch.int32)
    noise = torch.stack([gumbel(step, ids) for step in keys])
    torch.testing.assert_close(gumbel(keys[7, 1:2], ids[100:200]), noise[7, 1:2, 100:200], rtol=0, atol=0)
    torch.testing.assert_close(noise_keys([2], 50, device)[:, 0], keys[:, 1], rtol=0, atol=0)
    # Mean and variance of the standard Gumbel distribution: Euler's constant and pi^2 / 6.
    assert abs(noise.mean().item() - 0.5772) < 0.01
    assert abs(noise.var().item() - 1.6449) < 0.02
    flat = noise.flatten(1)
    assert np.abs(np.corrcoef(flat[:10].numpy()) - np.eye(10)).max() < 0.05


def test_noise_is_finite_for_every_hash() -> None:
    extremes = torch.tensor([0, -1, 2**31 - 1, -(2**31), 511, 512], dtype=torch.int32)
    assert gumbel_from_bits(extremes).isfinite().all()


@pytest.mark.parametrize(
    ("threads", "vocab_size"), [(2, 2561), pytest.param(2, 40_001, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"guidance": 1.0},
        {"temperature": 0.0},
        {"top_k": 40, "temperature": 0.7},
        {"top_p": 0.6},
        {"top_k": 300, "top_p": 0.9, "guidance": 1.0},
        {"min_p": 0.1},
    ],
    ids=str,
)
def test_a_batch_samples_what_each_draw_samples_alone(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, float], threads: int, vocab_size: int
) -> None:
    """Bit for bit on the CPU: scores after top-k and top-p, and so tokens; in chunks of any size."""
    protocol = dataclasses.replace(PROTOCOL, **changes)
    branches, number = 1 if protocol.guidance == 1 else 2, 7 if vocab_size > 9999 else 13  # in parallel
    logits = 3 * torch.randn(branches * number, vocab_size, generator=torch.Generator().manual_seed(1))
    logits[2, 5] = torch.nan
    logits[:, 100:200] = logits[:, :1]  # ties, which sorting and the maximum must break alike
    ids = torch.arange(vocab_size, dtype=torch.int32)
    keys = noise_keys(list(range(number)), 1, torch.device("cpu"))[0]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        alone = [sample(logits[n::number], keys[n : n + 1], ids, protocol) for n in range(number)]
        scores = torch.cat([process_logits(logits[n::number], protocol) for n in range(number)])
        assert torch.equal(process_logits(logits, protocol).nan_to_num(7), scores.nan_to_num(7))
        for chunk in (1, 3, number):
            monkeypatch.setattr(sampling, "CHUNK_SCORES", chunk * vocab_size)
            for indices, finite, *_ in (f(logits, keys, ids, protocol) for f in SAMPLERS):
                assert indices.tolist() == [int(each) for each, _ in alone]
                assert (
                    finite.tolist() == [bool(each) for _, each in alone] == [n != 2 for n in range(number)]
                )
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_gumbel_sampling_has_the_given_distribution() -> None:
    target = torch.tensor([0.5, 0.25, 0.15, 0.1])
    keys = noise_keys(list(range(20_000)), 1, torch.device("cpu"))[0]
    ids = torch.arange(4, dtype=torch.int32)
    tokens, finite = sample(target.log().expand(20_000, 4), keys, ids, DrawProtocol("test", 32))
    assert finite.all()
    frequencies = torch.bincount(tokens, minlength=4) / 20_000
    assert (frequencies - target).abs().max() < 0.015


def test_guidance_is_the_published_formula() -> None:
    logits = torch.randn(4, 9)
    prompted, negative = logits[:2].log_softmax(-1), logits[2:].log_softmax(-1)
    for guidance in (0.5, 3.0, 6.0):
        published = negative + guidance * (prompted - negative)
        scores = apply_guidance(logits, [guidance])
        torch.testing.assert_close(scores.log_softmax(-1), published.log_softmax(-1))


def test_one_weight_for_all_tokens_is_lerp_bit_for_bit() -> None:
    logits = torch.randn(6, 301).to(torch.bfloat16)
    expected = torch.lerp(logits[3:].float(), logits[:3].float(), 6.0)
    assert torch.equal(apply_guidance(logits, [6.0]), expected)
    assert torch.equal(process_logits(logits, dataclasses.replace(PROTOCOL, guidance=6.0)), expected)
    assert torch.equal(apply_guidance(logits, []), logits.float())


def test_three_branches_are_their_weighted_sum() -> None:
    both, image, none = torch.randn(3, 2, 9)
    expected = none + 3.0 * (both - none) + 1.2 * (image - none)
    torch.testing.assert_close(apply_guidance(torch.cat([both, image, none]), [3.0, 1.2]), expected)


@pytest.mark.parametrize("branches", [1, 2, 3])
def test_weights_of_each_draw_do_not_depend_on_the_batch(
    monkeypatch: pytest.MonkeyPatch, branches: int
) -> None:
    logits, weights = 3 * torch.randn(branches, 5, 40), 1 + 2 * torch.rand(5, branches - 1)
    ids, keys = torch.arange(40, dtype=torch.int32), noise_keys(list(range(5)), 1, torch.device("cpu"))[0]
    alone = [
        sample(logits[:, n], keys[n : n + 1], ids, PROTOCOL, weights[n : n + 1])[0].item() for n in range(5)
    ]
    for chunk in (1, 2, 5):
        monkeypatch.setattr(sampling, "CHUNK_SCORES", chunk * 40)
        for sampler in SAMPLERS:
            assert sampler(logits.flatten(0, 1), keys, ids, PROTOCOL, weights)[0].tolist() == alone


@pytest.mark.parametrize("min_p", [0.0, 0.01, 0.3, 1.0])
def test_min_p_is_that_of_transformers(min_p: float) -> None:
    scores = 2 * torch.randn(40, 300, generator=torch.Generator().manual_seed(1))
    expected = MinPLogitsWarper(min_p)(None, scores) if min_p else scores
    assert torch.equal(apply_min_p(scores, min_p), expected)
    narrowed = apply_top_k_top_p(scores, 50, 0.9)
    expected = MinPLogitsWarper(min_p)(None, narrowed) if min_p else narrowed
    protocol = dataclasses.replace(PROTOCOL, guidance=1.0, top_k=50, top_p=0.9, min_p=min_p)
    assert torch.equal(process_logits(scores, protocol), expected)


def test_top_k_and_top_p_keep_the_most_likely_tokens() -> None:
    scores = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert apply_top_k_top_p(scores, 2, 1.0).isfinite().tolist() == [[True, True, False, False]]
    assert apply_top_k_top_p(scores, 0, 0.7).isfinite().tolist() == [[True, True, False, False]]
    assert apply_top_k_top_p(scores, 0, 0.1).isfinite().tolist() == [[True, False, False, False]]
    assert apply_top_k_top_p(scores, 0, 1.0).isfinite().all()
