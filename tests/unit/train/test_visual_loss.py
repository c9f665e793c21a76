"""The loss over a codebook in chunks equals the plain one, and so do all gradients."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from sar_eval.train.visual_loss import full_cross_entropy, visual_cross_entropy

TOKENS, HIDDEN, CODES, TEXT = 37, 16, 50, 24


def inputs(dtype: torch.dtype = torch.float32, tokens: int = TOKENS) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(tokens, HIDDEN, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(CODES, HIDDEN, generator=generator).to(dtype).requires_grad_()
    return hidden, head, torch.randint(CODES, (tokens,), generator=generator)


def gradients(loss: Tensor, *tensors: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss * 0.01, tensors))


@pytest.mark.parametrize("scores", [1, CODES * 8, CODES * 1000])
def test_equals_the_plain_loss_in_chunks_of_any_size(scores: int) -> None:
    hidden, head, targets = inputs()
    plain, loss = (
        full_cross_entropy(hidden, head, targets),
        visual_cross_entropy(hidden, head, targets, scores),
    )
    torch.testing.assert_close(loss, plain, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        gradients(loss, hidden, head), gradients(plain, hidden, head), rtol=1e-5, atol=1e-7
    )


def test_a_second_backward_pass_is_an_error_not_a_wrong_gradient() -> None:
    hidden, head, targets = inputs()
    loss = visual_cross_entropy(hidden, head, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_under_autocast_the_sum_is_float32_and_gradients_have_the_dtype_of_the_weights() -> None:
    hidden, head, targets = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        loss = visual_cross_entropy(hidden, head, targets, 8 * CODES)
    plain = full_cross_entropy(hidden.bfloat16().float(), head.bfloat16().float(), targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain, rtol=3e-3, atol=0)
    for ours, theirs in zip(gradients(loss, hidden, head), gradients(plain, hidden, head), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-3)


def test_a_frozen_head_no_tokens_and_no_gradient() -> None:
    hidden, head, targets = inputs()
    with torch.no_grad():
        assert not visual_cross_entropy(hidden, head, targets).requires_grad
    frozen = visual_cross_entropy(hidden, head.detach(), targets)
    expected = gradients(full_cross_entropy(hidden, head, targets), hidden)
    torch.testing.assert_close(gradients(frozen, hidden), expected, rtol=1e-5, atol=1e-7)
    empty = visual_cross_entropy(hidden[:0], head, targets[:0])
    assert empty.item() == 0.0
    assert all(not gradient.any() for gradient in gradients(empty, hidden, head))


def tiny(*, tie: bool) -> Any:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=TEXT + CODES,
        hidden_size=HIDDEN,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=tie,
    )
    return Qwen2ForCausalLM(config)


def visual_only(model: Any, ids: Tensor, start: int) -> Tensor:
    """The plain loop: all scores of transformers' model, those of text ids cut off."""
    logits = model(ids).logits[:, start - 1 : -1, TEXT:]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, start:].flatten() - TEXT, reduction="sum")


@pytest.mark.parametrize("tie", [True, False])
def test_every_gradient_of_a_model_equals_that_of_a_plain_loop_over_the_whole_head(tie: bool) -> None:
    model, text = tiny(tie=tie), 5
    ids = torch.cat([torch.randint(TEXT, (3, text)), torch.randint(TEXT, TEXT + CODES, (3, 12))], 1)
    plain = visual_only(model, ids, text)
    expected = torch.autograd.grad(plain, list(model.parameters()))
    hidden = model.model(ids).last_hidden_state[:, text - 1 : -1].flatten(0, 1)
    targets = ids[:, text:].flatten() - TEXT
    loss = visual_cross_entropy(hidden, model.lm_head.weight[TEXT:], targets, 7 * CODES)
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=0)
    found = torch.autograd.grad(loss, list(model.parameters()))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
