"""Weights in safetensors and torch files, of which nothing but tensors is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zipfile import is_zipfile

import torch
from torch import Tensor

from sar_eval.errors import BadInput


def read_weight_files(paths: Sequence[Path], device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors by name of several files (`.safetensors`, or torch files), on a device.

    Raises:
        BadInput: a file is unreadable.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = {}
    for path in paths:
        try:
            found = load_file(path) if path.suffix == ".safetensors" else read_torch_file(path)
        except SafetensorError as error:
            raise BadInput(f"{path} is no readable safetensors file: {error}") from error
        weights |= {name: tensor.to(device, dtype) for name, tensor in found.items()}
    return weights


def read_torch_file(path: Path, wrappers: Sequence[str] = ()) -> dict[str, Tensor]:
    """Tensors of a torch file, of which nothing but tensors is unpickled.

    Args:
        path: of the file.
        wrappers: names under one of which the tensors may lie, instead of at the top.

    Raises:
        BadInput: unreadable, or something else than tensors by name in it.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except Exception as error:
        # Over junk the unpickler stumbles in every way there is.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{path} is no torch file of tensors alone: {first}") from error
    if isinstance(found, dict):
        inside = [found[name] for name in wrappers if isinstance(found.get(name), dict)]
        found = inside[0] if inside else found
    if not isinstance(found, dict) or not all(isinstance(t, torch.Tensor) for t in found.values()):
        raise BadInput(f"{path} holds something else than tensors by name")
    return found
