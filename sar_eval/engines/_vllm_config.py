"""What vLLM is told of a checkpoint that it cannot read: a config of its own, and no files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_eval.errors import BadInput
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.family import TokenCheckpoint
from sar_eval.vllm_guided.plugin import ARCHITECTURE, CONFIG_KEY, HEAD_INNER_KEY, LLAMA_ARCHITECTURE

if TYPE_CHECKING:
    from sar_eval.vllm_guided.pairing import TokenLayout


def refuse_checkpoint(checkpoint: TokenCheckpoint) -> None:
    """Refuse a checkpoint whose network or numbering our model classes for vLLM have not.

    Raises:
        BadInput: naming what it is.
    """
    switches = checkpoint.decoder_config.switches
    if switches.grid is not None:
        why = "its rotary angles are of places in the picture, and vLLM computes angles of slots"
    elif switches.qk_norm or switches.sandwich_norms:
        why = "its layers have norms that those of Qwen2 and Llama do not have"
    elif checkpoint.visual_ids.start != checkpoint.text_vocab_size:
        why = "its visual ids do not follow its text ids"
    else:
        return
    raise BadInput(
        f"engine 'vllm' does not draw with {checkpoint.name}, of the family {checkpoint.family!r}: {why}; "
        "use --engine native"
    )


def config_json(config: DecoderConfig, layout: TokenLayout) -> dict[str, Any]:
    """The contents of a `config.json` of a Qwen2 or a Llama, for our model classes.

    Args:
        config: of the decoder.
        layout: the numbering of ids; it and what the decoder's head is are written there, too.
    """
    settings = asdict(config)
    switches = settings.pop("switches")
    llama = not switches["qkv_bias"]
    return {
        **settings,
        "model_type": "llama" if llama else "qwen2",
        "architectures": [LLAMA_ARCHITECTURE if llama else ARCHITECTURE],
        "vocab_size": layout.vocab_size,
        "rope_parameters": {"rope_type": "default", "rope_theta": settings.pop("rope_theta")},
        CONFIG_KEY: asdict(layout),
        HEAD_INNER_KEY: switches["head_inner"],
    }


def write_config(folder: Path, config: DecoderConfig, layout: TokenLayout) -> None:
    """Write `config.json` into a folder, which vLLM takes for the model's."""
    (folder / "config.json").write_text(json.dumps(config_json(config, layout)))
