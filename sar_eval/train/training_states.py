"""The states that a decoder's training resumes from: a folder each, whole or absent."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from sar_eval.documents import read_json, shorten
from sar_eval.errors import BadInput, StorageFailed
from sar_eval.storage.files import storage_errors, sync_file, sync_folder, write_json, write_stream
from sar_eval.train.state import check_torch_file
from sar_eval.types import Json

NAME = re.compile(r"checkpoint-(\d+)")
TEMPORARY = re.compile(r"checkpoint-\d+\.\d+\.tmp")  # with the pid of its writer
TENSORS, ABOUT = "state.pt", "state.json"


@runtime_checkable
class SavesState(Protocol):
    """A callback of the trainer that has a part of the training's state."""

    state_name: ClassVar[str]  # of its part

    def gathered_state(self) -> Mapping[str, Tensor]:
        """Its tensors, whole, on the first rank, {} on others; every rank calls this."""
        ...

    def resume_from(self, stored: Mapping[str, Tensor]) -> None:
        """Take the part of the state that is resumed, of the first rank, before the training begins."""
        ...


class TrainingStates:
    """The folder `state` of a training. One process, the first rank, uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def newest(self) -> int:
        """The last step with a state, 0 for none."""
        return max(self._steps(), default=0)

    def path(self, step: int) -> Path:
        """The folder of a step's state."""
        return self.folder / f"checkpoint-{step}"

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a state, see that it is on the disk, give it its name; then remove older ones.

        Args:
            step: that the training resumes after.
            state: tensors and plain values.

        Raises:
            StorageFailed: it cannot be written; the one before stays.
        """
        self.discard()
        try:
            with self._written(step):
                self._write(step, state)
        finally:
            self.discard()
        for old in self._steps():
            if old < step:
                shutil.rmtree(self.path(old), ignore_errors=True)

    def _write(self, step: int, state: Mapping[str, Any]) -> None:
        temporary = self.folder / f"{self.path(step).name}.{os.getpid()}.tmp"
        temporary.mkdir(parents=True)
        with write_stream(temporary / TENSORS) as file:
            torch.save(dict(state), file)
        write_json(temporary / ABOUT, {"step": step, "files": _sizes(temporary)})
        _publish(temporary, self.path(step))

    def discard(self) -> None:
        """Remove what was begun and not finished, by a killed process too: a lock keeps others out."""
        for path in self.folder.glob("checkpoint-*.tmp"):
            if TEMPORARY.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)

    def load(self, step: int) -> dict[str, Any]:
        """A saved state, its tensors on the CPU.

        Raises:
            BadInput: a file is missing, cut off or damaged.
        """
        folder = self.path(step)
        self._check(folder)
        try:
            state: Any = torch.load(folder / TENSORS, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
            why = shorten(str(error), 200)
            raise BadInput(f"{folder / TENSORS} cannot be read ({why}): {_again(folder)}") from error
        if not isinstance(state, dict):
            raise BadInput(self.is_another(step, TypeError(f"{TENSORS} is no dictionary")))
        return state

    def is_another(self, step: int, error: Exception) -> str:
        """Words for a state whose tensors do not fit the model."""
        folder = self.path(step)
        return f"{folder} is no state of this training ({shorten(str(error), 200)}): {_again(folder)}"

    def _check(self, folder: Path) -> None:
        """See that every file is as long as it was, and that the tensors' checksums are right."""
        about = read_json(folder / ABOUT)
        sizes = about.get("files") if isinstance(about, dict) else None
        if not isinstance(sizes, dict) or TENSORS not in sizes:
            raise BadInput(f"{folder / ABOUT} does not say which files there are: {_again(folder)}")
        for name, size in sizes.items():
            found = folder / name
            if not found.is_file() or found.stat().st_size != size:
                raise BadInput(f"{found} is damaged or missing: {_again(folder)}")
        check_torch_file(folder / TENSORS, _again(folder))

    def _steps(self) -> list[int]:
        found = (NAME.fullmatch(path.name) for path in self.folder.glob("checkpoint-*"))
        return sorted(int(match[1]) for match in found if match)

    @contextmanager
    def _written(self, step: int) -> Iterator[None]:
        """What torch and Python say of a full disk, as one error."""
        try:
            with storage_errors(self.path(step)):
                yield
        except RuntimeError as error:  # torch's own writer
            raise StorageFailed(
                f"cannot write {self.path(step)}: {shorten(str(error), 200)}. Make room and run the same "
                f"command again: it goes on from {_words(self.newest())}"
            ) from error


def _words(step: int) -> str:
    return f"step {step}" if step else "the beginning, as no state was saved yet"


def _again(folder: Path) -> str:
    return f"remove {folder} to begin again at step 0"


def _sizes(folder: Path) -> dict[str, Json]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def _publish(temporary: Path, path: Path) -> None:
    """Give a folder its name: after its files are on disk, so that a crash leaves no half of it."""
    for file in temporary.iterdir():
        with file.open("rb") as stream:
            sync_file(stream)
    sync_folder(temporary)
    temporary.replace(path)
    sync_folder(path.parent)
