"""The journal of a decoder's training: kept by the trainer's callbacks, in the main process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from sar_eval.train.journal import Journal


class JournalCallback(TrainerCallback):
    """Begins the journal where the training begins, and draws its page with every state and at the end."""

    def __init__(self, journal: Journal, write_page: Callable[[Path], object]) -> None:
        self._journal, self._write_page = journal, write_page

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Drop what an interrupted run recorded after the state that this one resumes from."""
        self._journal.resume(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Draw the page anew."""
        self._write_page(self._journal.folder)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Draw the page for the last time."""
        self._write_page(self._journal.folder)
