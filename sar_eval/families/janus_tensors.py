"""Janus' network (Chen et al., arXiv 2501.17811): a Llama with an input and an output of its own for codes.

A code enters as `gen_aligner(gen_embed(code))`. That depends on the code alone, so it is computed once for
all codes, and their vectors follow those of the text ids in one embedding. The output is an MLP,
`gen_head`, in place of the language model's head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.families.decoder_config import DecoderConfig, Switches, whole_number
from sar_eval.families.network_tensors import MatchedNetwork, Naming, match_network
from sar_eval.families.tensor_names import EMBEDDING, Shape, decoder_shapes

if TYPE_CHECKING:
    from torch import Tensor

CODE_WIDTH = 8  # numbers in a row of VQ-16's codebook
CODES, ALIGNER = "gen_embed.weight", ("gen_aligner.layers.0", "gen_aligner.layers.2")
ORIGINAL = Naming(
    (
        (r"head_projection\.", "gen_head.output_mlp_projector."),
        (r"lm_head\.", "gen_head.vision_head."),
        (r"model\.", "language_model.model."),
    ),
    unused=r"(vision_model|aligner|gen_vision_model)\..*|language_model\.lm_head\.weight",
)
TRANSFORMERS = Naming(
    (
        (r"head_projection\.", "model.generation_head.proj_out."),
        (r"lm_head\.", "model.generation_head.vision_head."),
        (r"model\.", "model.language_model."),
        (r"gen_embed\.", "model.generation_embeddings."),
        (r"gen_aligner\.layers\.0\.", "model.generation_aligner.fc1."),
        (r"gen_aligner\.layers\.2\.", "model.generation_aligner.hidden_layers.0."),
    ),
    unused=r"model\.(vision_model|aligner|vqmodel)\..*|lm_head\.weight",
)
# What configs of transformers leave out (JanusVQVAEConfig).
VQ_DEFAULTS: Mapping[str, Any] = {"num_embeddings": 16384, "projection_dim": 2048}


def janus_config(config: Mapping[str, Any]) -> DecoderConfig:
    """The network's settings of a `config.json`, of DeepSeek or of transformers.

    The vocabulary is the text ids followed by the codes.

    Raises:
        BadInput: a value is no number or out of range, or not supported.
    """
    original = "language_config" in config
    llama = DecoderConfig.from_llama(_table(config, "language_config" if original else "text_config"), {})
    if original:
        head = _table(_table(config, "gen_head_config"), "params")
        codes, inner = (whole_number(head, key) for key in ("image_token_size", "image_token_embed"))
    else:
        vq = {**VQ_DEFAULTS, **_table(config, "vq_config")}
        codes, inner = (whole_number(vq, key) for key in ("num_embeddings", "projection_dim"))
    return replace(
        llama,
        vocab_size=llama.vocab_size + codes,
        tie_word_embeddings=False,
        switches=Switches(qkv_bias=False, head_start=llama.vocab_size, head_inner=inner),
    )


def _table(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    if not isinstance(value := config.get(key), Mapping):
        raise BadInput(f"{key} is {shorten(value)}: a table is needed")
    return value


def match_janus(shapes: Mapping[str, Shape], config: DecoderConfig, where: str) -> MatchedNetwork:
    """Find the network among tensors with DeepSeek's or transformers' names.

    Args:
        shapes: of the tensors in the files; those for looking at pictures may be there or not.
        config: of `janus_config`.
        where: the files, for messages.

    Raises:
        BadInput: a tensor is missing, empty, foreign or misshapen.
    """
    stored = match_network(shapes, janus_shapes(config), (ORIGINAL, TRANSFORMERS), where)
    return MatchedNetwork(config, stored, _with_codes, where)


def janus_shapes(config: DecoderConfig) -> dict[str, Shape]:
    """Name and shape of every tensor of the network as files have it: codes apart from text.

    Names are the decoder's own and DeepSeek's for the input of codes.
    """
    hidden = config.hidden_size
    expected = {
        **dict(decoder_shapes(config)),
        EMBEDDING: (config.switches.head_start, hidden),
        CODES: (config.head_rows, CODE_WIDTH),
    }
    for layer, width in zip(ALIGNER, (CODE_WIDTH, hidden), strict=True):
        expected |= {f"{layer}.weight": (hidden, width), f"{layer}.bias": (hidden,)}
    return expected


def _with_codes(config: DecoderConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The decoder's tensors: the codes' vectors, folded in float32, come behind those of the text."""
    import torch.nn.functional as F
    from torch import cat

    inner, outer = ((tensors[f"{n}.weight"].float(), tensors[f"{n}.bias"].float()) for n in ALIGNER)
    codes = F.linear(F.gelu(F.linear(tensors[CODES].float(), *inner)), *outer)
    text = tensors[EMBEDDING]
    weights = {name: tensors[name] for name, _ in decoder_shapes(config)}
    return weights | {EMBEDDING: cat([text, codes.to(text.dtype)])}
