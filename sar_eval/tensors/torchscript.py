"""TorchScript files, which others fixed as their format: the Cosmos tokenizers, OpenAI's CLIP."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sar_eval.errors import BadInput


def load_torchscript(path: Path, device: torch.device | str = "cpu") -> Any:
    """The module in a TorchScript file, in evaluation mode.

    Raises:
        BadInput: it is none.
    """
    with without_advice():
        try:
            return torch.jit.load(str(path), map_location=device).eval()
        except RuntimeError as error:
            first = str(error).splitlines()[0]
            raise BadInput(f"{path} is no readable TorchScript file: {first}") from error


def save_torchscript(module: torch.nn.Module, path: Path) -> None:
    """Script a module and write it; a file of that name is replaced whole."""
    partial = path.with_suffix(".tmp")
    with without_advice():
        torch.jit.script(module).save(str(partial))
    partial.replace(path)


@contextmanager
def without_advice() -> Iterator[None]:
    """Silence torch's advice to leave TorchScript (its class of warning changes with the release)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*")
        yield
