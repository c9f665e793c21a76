"""Read and write TorchScript files, the published format of the Cosmos tokenizers and OpenAI's CLIP.

A TorchScript file is a program; `torchscript_check` refuses one that could do more than compute.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sar_eval.errors import BadInput
from sar_eval.tensors.out_of_memory import is_out_of_memory
from sar_eval.tensors.torchscript_check import check_graphs, copy_checked


def load_torchscript(path: Path, device: torch.device | str = "cpu") -> Any:
    """Load the module of a TorchScript file, in evaluation mode, after its operators were checked.

    Raises:
        BadInput: the file is no TorchScript file, is damaged, or would do more than compute with tensors
            (see `torchscript_check`).
    """
    with _no_deprecation_warnings():
        copy = io.BytesIO()
        copy_checked(path, copy)
        copy.seek(0)
        try:
            module = torch.jit.load(copy, map_location=device)
            check_graphs(module, path)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BadInput(f"{path} is no readable TorchScript file: {first}") from error
        return module.eval()


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive; those of `torch.save` hold no constants."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


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
