"""Emu3-Gen's network (Wang et al., arXiv 2409.18869): a Llama with one vocabulary for text and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.network_tensors import MatchedNetwork, Naming, match_network
from sar_eval.families.tensor_names import Shape, decoder_shapes

if TYPE_CHECKING:
    from torch import Tensor

# What configs of transformers leave out (Emu3TextConfig); BAAI's say everything.
DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 184622,
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 9216,
}
ORIGINAL = Naming()  # as Llama's
# What transformers saves and BAAI has published; its own modules have had the other names since 4.52.
TRANSFORMERS = Naming(
    ((r"model\.", "text_model.model."), (r"lm_head\.", "text_model.lm_head.")), unused=r"vqmodel\..*"
)
TRANSFORMERS_MODULES = Naming(((r"model\.", "model.text_model."),), unused=r"model\.vqmodel\..*")
NAMINGS = (ORIGINAL, TRANSFORMERS, TRANSFORMERS_MODULES)


def emu3_config(config: Mapping[str, Any]) -> DecoderConfig:
    """The network's settings of a `config.json`, of BAAI or of transformers.

    Raises:
        BadInput: a value is no number or out of range, or not supported.
    """
    text = config.get("text_config")
    return DecoderConfig.from_llama(text if isinstance(text, Mapping) else config, DEFAULTS)


def match_emu3(shapes: Mapping[str, Shape], config: DecoderConfig, where: str) -> MatchedNetwork:
    """Find the network among tensors with BAAI's or transformers' names.

    Args:
        shapes: of the tensors in the files.
        config: of `emu3_config`.
        where: the files, for messages.

    Raises:
        BadInput: a tensor is missing, empty, foreign or misshapen.
    """
    stored = match_network(shapes, dict(decoder_shapes(config)), NAMINGS, where)
    return MatchedNetwork(config, stored, _unchanged, where)


def _unchanged(_: DecoderConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors
