"""A family's network as transformers itself computes it, for the reference engine `hf`.

A family whose network transformers has a class for says so by `load_transformers` of its checkpoints. What
is computed here shares nothing with `decoding` but the checkpoint's tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.tensor_names import EMBEDDING, HEAD

if TYPE_CHECKING:
    from sar_eval.families.simplear import Checkpoint

ROPE = ("rope_parameters", "rope_theta")  # the newer and the older key of transformers


class TransformersNetwork(Protocol):
    """A network on one device, with the weights of a checkpoint."""

    @property
    def first_id(self) -> int:
        """Id of the token that the first column of the logits belongs to."""
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings `[R, T, hidden]` of ids int64 `[R, T]` of the checkpoint, of text and of codes."""
        ...

    def logits(self, inputs: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits `[R, V]` of the token after the last one, and the cache with the keys of these.

        Args:
            inputs: embeddings `[R, T, hidden]`.
            mask: int64 `[R, S]`, 0 for padding, of all tokens, those in the cache included.
            positions: int64 `[R, T]`.
            cache: of the tokens before; None for none.
        """
        ...


@runtime_checkable
class LoadsTransformers(Protocol):
    """A checkpoint of a family whose network transformers has a class for."""

    def load_transformers(self, device: str, dtype: torch.dtype) -> TransformersNetwork:
        """Load the checkpoint's weights into transformers' classes; no remote code.

        Raises:
            BadInput: a file is unreadable, or the weights do not fit `config.json`.
        """
        ...


class CausalNetwork:
    """A language model of transformers with one embedding and one head for text and codes."""

    first_id = 0

    def __init__(self, model: Any) -> None:
        """Use a model of a class `...ForCausalLM`, in evaluation mode."""
        self.model = model

    def embed(self, ids: Tensor) -> Tensor:
        """See `TransformersNetwork`."""
        embeddings: Tensor = self.model.get_input_embeddings()(ids)
        return embeddings

    def logits(self, inputs: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """See `TransformersNetwork`."""
        output = self.model(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1], output.past_key_values


def load_qwen2(checkpoint: Checkpoint, device: str, dtype: torch.dtype) -> CausalNetwork:
    """transformers' `Qwen2ForCausalLM` with the weights of a checkpoint of SimpleAR.

    Raises:
        BadInput: the weights do not fit `config.json`.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(**decoder_settings(checkpoint.decoder_config, checkpoint.config))
    weights = checkpoint.read_weights(device, dtype)
    return CausalNetwork(assemble(Qwen2ForCausalLM, config, weights, device, str(checkpoint.folder)))


def assemble(kind: Any, config: Any, weights: dict[str, Tensor], device: str, where: str) -> Any:
    """transformers' language model of given weights, without making random ones first.

    Args:
        kind: `Qwen2ForCausalLM` or another class that is built like it.
        config: its config.
        weights: by their names in it, on `device`; a tied head may be left out.
        device: of the weights.
        where: they come from, for messages.

    Returns:
        The model in evaluation mode.

    Raises:
        BadInput: the weights do not fit `config`.
    """
    if config.tie_word_embeddings:
        weights = {**weights, HEAD: weights[EMBEDDING]}
    model = assign(kind, config, weights, where)
    with torch.device(device):  # computed, not stored in the weights, so not on the meta device
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model


def assign(kind: Any, config: Any, weights: Mapping[str, Tensor], where: str) -> Any:
    """A module of transformers whose parameters are these tensors, in evaluation mode.

    Raises:
        BadInput: the weights do not fit `config`.
    """
    with torch.device("meta"):
        module = kind(config)
    try:
        incompatible = module.load_state_dict(weights, strict=False, assign=True)
    except RuntimeError as error:
        raise BadInput(f"{where}: {str(error).splitlines()[1].strip()}") from error
    if incompatible.missing_keys:
        raise BadInput(f"the weights have no tensor {incompatible.missing_keys[0]!r}")
    return module.eval()


def decoder_settings(config: DecoderConfig, stored: Mapping[str, Any]) -> dict[str, Any]:
    """What of a `config.json` makes the decoder, as transformers takes it; the rest may be anything.

    Args:
        config: as it was read and checked.
        stored: the file's contents, for the rotary embedding's key, which has two names.
    """
    settings = asdict(config)
    theta, _ = settings.pop("rope_theta"), settings.pop("switches")  # of a class, not of its config
    rope = {name: stored[name] for name in ROPE if name in stored}
    return settings | (rope or {"rope_theta": theta})
