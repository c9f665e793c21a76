"""vLLM plugin that registers our model class; vLLM calls it in each of its processes."""

from __future__ import annotations

ARCHITECTURE = "SarEvalVisualDecoder"


def register() -> None:
    """Register the model class; entry point of the group `vllm.general_plugins`."""
    from vllm import ModelRegistry

    ModelRegistry.register_model(ARCHITECTURE, "sar_eval.vllm_guided.model:VisualDecoder")
