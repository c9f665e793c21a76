"""What vLLM calls in each of its processes when it starts, so that it knows our model class."""

from __future__ import annotations

ARCHITECTURE = "SarEvalVisualDecoder"


def register() -> None:
    """Tell vLLM where the class is; entry point of the group `vllm.general_plugins`."""
    from vllm import ModelRegistry

    ModelRegistry.register_model(ARCHITECTURE, "sar_eval.vllm_guided.model:VisualDecoder")
