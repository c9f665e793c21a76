"""Read and write TorchScript files, the published format of the Cosmos tokenizers and OpenAI's CLIP."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sar_eval.errors import BadInput


def load_torchscript(path: Path, device: torch.device | str = "cpu") -> Any:
    """Load the module of a TorchScript file, in evaluation mode.

    Raises:
        BadInput: the file is no TorchScript file.
    """
    with _no_deprecation_warnings():
        try:
            return torch.jit.load(str(path), map_location=device).eval()
        except RuntimeError as error:
            first = str(error).splitlines()[0]
            raise BadInput(f"{path} is no readable TorchScript file: {first}") from error


def save_torchscript(module: torch.nn.Module, path: Path) -> None:
    """Script a module and write it; an existing file is replaced atomically."""
    partial = path.with_suffix(".tmp")
    with _no_deprecation_warnings():
        torch.jit.script(module).save(str(partial))
    partial.replace(path)


@contextmanager
def _no_deprecation_warnings() -> Iterator[None]:
    """Ignore torch's deprecation warnings about TorchScript (their class differs between releases)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*")
        yield
