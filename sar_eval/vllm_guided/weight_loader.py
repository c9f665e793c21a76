"""A loader of vLLM for checkpoints whose files vLLM cannot read: the family reads them.

vLLM gets a folder with nothing but a config, and each of its processes reads the weights by the
checkpoint's name.
"""

from __future__ import annotations

from typing import Any

from vllm.model_executor.model_loader.base_loader import BaseModelLoader

from sar_eval.decoding.load import read_named_weights


class FamilyLoader(BaseModelLoader):
    """Loads what `model_loader_extra_config` names, a checkpoint and its visual tokenizer."""

    def download_model(self, model_config: Any) -> None:
        """Nothing: the engine has found the checkpoint before it starts vLLM."""

    def load_weights(self, model: Any, model_config: Any) -> None:
        """Load the decoder's tensors in the dtype that vLLM computes in."""
        named: Any = self.load_config.model_loader_extra_config
        weights = read_named_weights(named["checkpoint"], named["visual_tokenizer"], model_config.dtype)
        model.load_weights(iter(weights.items()))
