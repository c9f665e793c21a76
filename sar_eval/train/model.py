"""The decoder in training: its forward pass gives the loss, so that what wraps it trains it as well."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM

from sar_eval.train.training_options import Loss
from sar_eval.train.visual_loss import full_cross_entropy, visual_cross_entropy


class TrainedDecoder(Qwen2ForCausalLM):
    """A Qwen2 decoder whose forward pass is the sum of the losses of visual tokens.

    DDP, FSDP2, peft and `torch.compile` wrap `forward`; what happens outside of it they do not see. Logits
    of all tokens over the whole vocabulary, which transformers would compute, are most of the memory of a
    step: here the head is multiplied at visual tokens only, and with the visual codes' rows only.
    """

    accepts_loss_kwargs: ClassVar[bool] = False  # the trainer divides by itself
    visual_start: int = 0  # the id of code 0, by the size of the text vocabulary
    loss: Loss = "visual"

    def forward(
        self, input_ids: Tensor, labels: Tensor, position_ids: Tensor | None = None, **_: Any
    ) -> Tensor:
        """The sum of cross-entropies in nats, a float32 scalar.

        Args:
            input_ids: int64 `[B, L]`, padded on the right or packed.
            labels: as `input_ids`, -100 where nothing is to be predicted: at text and padding.
            position_ids: `[B, L]` of packed rows, starting again at each picture.
        """
        hidden = self.model(input_ids=input_ids, position_ids=position_ids, use_cache=False)[0]
        targets = labels[:, 1:]  # a token is predicted at the place before it
        places = targets != -100
        predicted, codes = hidden[:, :-1][places], targets[places]
        head, start = self.lm_head.weight, self.visual_start
        if self.loss == "full":
            return full_cross_entropy(predicted, head, codes)
        return visual_cross_entropy(predicted, head[start:], codes - start)


def prepare(model: TrainedDecoder, text_ids: int, loss: Loss) -> TrainedDecoder:
    """Set where the visual codes begin and what the softmax runs over."""
    model.visual_start, model.loss = text_ids, loss
    return model


def attention_implementation() -> str:
    """The decoder's `attn_implementation` in training: "sdpa" on a GPU, "eager" on the CPU.

    On the CPU the backward pass of SDPA takes half of a bfloat16 step at the demo's size.
    """
    return "sdpa" if torch.cuda.is_available() else "eager"
