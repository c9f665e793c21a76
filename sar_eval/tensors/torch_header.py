"""Names, types and shapes of a torch file's tensors, read without torch and without running anything.

A torch file is a zip archive with a pickle `data.pkl` of everything but the numbers; before torch 1.6, and
still on request, it is a row of pickles, of which the fourth is that one. The pickle is read with stand-ins
for the few functions and classes that such files name; any other name ends the reading, as
`torch.load(weights_only=True)` does.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile, ZipInfo, is_zipfile

from sar_eval.errors import BadInput
from sar_eval.tensors.git_lfs import refuse_pointer

MAX_PICKLE_BYTES = 100_000_000
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # the first pickle of a file that is no archive
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
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",  # the tensor itself says the type
}
_DTYPE = re.compile(r"(b?float|complex|u?int|bool)\w*")
# Of trainers, beside the tensors: what `weight_files` lets pass, whatever of it is named.
_IGNORED = (
    "numpy.core.multiarray",
    "numpy._core.multiarray",
    "numpy",
    "numpy.dtypes",
    "argparse",
    "_codecs",
)
_IGNORED_NAMES = {
    "__builtin__": ("set", "bytearray", "complex"),  # as the pickle's protocol calls builtins
    "collections": ("Counter",),
    "torch": ("device", "Tensor"),
    "torch.nn.parameter": ("Parameter",),
    "torch.serialization": ("_get_layout",),
}


@dataclass(frozen=True, slots=True)
class TorchTensor:
    """A tensor of a torch file.

    Attributes:
        dtype: as torch calls it, `float32` or `bfloat16`.
        shape: its sizes.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def read_torch_header(path: Path) -> dict[str, TorchTensor]:
    """The tensors by name, of the file itself or of the table under one of `WRAPPERS`.

    Raises:
        BadInput: the file is a git-lfs pointer, unreadable, or holds something else than tensors by name.
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
        with path.open("rb") as file:
            if not is_zipfile(file):
                return _fourth_pickle(file)
            with ZipFile(file) as archive, archive.open(_member(archive)) as table:
                return _Header(table).load()
    except Exception as error:
        # On invalid data the unpickler may raise any exception.
        raise BadInput(f"{path} is no torch file of tensors alone: {error}") from error


def _fourth_pickle(file: IO[bytes]) -> Any:
    """Of a file that is no archive: a number, the format's version, the machine, then the content."""
    file.seek(0)
    try:
        is_torch = _Header(file).load() == MAGIC_NUMBER
    except Exception as error:
        raise ValueError(
            "it is neither an archive nor begins as torch's files do: is it cut off?"
        ) from error
    if not is_torch:
        raise ValueError("it begins as another pickle")
    for _ in ("version", "machine"):
        _Header(file).load()
    return _Header(file).load()


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
        if (stand_in := _STAND_INS.get((module, name))) is not None:
            return stand_in
        if module in ("torch", "torch.storage") and (name in _TYPES or _DTYPE.fullmatch(name)):
            return _TYPES.get(name, name)
        if module in _IGNORED or name in _IGNORED_NAMES.get(module, ()):
            return _Inert
        why = "pickled objects may be programs: save the tensors alone, where the file was made"
        raise pickle.UnpicklingError(f"it also holds an object of {module}.{name}, and {why}")

    def persistent_load(self, pid: Any) -> Any:
        """The type of a storage, in place of its numbers: `("storage", type, key, place, size, ...)`."""
        return pid[1]


def _tensor(dtype: Any, offset: Any, size: Any, *others: Any) -> TorchTensor:
    del offset, others
    if not isinstance(dtype, str) or not all(type(length) is int and length >= 0 for length in size):
        raise ValueError(f"a tensor of size {size}")
    return TorchTensor(dtype, tuple(size))


def _typed_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any
) -> Any:
    """Of the types that have no storage of their own, as float8."""
    del storage, stride, grad, hooks
    return _tensor(dtype, offset, size)


def _parameter(data: Any, *others: Any) -> Any:
    del others
    return data


def _subclass(rebuild: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor with attributes, or of a class of its own, as the tensor that it is."""
    del kind, state
    return rebuild(*arguments)


_STAND_INS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Table,
    ("torch", "Size"): tuple,
    ("torch._tensor", "_rebuild_from_type_v2"): _subclass,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}
