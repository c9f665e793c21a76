"""Convert third-party weights once; the result is cached beside the source file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.tensors.digests import file_digest

State = dict[str, Tensor]


class ConvertedWeights(NamedTuple):
    """Tensors by name, and the file's metadata (`source`: SHA-256 of the file they were converted from)."""

    state: State
    metadata: dict[str, str]


def convert_once(
    source: Path,
    convert: Callable[[], ConvertedWeights],
    model_name: str,
    required_metadata: Mapping[str, str] | None = None,
) -> ConvertedWeights:
    """Return the cached conversion of a file if its metadata match, else convert and cache it.

    Args:
        source: the file; the cache file has the same name with `.safetensors` appended.
        convert: the conversion.
        model_name: for messages.
        required_metadata: what the cached metadata must contain, beside the digest of the source.

    Raises:
        BadInput: what `convert` raises.
    """
    digest, cache_path = file_digest(source), source.with_name(f"{source.name}.safetensors")
    if cache_path.is_file():
        try:
            cached = read_converted(cache_path, model_name)
        except BadInput as error:  # damaged
            warnings.warn(f"{error}; converting {source} again", stacklevel=3)
        else:
            if {**cached.metadata, **(required_metadata or {}), "source": digest} == cached.metadata:
                return cached
    state, metadata = convert()
    converted = ConvertedWeights(state, {**metadata, "source": digest})
    _write_cache(converted, cache_path, source.stat().st_mode, model_name)
    return converted


def read_converted(path: Path, model_name: str) -> ConvertedWeights:
    """Read a cached conversion.

    Raises:
        BadInput: the file is unreadable.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            return ConvertedWeights(state, file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} is no converted {model_name} ({error})") from error


def _write_cache(converted: ConvertedWeights, target: Path, mode: int, model_name: str) -> None:
    """Write a conversion with the permissions of its source; a failure is only a warning."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    partial = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        save_file(converted.state, partial, metadata=converted.metadata)
        partial.chmod(mode & 0o666)
        partial.replace(target)
    except (SafetensorError, OSError) as error:
        partial.unlink(missing_ok=True)
        warnings.warn(f"the converted {model_name} cannot be kept as {target}: {error}", stacklevel=4)
