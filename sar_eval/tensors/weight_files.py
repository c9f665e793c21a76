"""Read weights from safetensors and torch files; of a torch file only tensors are unpickled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zipfile import is_zipfile

import torch
from torch import Tensor

from sar_eval.errors import BadInput


def read_weight_files(paths: Sequence[Path], device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Read the tensors of several `.safetensors` or torch files by name, onto a device.

    Raises:
        BadInput: a file is unreadable.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = {}
    for path in paths:
        try:
            tensors = load_file(path) if path.suffix == ".safetensors" else read_torch_file(path)
        except SafetensorError as error:
            raise BadInput(f"{path} is no readable safetensors file: {error}") from error
        weights |= {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
    return weights


def read_torch_file(path: Path, wrappers: Sequence[str] = ()) -> dict[str, Tensor]:
    """Read the tensors of a torch file; nothing but tensors is unpickled.

    Args:
        path: of the file.
        wrappers: keys that may contain the dictionary of tensors, where it is not at the top level.

    Raises:
        BadInput: the file is unreadable or contains anything but tensors by name.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except Exception as error:
        # On invalid data the unpickler may raise any exception.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{path} is no torch file of tensors alone: {first}") from error
    if isinstance(content, dict):
        wrapped = [content[name] for name in wrappers if isinstance(content.get(name), dict)]
        content = wrapped[0] if wrapped else content
    if not isinstance(content, dict) or not all(isinstance(t, torch.Tensor) for t in content.values()):
        raise BadInput(f"{path} holds something else than tensors by name")
    return content
