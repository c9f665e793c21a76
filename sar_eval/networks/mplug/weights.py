"""Strict loading of the original mPLUG VQA files.

The original loads `pytorch_model.bin` with `strict=False`, so that a wrong file leaves parameters at their
random initial values without an error (modelscope 1.40.2, `MPlug.from_pretrained`). Here every tensor must
be a parameter of the network, match a pattern in `DROPPED`, or be one of the two tied copies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.networks.mplug.network import Mplug
from sar_eval.networks.mplug.shape import MplugShape, config_paths, read_shape
from sar_eval.tensors.converted import ConvertedWeights, State, convert_once
from sar_eval.tensors.digests import version_of_files
from sar_eval.tensors.weight_files import read_torch_file

WEIGHTS, VOCABULARY = "pytorch_model.bin", "vocab.txt"
NAME = "mPLUG"  # in error messages
WRAPPERS = ("model", "module")  # keys under which a file may hold the state dict
_DECODER = "text_decoder."
TIES = {
    f"{_DECODER}cls.predictions.decoder.weight": f"{_DECODER}bert.embeddings.word_embeddings.weight",
    f"{_DECODER}cls.predictions.decoder.bias": f"{_DECODER}cls.predictions.bias",
}
# Tensors that a file may hold and the network does not need, by role.
DROPPED = {
    "momentum": r"(visual_encoder|text_encoder|fusion_encoder|text_decoder|visn_fc|visn_layer_norm)_m\..+",
    "clip_text": (
        r"visual_encoder\.(positional_embedding|text_projection|logit_scale|token_embedding\.weight|"
        r"ln_final\.(weight|bias)|transformer\.resblocks\.\d+\..+)"
    ),
    "unused": r"visual_encoder\.visual\.proj|fusion_encoder\.encoder\.layer\.(\d+)\..+",
    "buffer": r"(text_encoder|text_decoder\.bert)\.embeddings\.position_ids",
}
ROLES = ("used", "tied", *DROPPED, "unknown")
_TENSORS_PER_CLIP_LAYER, _TENSORS_PER_FUSION_LAYER = 12, 26


@dataclass(slots=True)
class TensorReport:
    """Comparison of a file's tensors with the network.

    Attributes:
        counts: number of tensors by role (`ROLES`).
        expected: the same for a complete file of the original.
        ties: name of each tied copy to whether it equals its source; None where the file lacks it.
        missing: names of the network that the file lacks.
        unknown: names that are neither the network's nor dropped.
        mismatched: descriptions of tensors of another shape or type.
    """

    counts: dict[str, int]
    expected: dict[str, int]
    ties: dict[str, bool | None] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Why the file cannot be loaded; empty if it can."""
        untied = [name for name, equal in self.ties.items() if equal is False]
        groups = {
            "missing": self.missing,
            "not the network's": self.unknown,
            "of another shape or type": self.mismatched,
            "not equal to what the original ties them to": untied,
        }
        return [
            f"{len(names)} tensors are {problem} ({names[0]}{', ...' if len(names) > 1 else ''})"
            for problem, names in groups.items()
            if names
        ]


class MplugWeights(NamedTuple):
    """Tensors and configuration of the network.

    Attributes:
        state: the tensors, float32.
        shape: the configuration.
        digest: SHA-256 of `pytorch_model.bin`.
    """

    state: State
    shape: MplugShape
    digest: str


def read_weights(folder: Path) -> MplugWeights:
    """Read the network from a folder of the original's files.

    The tensors are converted once (see `tensors.converted`).

    Raises:
        BadInput: a file is missing or unreadable, or does not fit.
    """
    shape, path = read_shape(folder), weights_path(folder)
    notes = {"network": repr(shape)}
    converted = convert_once(path, lambda: ConvertedWeights(read_original(path, shape), notes), NAME, notes)
    return MplugWeights(converted.state, shape, converted.metadata["source"])


def weights_path(folder: Path) -> Path:
    """Path of a folder's `pytorch_model.bin`.

    Raises:
        BadInput: it does not exist.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise BadInput(f"no mPLUG weights {path}: get them with `sar-eval fetch dpg`")
    return path


def digest(folder: Path) -> str:
    """Digest of the files that answers depend on: 8 hex digits of the weights, 8 of the others.

    Raises:
        BadInput: a file is missing.
    """
    path, others = weights_path(folder), [folder / VOCABULARY, *config_paths(folder)]
    if missing := [str(other) for other in others if not other.is_file()]:
        raise BadInput(f"no {missing[0]}: `sar-eval fetch dpg` downloads it")
    return version_of_files(path, others)


def read_original(path: Path, shape: MplugShape) -> State:
    """The network's tensors of the original's file, as float32; no code in the file is run.

    Raises:
        BadInput: the file is unreadable or does not fit; the message names one tensor of each problem.
    """
    state = read_state(path)
    if problems := compare_tensors(state, shape).problems:
        raise BadInput(f"{path} does not fit mPLUG: {'; '.join(problems)}")
    # Copies, because torch maps the file into memory and its content may change.
    return {name: state[name].to(torch.float32, copy=True) for name in expected_shapes(shape)}


def read_state(path: Path) -> State:
    """All tensors of the original's file, under names without the prefix `model.`.

    Raises:
        BadInput: the file is unreadable or empty, or holds something else than tensors.
    """
    tensors = read_torch_file(path, WRAPPERS)
    state = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    if not state or len(state) < len(tensors):
        raise BadInput(f"{path} holds no tensors" if not state else f"{path} holds a name twice")
    return state


def compare_tensors(state: Mapping[str, Tensor], shape: MplugShape) -> TensorReport:
    """Compare a file's tensors with the network."""
    expected = expected_shapes(shape)
    report = TensorReport(dict.fromkeys(ROLES, 0), expected_counts(shape))
    for name in state:
        role = role_of(name, expected, shape)
        report.counts[role] += 1
        if role == "unknown":
            report.unknown.append(name)
    report.missing = [name for name in expected if name not in state]
    report.mismatched = list(_describe_mismatched(state, expected))
    report.ties = {copy: _is_tied(state, copy, source) for copy, source in TIES.items()}
    return report


def role_of(name: str, expected: Mapping[str, tuple[int, ...]], shape: MplugShape) -> str:
    """The role of a tensor of the original's file, one of `ROLES`."""
    if name in expected:
        return "used"
    if name in TIES:
        return "tied"
    for role, pattern in DROPPED.items():
        match = re.fullmatch(pattern, name)
        # Of the fusion encoder's layers, only those that do not run may be dropped.
        if match and not (role == "unused" and match[1] and int(match[1]) not in _inactive_layers(shape)):
            return role
    return "unknown"


def expected_shapes(shape: MplugShape) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the network."""
    with torch.device("meta"):
        network = Mplug(shape)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def expected_counts(shape: MplugShape) -> dict[str, int]:
    """Number of tensors by role in a complete file of the original."""
    counts = {
        "used": len(expected_shapes(shape)),
        "tied": len(TIES),
        "clip_text": 6 + _TENSORS_PER_CLIP_LAYER * shape.clip_text_layers,
        "unused": 1 + _TENSORS_PER_FUSION_LAYER * len(_inactive_layers(shape)),
        "buffer": 2,
        "unknown": 0,
    }
    return counts | {"momentum": sum(counts.values()) if shape.distilled else 0}


def _inactive_layers(shape: MplugShape) -> range:
    return range(shape.active_layers.start)


def _describe_mismatched(
    state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]
) -> Iterator[str]:
    for name, size in expected.items():
        tensor = state.get(name)
        if tensor is not None and (tuple(tensor.shape) != size or not tensor.is_floating_point()):
            dtype = str(tensor.dtype).removeprefix("torch.")
            yield f"{name} is {dtype} {list(tensor.shape)}, the network's is float {list(size)}"


def _is_tied(state: Mapping[str, Tensor], copy: str, source: str) -> bool | None:
    if copy not in state:
        return None
    tensor, original = state[copy], state.get(source)
    return original is not None and tensor.dtype == original.dtype and torch.equal(tensor, original)
