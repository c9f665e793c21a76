"""The decoder of all token families for vLLM: Qwen2 or Llama with a head for visual tokens alone.

Out-of-tree model classes, so that vLLM needs no change. The full head of a 0.5B checkpoint of SimpleAR is
more than half as many bytes as its layers, and only 64,000 of its 215,000 rows are ever sampled. The
tensors are those of `decoding.transformer.Decoder`, under the same names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.linear import ReplicatedLinear
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.utils import maybe_prefix

from sar_eval.tensors.wrapped_names import without_wrappers
from sar_eval.vllm_guided.logits_processor import layout_from_config
from sar_eval.vllm_guided.plugin import HEAD_INNER_KEY


class _VisualHead(nn.Module):  # beside a class of vLLM, whose methods it extends
    """What the classes share: a head in the columns of `pairing.TokenLayout`, and tensors in its order."""

    lm_head: Any
    config: Any

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.layout = layout_from_config(vllm_config)
        inner = int(getattr(vllm_config.model_config.hf_config, HEAD_INNER_KEY, 0))
        self.head_projection: Any = None
        if not hasattr(self.lm_head, "weight") or (self.layout.full_vocab and not inner):
            return
        if inner:
            self.head_projection = ReplicatedLinear(
                self.config.hidden_size, inner, prefix=maybe_prefix(prefix, "head_projection")
            )
        self.lm_head = ParallelLMHead(
            self.layout.columns,
            inner or self.config.hidden_size,
            bias=bool(inner),
            quant_config=vllm_config.quant_config,
            prefix=maybe_prefix(prefix, "lm_head"),
        )
        self.logits_processor = LogitsProcessor(self.layout.columns)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Logits of the layout's columns, by vLLM's name."""
        bias = None
        if self.head_projection is not None:
            hidden_states, bias = F.gelu(self.head_projection(hidden_states)[0]), self.lm_head.bias
        logits: Tensor | None = self.logits_processor(self.lm_head, hidden_states, bias)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load the checkpoint's tensors, with the rows of embedding and head in the layout's order."""
        base: Any = super()
        loaded: set[str] = base.load_weights(self._reordered(weights))
        return loaded

    def _reordered(self, weights: Iterable[tuple[str, Tensor]]) -> Iterable[tuple[str, Tensor]]:
        tied = self.config.tie_word_embeddings
        for stored_name, tensor in weights:
            name = without_wrappers(stored_name)
            if name == "model.embed_tokens.weight":
                table = self.layout.reorder_rows(tensor)
                yield name, table
                if tied:  # also where vLLM ties them: on the CPU the head has a packed copy of its own
                    yield "lm_head.weight", table[: self.layout.columns]
            elif name.startswith("lm_head."):
                if not tied:
                    yield name, self.layout.reorder_head(tensor)
            elif self.head_projection is not None or not name.startswith("head_projection."):
                yield name, tensor  # a rank of a pipeline without the head has no projection either


class VisualDecoder(_VisualHead, Qwen2ForCausalLM):
    """Qwen2: queries, keys and values have a bias."""


class VisualLlama(_VisualHead, LlamaForCausalLM):
    """Llama: they have none."""
