"""The loss over a codebook in chunks equals the plain one, and so do all gradients."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from sar_eval.train.model import TrainedDecoder, prepare
from sar_eval.train.training_options import Loss
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
    torch.autograd.backward(loss, retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(loss)


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


def tiny(*, tie: bool, loss: Loss) -> Any:
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
    model: Any = TrainedDecoder
    return prepare(model(config), TEXT, loss)


def batch() -> tuple[Tensor, Tensor]:
    """Ids `[3, 20]` and labels: captions of 3, 5 and 7 tokens, then 12 codes, padded on the right."""
    ids, labels = torch.zeros((3, 20), dtype=torch.int64), torch.full((3, 20), -100)
    for row, text in enumerate((3, 5, 7)):
        ids[row, :text] = torch.randint(TEXT, (text,))
        ids[row, text : text + 12] = torch.randint(TEXT, TEXT + CODES, (12,))
        labels[row, text : text + 12] = ids[row, text : text + 12]
    return ids, labels


def plain_loss(model: Any, ids: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """transformers' own forward pass with all scores; those of text ids are cut off for "visual"."""
    logits = Qwen2ForCausalLM.forward(model, ids).logits[:, :-1]
    if loss == "visual":
        logits = logits[..., TEXT:]
        labels = torch.where(labels < 0, labels, labels - TEXT)
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


@pytest.mark.parametrize("loss", ["visual", "full"])
@pytest.mark.parametrize("tie", [True, False])
def test_every_gradient_of_a_model_equals_that_of_a_plain_loop_over_the_whole_head(
    monkeypatch: pytest.MonkeyPatch, tie: bool, loss: Loss
) -> None:
    monkeypatch.setattr(visual_cross_entropy, "__defaults__", (7 * CODES,))
    model, (ids, labels) = tiny(tie=tie, loss=loss), batch()
    plain, found = plain_loss(model, ids, labels, loss), model(ids, labels)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=0)
    parameters = list(model.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(found, parameters),
        torch.autograd.grad(plain, parameters),
        rtol=1e-5,
        atol=1e-5,
    )


def test_under_autocast_products_are_bfloat16_though_hidden_states_are_float32() -> None:
    model, (ids, labels) = tiny(tie=True, loss="visual"), batch()
    exact = model(ids, labels)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(ids, labels)
    assert loss.dtype == torch.float32
    assert loss.item() != exact.item()
    torch.testing.assert_close(loss, exact, rtol=5e-3, atol=0)
