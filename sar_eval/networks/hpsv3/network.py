"""HPSv3's network: Qwen2-VL without its output layer, and a head on one token's hidden state.

The official class passes embeddings and no positions to the language model, which then numbers the tokens
plainly, 0, 1, 2, ... on all three axes of Qwen2-VL's rotary embedding: the picture does not get the
positions by row and column (M-RoPE) that Qwen2-VL was trained with and that its own forward computes.
HPSv3 was trained this way, so this is the score; with M-RoPE it is another number
(`hpsv3/model/qwen2vl_trainer.py` on transformers 4.45.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from transformers import Qwen2VLConfig, Qwen2VLModel

if TYPE_CHECKING:
    from transformers import Qwen2VLTextConfig

VISION_THETA = 10_000.0  # of the vision tower's rotary embedding; a constant in transformers
HEAD_WIDTHS = (1024, 16, 2)


class Hpsv3Network(nn.Module):
    """The network with random weights; `weights.load` loads the released ones."""

    def __init__(self, config: Qwen2VLConfig) -> None:
        super().__init__()
        model, text = Qwen2VLModel(config), cast("Qwen2VLTextConfig", config.text_config)
        self.visual, self.language_model = model.visual, model.language_model
        first, second, out = HEAD_WIDTHS
        # The names of the layers are official: the third place was dropout.
        self.head = nn.Sequential(
            nn.Linear(text.hidden_size, first),
            nn.ReLU(),
            nn.Identity(),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Linear(second, out),
        )

    def encode_pictures(self, patches: Tensor, grid: Tensor) -> Tensor:
        """Tokens `[N / 4, width]` of the patches `[N, 1176]` of pictures one after another.

        Args:
            patches: see `picture.cut_patches`.
            grid: frames, rows and columns of each picture's patches, `[B, 3]`.
        """
        # cuDNN would round the patches' float32 products to TF32.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            tokens: Tensor = self.visual(patches, grid_thw=grid).pooler_output
        return tokens

    def read(
        self,
        ids: Tensor,
        is_picture: Tensor,
        picture_tokens: Tensor,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states `[B, L, width]`.

        Args:
            ids: of tokens, `[B, L]`.
            is_picture: where a picture's tokens go, `[B, L]`.
            picture_tokens: of all pictures one after another.
            mask: 1 where a token is no padding, `[B, L]`; None if there is no padding.
            positions: on the three axes, `[3, B, L]`; plain numbers by default, which is official.
        """
        embedded = self.language_model.get_input_embeddings()(ids)
        embedded[is_picture] = picture_tokens
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device).expand(3, *ids.shape)
        output = self.language_model(
            inputs_embeds=embedded, attention_mask=mask, position_ids=positions, use_cache=False
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def judge(self, hidden: Tensor) -> Tensor:
        """Mean and raw spread, float32 `[B, 2]`, of hidden states `[B, width]` at the reward's token."""
        values: Tensor = self.head(hidden.float())
        return values

    def make_rotary(self) -> None:
        """Make the frequencies of both rotary embeddings, which a network made on "meta" lacks."""
        text = self.language_model.config.rope_parameters["rope_theta"]
        towers = ((self.language_model.rotary_emb, text), (self.visual.rotary_pos_emb, VISION_THETA))
        for rotary, theta in towers:
            width = 2 * rotary.inv_freq.numel()
            frequencies = 1.0 / (theta ** (torch.arange(0, width, 2, dtype=torch.float) / width))
            for name in [name for name, _ in rotary.named_buffers()]:
                rotary.register_buffer(name, frequencies.clone(), persistent=False)
