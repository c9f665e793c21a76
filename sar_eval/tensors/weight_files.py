"""Read weights from safetensors and torch files; of a torch file only tensors and numbers are unpickled."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.tensors.git_lfs import refuse_pointer
from sar_eval.tensors.safetensors_header import read_header
from sar_eval.tensors.torch_header import WRAPPERS


def read_tensors(path: Path, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` or a torch file, on the CPU; those of `names`, or all.

    Raises:
        BadInput: the file is unreadable, or lacks one of the names.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path, names)
    tensors = read_torch_file(path, WRAPPERS)
    wanted = tensors if names is None else names
    if missing := [name for name in wanted if name not in tensors]:
        raise BadInput(f"{path} has no tensor {missing[0]!r}")
    return {name: tensors[name] for name in wanted}


def _read_safetensors(path: Path, names: Iterable[str] | None) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    header = read_header(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in (header if names is None else names)}
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} is no readable safetensors file: {error}") from error


def read_torch_file(path: Path, wrappers: Sequence[str] = ()) -> dict[str, Tensor]:
    """Read the tensors of a torch file; nothing but tensors, numbers and a trainer's options is unpickled.

    Args:
        path: of the file.
        wrappers: keys that may contain the dictionary of tensors, where it is not at the top level.

    Raises:
        BadInput: the file is unreadable or contains anything but tensors by name.
    """
    refuse_pointer(path)
    try:
        with torch.serialization.safe_globals(_harmless()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except Exception as error:
        # On invalid data the unpickler may raise any exception.
        raise BadInput(f"{path} is no torch file of tensors alone: {unpickling_error(error)}") from error
    if isinstance(content, Mapping):
        wrapped = [content[name] for name in wrappers if isinstance(content.get(name), Mapping)]
        tables = sorted(filter(_are_tensors, wrapped), key=lambda table: not table)  # empty ones last
        content = tables[0] if tables else content
    if not _are_tensors(content):
        raise BadInput(f"{path} holds something else than tensors by name{_found(content)}")
    return dict(content)


def unpickling_error(error: Exception) -> str:
    """Why torch did not unpickle a file, in our words: torch's advise loading it without the check."""
    text = str(error)
    if found := re.search(r"(?:GLOBAL|Unsupported global:?) (?:GLOBAL )?([\w.]+)", text):
        return (
            f"it also holds an object of {found[1]}, and pickled objects may be programs. Save the tensors "
            "alone, where the file was made: model.save_pretrained(FOLDER), or "
            "torch.save(model.state_dict(), FILE)"
        )
    first = (text.splitlines() or [""])[0]
    return type(error).__name__ if not first or "weights_only" in text else first


def _harmless() -> list[Any]:
    """What trainers keep beside the tensors and what runs no code when it is unpickled."""
    import numpy as np

    dtypes = {type(np.dtype(code)) for code in "?bhilqBHILQefd"}
    scalar = np.float64(0).__reduce__()[0]
    names = [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    return [*names, np.dtype, *dtypes, argparse.Namespace]


def _are_tensors(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and all(isinstance(name, str) for name in content)
        and all(isinstance(tensor, Tensor) for tensor in content.values())
    )


def _found(content: Any) -> str:
    """What a file holds instead, for a message."""
    if not isinstance(content, Mapping):
        return f" (a {type(content).__name__})"
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if not others:
        return ""
    advice = "save the tensors alone, under their names"
    return f" ({', '.join(others[:4])}{', ...' if len(others) > 4 else ''}): {advice}"
