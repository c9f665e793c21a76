"""Names, types and shapes of a torch file's tensors, read without torch and without running anything.

A torch file is a zip archive (since torch 1.6) with a pickle `data.pkl` of everything but the numbers. The
pickle is read with stand-ins for the few functions and classes that such files name; any other name ends
the reading, as `torch.load(weights_only=True)` does.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, ZipInfo

from sar_eval.errors import BadInput
from sar_eval.tensors.git_lfs import refuse_pointer

MAX_PICKLE_BYTES = 100_000_000
# Keys under which trainers keep a model's tensors, beside their own state.
WRAPPERS = ("model", "state_dict", "model_state_dict", "module", "net")
_TYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
# Of trainers, beside the tensors: what `weight_files` lets pass.
_IGNORED = (
    "numpy.core.multiarray",
    "numpy._core.multiarray",
    "numpy",
    "numpy.dtypes",
    "argparse",
    "_codecs",
)


@dataclass(frozen=True, slots=True)
class TorchTensor:
    """A tensor of a torch file.

    Attributes:
        dtype: as torch calls it, `float32` or `bfloat16`.
        shape: its sizes.
    """

    dtype: str
    shape: tuple[int, ...]


def read_torch_header(path: Path) -> dict[str, TorchTensor]:
    """The tensors by name, of the file itself or of the table under one of `WRAPPERS`.

    Raises:
        BadInput: the file is a git-lfs pointer, unreadable, of before torch 1.6, or holds something else
            than tensors by name.
    """
    refuse_pointer(path)
    content = _content(path)
    wrapped = [content.get(name) for name in WRAPPERS] if isinstance(content, Mapping) else []
    for table in (*filter(None, wrapped), content):
        if (found := _tensors(table)) is not None:
            return found
    raise BadInput(f"{path} holds something else than tensors by name")


def _content(path: Path) -> Any:
    """What the pickle describes, with `TorchTensor` in place of tensors."""
    try:
        with ZipFile(path) as archive, archive.open(_member(archive)) as file:
            return _Header(file).load()
    except BadZipFile as error:
        raise BadInput(
            f"{path} is no torch file as torch has written them since 1.6, or is cut off ({error}): get it "
            "again, or save it anew with torch.save"
        ) from error
    except Exception as error:
        # On invalid data the unpickler may raise any exception.
        raise BadInput(f"{path} is no torch file of tensors alone: {error}") from error


def _member(archive: ZipFile) -> ZipInfo:
    found = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
    if len(found) != 1 or found[0].file_size > MAX_PICKLE_BYTES:
        raise ValueError("it has no table of tensors")
    return found[0]


def _tensors(table: Any) -> dict[str, TorchTensor] | None:
    """The table, if it is one of tensors by name."""
    if not isinstance(table, Mapping):
        return None
    found = {name: tensor for name, tensor in table.items() if isinstance(tensor, TorchTensor)}
    return found if len(found) == len(table) and all(isinstance(name, str) for name in found) else None


class _Inert:
    """In place of what is no tensor: takes anything and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        del arguments

    def __setstate__(self, state: Any) -> None:
        """Forget the state."""


class _Table(dict[Any, Any]):
    """An ordered dictionary, without the attributes that torch gives to a state_dict."""

    def __setstate__(self, state: Any) -> None:
        """Forget them."""


class _Header(pickle.Unpickler):
    """Reads the pickle with nothing of its own to call."""

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for what a torch file names."""
        if module in ("torch", "torch.storage") and name in _TYPES:
            return _TYPES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return _Table
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _tensor if name == "_rebuild_tensor_v2" else _parameter
        if module in _IGNORED:
            return _Inert
        why = "pickled objects may be programs: save the tensors alone, where the file was made"
        raise pickle.UnpicklingError(f"it also holds an object of {module}.{name}, and {why}")

    def persistent_load(self, pid: Any) -> Any:
        """The type of a storage, in place of its numbers: `("storage", type, key, place, size)`."""
        return pid[1]


def _tensor(dtype: Any, offset: Any, size: Any, *others: Any) -> TorchTensor:
    del offset, others
    if not isinstance(dtype, str) or not all(type(length) is int and length >= 0 for length in size):
        raise ValueError(f"a tensor of size {size}")
    return TorchTensor(dtype, tuple(size))


def _parameter(data: Any, *others: Any) -> Any:
    del others
    return data
