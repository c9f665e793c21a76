"""The original mPLUG VQA files, loaded strictly.

The original loads `pytorch_model.bin` with `strict=False`, so that a wrong file makes a network of
chance without a word (modelscope 1.40.2, `MPlug.from_pretrained`). Here every tensor must have its
place: the network takes it, or it stands in `DROPPED`, or it is one of the two that the original ties.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.networks.mplug.network import Mplug
from sar_eval.networks.mplug.shape import MplugShape, configurations, read_shape
from sar_eval.tensors.converted import ConvertedWeights, State, convert_once, file_digest
from sar_eval.tensors.weight_files import read_torch_file

WEIGHTS, VOCABULARY = "pytorch_model.bin", "vocab.txt"
WHAT = "mPLUG"
WRAPPERS = ("model", "module")  # what the state dict may be wrapped in
_DECODER = "text_decoder."
TIES = {
    f"{_DECODER}cls.predictions.decoder.weight": f"{_DECODER}bert.embeddings.word_embeddings.weight",
    f"{_DECODER}cls.predictions.decoder.bias": f"{_DECODER}cls.predictions.bias",
}
# What a file may hold and the network does not need, by role.
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
_BLOCK, _FUSION = 12, 26  # tensors of a layer of CLIP's, of a layer of the fusion encoder


@dataclass(slots=True)
class Report:
    """How a file's tensors fit the network.

    Attributes:
        counts: tensors by role (`ROLES`).
        expected: the same of a whole file of the original.
        ties: name of each tied copy to whether it equals its source; None where the file leaves it out.
        missing: names that the network needs and the file lacks.
        misshapen: what is of another shape or kind, in words.
    """

    counts: dict[str, int]
    expected: dict[str, int]
    ties: dict[str, bool | None] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """Why the file cannot be loaded, in words; empty if it can."""
        untied = [name for name, equal in self.ties.items() if equal is False]
        told = {
            "missing": self.missing,
            "not the network's": self.unknown,
            "of another shape or kind": self.misshapen,
            "not equal to what the original ties them to": untied,
        }
        return [
            f"{len(names)} tensors are {what} ({_first(names)})" for what, names in told.items() if names
        ]


class MplugWeights(NamedTuple):
    """What the network is loaded from.

    Attributes:
        state: its tensors, float32.
        shape: its numbers.
        digest: SHA-256 of `pytorch_model.bin`.
    """

    state: State
    shape: MplugShape
    digest: str


def read_weights(folder: Path) -> MplugWeights:
    """The network's tensors from a folder of the original's files.

    They are converted once: the result lies beside `pytorch_model.bin` (see `converted`).

    Raises:
        BadInput: a file is missing or unreadable, or does not fit.
    """
    shape, path = read_shape(folder), weights_file(folder)
    notes = {"network": repr(shape)}
    found = convert_once(path, lambda: ConvertedWeights(read_original(path, shape), notes), WHAT, notes)
    return MplugWeights(found.state, shape, found.metadata["source"])


def weights_file(folder: Path) -> Path:
    """`pytorch_model.bin` of a folder.

    Raises:
        BadInput: it is not there.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise BadInput(f"no mPLUG weights {path}: get them with `sar-eval fetch dpg`")
    return path


def digest(folder: Path) -> str:
    """What answers depend on: eight hex digits of the weights, eight of the other files that count.

    Raises:
        BadInput: a file is missing.
    """
    path, others = weights_file(folder), [folder / VOCABULARY, *configurations(folder)]
    if missing := [str(other) for other in others if not other.is_file()]:
        raise BadInput(f"no {missing[0]}: `sar-eval fetch dpg` downloads it")
    rest = "".join(file_digest(other) for other in others)
    return f"{file_digest(path)[:8]}+{hashlib.sha256(rest.encode()).hexdigest()[:8]}"


def read_original(path: Path, shape: MplugShape) -> State:
    """The network's tensors out of the original's file, float32; no code in it is run.

    Raises:
        BadInput: unreadable, or tensors that do not fit; the message names the first of each fault.
    """
    state = read_state(path)
    if faults := survey(state, shape).faults:
        raise BadInput(f"{path} does not fit mPLUG: {'; '.join(faults)}")
    # Copies: what torch gives lies in the file, and would change with it.
    return {name: state[name].to(torch.float32, copy=True) for name in expected_shapes(shape)}


def read_state(path: Path) -> State:
    """All tensors of the original's file, unwrapped, under names without the prefix `model.`.

    Raises:
        BadInput: unreadable, or nothing or something else than tensors in it.
    """
    given = read_torch_file(path, WRAPPERS)
    state = {name.removeprefix("model."): tensor for name, tensor in given.items()}
    if not state or len(state) < len(given):
        raise BadInput(f"{path} holds no tensors" if not state else f"{path} holds a name twice")
    return state


def survey(state: Mapping[str, Tensor], shape: MplugShape) -> Report:
    """Sort a file's tensors by role and compare them with the network."""
    wanted = expected_shapes(shape)
    report = Report(dict.fromkeys(ROLES, 0), expected_counts(shape))
    for name in state:
        role = role_of(name, wanted, shape)
        report.counts[role] += 1
        if role == "unknown":
            report.unknown.append(name)
    report.missing = [name for name in wanted if name not in state]
    report.misshapen = list(_misshapen(state, wanted))
    report.ties = {copy: _tied(state, copy, source) for copy, source in TIES.items()}
    return report


def role_of(name: str, wanted: Mapping[str, tuple[int, ...]], shape: MplugShape) -> str:
    """What a tensor of the original's file is for, one of `ROLES`."""
    if name in wanted:
        return "used"
    if name in TIES:
        return "tied"
    for role, pattern in DROPPED.items():
        found = re.fullmatch(pattern, name)
        # Of the fusion encoder only layers that do not run may be dropped.
        if found and not (role == "unused" and found[1] and int(found[1]) not in _idle(shape)):
            return role
    return "unknown"


def expected_shapes(shape: MplugShape) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the network."""
    with torch.device("meta"):
        network = Mplug(shape)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def expected_counts(shape: MplugShape) -> dict[str, int]:
    """Tensors by role in a whole file of the original."""
    counts = {
        "used": len(expected_shapes(shape)),
        "tied": len(TIES),
        "clip_text": 6 + _BLOCK * shape.clip_text_layers,
        "unused": 1 + _FUSION * len(_idle(shape)),
        "buffer": 2,
        "unknown": 0,
    }
    return counts | {"momentum": sum(counts.values()) if shape.distilled else 0}


def _idle(shape: MplugShape) -> range:
    return range(shape.running.start)


def _misshapen(state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    for name, size in wanted.items():
        tensor = state.get(name)
        if tensor is not None and (tuple(tensor.shape) != size or not tensor.is_floating_point()):
            kind = str(tensor.dtype).removeprefix("torch.")
            yield f"{name} is {kind} {list(tensor.shape)}, the network's is float {list(size)}"


def _tied(state: Mapping[str, Tensor], copy: str, source: str) -> bool | None:
    if copy not in state:
        return None
    own, other = state[copy], state.get(source)
    return other is not None and own.dtype == other.dtype and torch.equal(own, other)


def _first(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]}, ..."
