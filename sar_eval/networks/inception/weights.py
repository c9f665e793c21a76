"""Inception's weights: NVIDIA's TorchScript file (clean-fid's), or pytorch-fid's tensors by name."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sar_eval.errors import BadInput
from sar_eval.networks.inception.architecture import CLASSES, Inception
from sar_eval.tensors.git_lfs import refuse_pointer
from sar_eval.tensors.mismatch import describe_mismatch
from sar_eval.tensors.torchscript import is_torchscript, load_torchscript
from sar_eval.tensors.weight_files import read_tensors

CLASSIFIER = ("fc.weight", "fc.bias")
HEAD_OF_TORCHVISION = "AuxLogits."


def load_inception(path: Path) -> nn.Module:
    """From normalised pictures `[N, 3, 299, 299]` to features `[N, D]`, float32, on the CPU.

    Raises:
        BadInput: unreadable, another network, or torchvision's Inception, whose features are no FID's.
    """
    refuse_pointer(path)
    network = _scripted(path) if is_torchscript(path) else _by_name(path)
    return network.eval().requires_grad_(False)


class _Layers(nn.Module):
    """The part of NVIDIA's program between its resizing and its classifier, as clean-fid takes it."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).flatten(1)  # type: ignore[no-any-return]


def _scripted(path: Path) -> nn.Module:
    module = load_torchscript(path)
    if not hasattr(module, "layers"):
        raise BadInput(f"{path} is a TorchScript file, but not Inception's: it has no `layers`")
    return _Layers(module.layers)


def _by_name(path: Path) -> nn.Module:
    state = {name: tensor.float() for name, tensor in read_tensors(path).items() if not _is_counter(name)}
    _refuse_other_inceptions(state, path)
    try:
        network = Inception({name: tensor.shape for name, tensor in state.items()})
    except (KeyError, ValueError) as error:
        raise BadInput(f"{path} is not FID's Inception: it has no fitting tensor {error}") from error
    expected = {name: tensor for name, tensor in network.state_dict().items() if not _is_counter(name)}
    own = {name: tensor for name, tensor in state.items() if name not in CLASSIFIER}
    if mismatch := describe_mismatch(own, expected):
        raise BadInput(f"{path} does not fit FID's Inception: {mismatch}")
    network.load_state_dict(own, strict=False)  # compared above; counters of batches are of no use
    return network


def _refuse_other_inceptions(state: dict[str, Tensor], path: Path) -> None:
    classifier = state.get("fc.weight", torch.empty(CLASSES))
    if len(classifier) != CLASSES or any(name.startswith(HEAD_OF_TORCHVISION) for name in state):
        raise BadInput(
            f"{path} is an Inception with {len(classifier)} classes, such as torchvision's: its features "
            "give another distance. FID's has 1,008: `sar-eval fetch scorers inception-fid`"
        )


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")
