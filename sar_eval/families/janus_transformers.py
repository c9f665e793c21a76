"""Janus' network of the parts of transformers' `JanusForConditionalGeneration` that draw.

The parts are built one by one, without the vision tower: the class itself has one width for the output of
codes and for their vectors, and configs of DeepSeek have two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Embedding

from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.janus_tensors import ALIGNER, CODE_WIDTH, CODES
from sar_eval.families.tensor_names import HEAD_PROJECTION
from sar_eval.families.transformers_network import assign, decoder_settings

# Our names of tensors to those of each part; what begins otherwise is of another part.
LANGUAGE_MODEL = {"model.": ""}
GENERATION_ALIGNER = {f"{ALIGNER[0]}.": "fc1.", f"{ALIGNER[1]}.": "hidden_layers.0."}
GENERATION_HEAD = {f"{HEAD_PROJECTION}.": "proj_out.", "lm_head.": "vision_head."}


class JanusNetwork:
    """Language model, generation embeddings, aligner and head; see `TransformersNetwork`.

    Attributes:
        first_id: that of the first code, as the head predicts codes alone.
    """

    def __init__(self, config: DecoderConfig, tensors: Mapping[str, Tensor], where: str) -> None:
        """Build the parts.

        Args:
            config: of `janus_config`.
            tensors: by the names of `janus_shapes`, on one device.
            where: they come from, for messages.

        Raises:
            BadInput: they do not fit.
        """
        from transformers import LlamaConfig, LlamaModel
        from transformers.models.janus.configuration_janus import JanusVQVAEConfig
        from transformers.models.janus.modeling_janus import JanusVQVAEAlignerMLP, JanusVQVAEHead

        hidden, inner = config.hidden_size, config.switches.head_inner
        self.first_id = config.switches.head_start
        llama = LlamaConfig(**decoder_settings(config, {}) | {"vocab_size": self.first_id})
        aligner = JanusVQVAEConfig(embed_dim=CODE_WIDTH, projection_dim=hidden)
        head = JanusVQVAEConfig(
            num_embeddings=config.head_rows, image_token_embed_dim=hidden, projection_dim=inner
        )
        self.model = assign(LlamaModel, llama, _part(tensors, LANGUAGE_MODEL), where)
        with torch.device(tensors[CODES].device):  # computed, and in no file
            self.model.rotary_emb = type(self.model.rotary_emb)(llama)
        self.aligner = assign(JanusVQVAEAlignerMLP, aligner, _part(tensors, GENERATION_ALIGNER), where)
        self.head = assign(JanusVQVAEHead, head, _part(tensors, GENERATION_HEAD), where)
        self.code_embeddings = Embedding.from_pretrained(tensors[CODES])

    def embed(self, ids: Tensor) -> Tensor:
        """See `TransformersNetwork`."""
        text = self.model.get_input_embeddings()(ids.clamp(max=self.first_id - 1))
        codes = self.aligner(self.code_embeddings((ids - self.first_id).clamp(min=0)))
        return torch.where((ids < self.first_id)[..., None], text, codes)

    def logits(self, inputs: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """See `TransformersNetwork`; of codes alone."""
        output = self.model(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        return self.head(output.last_hidden_state[:, -1]), output.past_key_values


def _part(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors whose names begin with one of `names`, by their names in the part."""
    return {
        name.replace(ours, theirs, 1): tensor
        for name, tensor in tensors.items()
        for ours, theirs in names.items()
        if name.startswith(ours)
    }
