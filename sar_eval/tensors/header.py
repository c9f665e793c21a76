"""Type and shape of each tensor in a file of weights, read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sar_eval.tensors.safetensors_header import TensorEntry, read_header
from sar_eval.tensors.torch_header import TorchTensor, read_torch_header

Entry = TensorEntry | TorchTensor


def read_entries(path: Path) -> Mapping[str, Entry]:
    """The tensors of a safetensors or a torch file, by name.

    Raises:
        BadInput: the file is damaged, or holds something else than tensors.
    """
    return read_header(path) if path.suffix == ".safetensors" else read_torch_header(path)
