"""The states that a training run resumes from: one file a step, whole or absent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from sar_eval.documents import read_json, shorten
from sar_eval.errors import BadInput, StorageFailed
from sar_eval.resume_rules import refuse_others
from sar_eval.storage.files import remove_own_temporaries, write_json, write_stream
from sar_eval.train.state import AGAIN, check_torch_file
from sar_eval.types import Json

KEPT = 2  # states; should the newest be damaged, there is one before it
NAME = re.compile(r"step-(\d{6,})\.pt")


class TrainingState:
    """The folder `state` of a training run."""

    def __init__(self, out: Path) -> None:
        self.folder, self.settings_path = out / "state", out / "settings.json"

    def newest(self) -> int:
        """The last step that was saved, 0 for none."""
        return max(self._steps(), default=0)

    def _steps(self) -> list[int]:
        found = (NAME.fullmatch(path.name) for path in self.folder.glob("step-*.pt"))
        return sorted(int(match[1]) for match in found if match)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}.pt"

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a state aside and rename it when it is whole; older ones are removed.

        Raises:
            StorageFailed: it cannot be written; earlier states stay.
        """
        remove_own_temporaries(self.folder, NAME)  # of a process that was killed here
        try:
            with write_stream(self._path(step)) as file:
                torch.save(dict(state), file)
        except RuntimeError as error:  # torch's own writer, where its file cannot take more
            raise StorageFailed(
                f"cannot write {self._path(step)}: {error}. Make room and run the same command again: it "
                f"goes on from step {self.newest()}"
            ) from error
        for old in self._steps()[:-KEPT]:
            self._path(old).unlink(missing_ok=True)

    def load(self, step: int, device: str) -> dict[str, Any]:
        """A saved state, its tensors on a device.

        Raises:
            BadInput: the file is damaged.
        """
        path = self._path(step)
        check_torch_file(path)
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
            raise BadInput(f"{path} cannot be read ({shorten(str(error), 200)}): {AGAIN}") from error
        return state

    @contextmanager
    def loaded(self, step: int, device: str) -> Iterator[dict[str, Any]]:
        """A saved state, for its user to put into place within.

        Raises:
            BadInput: the file is damaged, or its tensors fit no policy of this training.
        """
        state = self.load(step, device)
        try:
            yield state
        except (RuntimeError, LookupError, TypeError, ValueError) as error:
            why = shorten(str(error), 200)
            raise BadInput(f"{self._path(step)} is no state of this training ({why}): {AGAIN}") from error

    def check_settings(self, settings: Mapping[str, Json], may_change: Sequence[str] = ()) -> None:
        """Hold the run's settings against those that it began with, and write them.

        Args:
            settings: tables of tables.
            may_change: dotted names of those that may be others now; `*` is any part.

        Raises:
            BadInput: naming the first that differs, and both values.
        """
        if self.compare_settings(settings, may_change) != settings:
            write_json(self.settings_path, settings)

    def compare_settings(self, settings: Mapping[str, Json], may_change: Sequence[str] = ()) -> Json:
        """Hold the run's settings against those that it began with, if it did, and return those.

        Raises:
            BadInput: naming the first that differs, and both values.
        """
        if not self.settings_path.exists():
            return None
        stored = read_json(self.settings_path)
        if not isinstance(stored, dict):
            raise BadInput(f"{self.settings_path} is no file of a training's settings: {AGAIN}")
        refuse_others(stored, settings, self.settings_path, may_change)
        return stored
