"""ImageReward's network: a picture's patches, a prompt that attends to them, and a reward.

The vision transformer and the text half are transformers' BLIP with ImageReward's numbers, several of which
are not transformers' defaults: LayerNorm's eps of the ViT is timm's 1e-6, and the text half is built as a
decoder (else it has no cross-attention) but called as an encoder (else it is causal). The five linear
layers of the head have nothing in between (image-reward 1.5, `ImageReward.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from sar_eval.networks.image_reward.shape import Shape

# Mean and standard deviation of the rewards on the authors' validation set; they standardise the output.
REWARD_MEAN, REWARD_STD = 0.16717362830052426, 1.0333394966054072
VISION_EPS, TEXT_EPS = 1e-6, 1e-12


class ImageRewardNetwork(nn.Module):
    """The network with random weights; `weights.load` loads the released ones."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.vision = BlipVisionModel(_vision_config(shape))
        self.text = BlipTextModel(_text_config(shape), add_pooling_layer=False)
        # The indices are the official names; those between were dropout.
        layers = {str(index): nn.Linear(inputs, out) for index, (out, inputs) in shape.head.items()}
        self.head = nn.ModuleDict(layers)

    def encode_pictures(self, pixels: Tensor) -> Tensor:
        """All tokens `[B, 1 + patches, width]` of normalised pictures `[B, 3, side, side]`."""
        # cuDNN would round the patches' float32 products to TF32.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            tokens: Tensor = self.vision(pixel_values=pixels).last_hidden_state
        return tokens

    def encode_prompts(self, ids: Tensor, mask: Tensor, picture_tokens: Tensor) -> Tensor:
        """The first token's hidden state `[B, text width]` of prompts that attend to their pictures.

        Args:
            ids: of tokens, `[B, L]`.
            mask: 1 where a token is no padding, `[B, L]`.
            picture_tokens: `[B, 1 + patches, width]`.
        """
        hidden = self.text(
            input_ids=ids, attention_mask=mask, encoder_hidden_states=picture_tokens, is_decoder=False
        )
        first: Tensor = hidden.last_hidden_state[:, 0]
        return first

    def reward(self, first: Tensor) -> Tensor:
        """Standardised rewards `[B]` of hidden states `[B, text width]`."""
        for layer in self.head.values():
            first = layer(first)
        return (first.float().squeeze(-1) - REWARD_MEAN) / REWARD_STD


def _vision_config(shape: Shape) -> BlipVisionConfig:
    return BlipVisionConfig(
        hidden_size=shape.vision_width,
        intermediate_size=shape.vision_inner,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_heads,
        image_size=shape.side,
        patch_size=shape.patch,
        layer_norm_eps=VISION_EPS,
    )


def _text_config(shape: Shape) -> BlipTextConfig:
    return BlipTextConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.text_width,
        encoder_hidden_size=shape.vision_width,
        intermediate_size=shape.text_inner,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=shape.text_heads,
        max_position_embeddings=shape.positions,
        layer_norm_eps=TEXT_EPS,
        is_decoder=True,
        bos_token_id=None,  # of BLIP's captions
        eos_token_id=None,
    )
