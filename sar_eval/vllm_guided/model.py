"""SimpleAR's decoder for vLLM: Qwen2 with a head for visual tokens alone.

An out-of-tree model class, so that vLLM needs no change. The full head of a 0.5B checkpoint is more than
half as many bytes as its layers, and only 64,000 of its 215,000 rows are ever sampled.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from vllm.config import VllmConfig
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.utils import maybe_prefix

from sar_eval.tensors.wrapped_names import without_wrappers
from sar_eval.vllm_guided.logits_processor import layout_from_config


class VisualDecoder(Qwen2ForCausalLM):
    """Qwen2 whose token ids are numbered by `pairing.TokenLayout`."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.layout = layout_from_config(vllm_config)
        if not self.layout.full_vocab and hasattr(self.lm_head, "weight"):
            self.lm_head: Any = ParallelLMHead(
                self.layout.columns,
                self.config.hidden_size,
                quant_config=vllm_config.quant_config,
                prefix=maybe_prefix(prefix, "lm_head"),
            )
            self.logits_processor = LogitsProcessor(self.layout.columns)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load the checkpoint's tensors, with the rows of embedding and head in the layout's order."""
        loaded: set[str] = super().load_weights(self._reordered(weights))
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
            elif name != "lm_head.weight":
                yield name, tensor
            elif not tied:
                yield name, self.layout.reorder_rows(tensor)[: self.layout.columns]
