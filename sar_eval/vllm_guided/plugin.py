"""vLLM plugin that registers our model classes and our loader; vLLM calls it in each of its processes."""

from __future__ import annotations

ARCHITECTURE = "SarEvalVisualDecoder"  # of a Qwen2
LLAMA_ARCHITECTURE = "SarEvalVisualLlama"
LOAD_FORMAT = "sar_eval"  # of weights that our families read
CONFIG_KEY = "sar_eval"  # our key in a request's `extra_args`, and in the model's config for the layout
HEAD_INNER_KEY = "sar_eval_head_inner"  # in the model's config, inner width of a head that is an MLP


def register() -> None:
    """Register them; entry point of the group `vllm.general_plugins`."""
    from vllm import ModelRegistry
    from vllm.model_executor.model_loader import register_model_loader

    from sar_eval.vllm_guided.weight_loader import FamilyLoader

    ModelRegistry.register_model(ARCHITECTURE, "sar_eval.vllm_guided.model:VisualDecoder")
    ModelRegistry.register_model(LLAMA_ARCHITECTURE, "sar_eval.vllm_guided.model:VisualLlama")
    register_model_loader(LOAD_FORMAT)(FamilyLoader)
