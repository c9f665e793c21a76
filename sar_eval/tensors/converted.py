"""Checkpoints of others, converted once: the result lies beside the source and is read from there."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from sar_eval.errors import BadInput

State = dict[str, Tensor]


class Converted(NamedTuple):
    """Tensors by name, and what was noted beside them (`source`: SHA-256 of what they come from)."""

    state: State
    notes: dict[str, str]


def convert_once(
    source: Path, convert: Callable[[], Converted], what: str, wanted: Mapping[str, str] | None = None
) -> Converted:
    """The conversion of a file: the one kept beside it, if it was made of these bytes, else a new one.

    Args:
        source: the file; its conversion is called the same with `.safetensors` after it.
        convert: makes it.
        what: it is, for messages.
        wanted: notes that a kept one must have, beside the digest of its source.

    Raises:
        BadInput: what `convert` raises.
    """
    digest, kept = file_digest(source), source.with_name(f"{source.name}.safetensors")
    if kept.is_file():
        try:
            found = read_converted(kept, what)
        except BadInput as error:  # torn: it is made anew
            warnings.warn(f"{error}; converting {source} again", stacklevel=3)
        else:
            if {**found.notes, **(wanted or {}), "source": digest} == found.notes:
                return found
    state, notes = convert()
    found = Converted(state, {**notes, "source": digest})
    _keep(found, kept, source.stat().st_mode, what)
    return found


def read_converted(path: Path, what: str) -> Converted:
    """A conversion that was kept.

    Raises:
        BadInput: unreadable.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            return Converted(state, file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} is no converted {what} ({error})") from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _keep(found: Converted, target: Path, mode: int, what: str) -> None:
    """Write a conversion, readable to whom its source is; a run can do without it."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    partial = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        save_file(found.state, partial, metadata=found.notes)
        partial.chmod(mode & 0o666)
        partial.replace(target)
    except (SafetensorError, OSError) as error:
        partial.unlink(missing_ok=True)
        warnings.warn(f"the converted {what} cannot be kept as {target}: {error}", stacklevel=4)
