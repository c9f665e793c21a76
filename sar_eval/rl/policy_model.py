"""A checkpoint as a policy to be trained, and its weights as an engine takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from sar_eval.decoding.token_grid import token_grid
from sar_eval.families.simplear import Checkpoint
from sar_eval.rl.policy import GuidedPolicy
from sar_eval.storage.files import storage_errors
from sar_eval.storage.replaced_folders import replace_folder
from sar_eval.train.checkpoint_writer import save_checkpoint
from sar_eval.train.text_tokenizer import load_text_tokenizer
from sar_eval.types import DrawProtocol, Json


def load_policy(
    checkpoint: Checkpoint,
    protocol: DrawProtocol,
    mode: str = "guided",
    device: str = "cpu",
    gradient_checkpointing: bool = False,
) -> GuidedPolicy:
    """The checkpoint's decoder in float32, without dropout, as a policy.

    Raises:
        BadInput: the weights do not fit `config.json`, or see `policy.check_protocol`.
    """
    model = checkpoint.load_transformers(device, torch.float32).model
    if model.config.tie_word_embeddings:  # one parameter: two of one storage would both be updated
        model.lm_head.weight = model.model.embed_tokens.weight
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    if gradient_checkpointing:
        # transformers recomputes in training mode alone; these decoders have no dropout to switch on.
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
    return GuidedPolicy(model, checkpoint.visual_ids, protocol, mode)


def engine_weights(policy: GuidedPolicy) -> Iterator[tuple[str, Tensor]]:
    """The policy's tensors by their names in the checkpoint, for `TokenEngine.load_weights`."""
    tied = policy.model.config.tie_word_embeddings
    with torch.no_grad():
        for name, tensor in policy.model.state_dict().items():
            if not (tied and name == "lm_head.weight"):
                yield name, tensor


def save_policy(
    policy: GuidedPolicy,
    checkpoint: Checkpoint,
    protocol: DrawProtocol,
    out: Path,
    training: Mapping[str, Json],
) -> None:
    """Write the policy as a checkpoint folder in bfloat16 that `run` takes; the policy stays as it is.

    Args:
        policy: without accelerate's wrapper.
        checkpoint: that it started from, whose tokenizers are its own.
        protocol: that its pictures were drawn under, which says their size.
        out: the folder; files of that name in it are replaced.
        training: what made it (see `save_checkpoint`).

    Raises:
        StorageFailed: it cannot be written.
    """
    tokenizer = load_text_tokenizer(checkpoint.folder)
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        grid = token_grid(protocol, checkpoint.downsample, "the visual tokenizer's pixels per token")
        save_checkpoint(policy.model, tokenizer, checkpoint.visual_folder, {grid}, out, training)


def replace_policy(
    policy: GuidedPolicy,
    checkpoint: Checkpoint,
    protocol: DrawProtocol,
    out: Path,
    training: Mapping[str, Json],
) -> None:
    """As `save_policy`, but a folder that is there is replaced as a whole."""
    replace_folder(out, lambda new: save_policy(policy, checkpoint, protocol, new, training))
