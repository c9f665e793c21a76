"""Suites of many millions of prompts: read from their Parquet file as they are needed, never as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sar_eval.errors import BadInput
from sar_eval.storage.prompt_table import LazyPrompts, file_digest
from sar_eval.storage.row_groups import RowGroups, UnreadableRow
from sar_eval.storage.run_folder import RunFolder
from sar_eval.suites.prompts import make_prompt
from sar_eval.suites.sources import Assumptions, parquet_columns
from sar_eval.types import Prompt

STEP = 10_000  # prompts that an iteration holds


class StreamedPrompts(LazyPrompts):
    """The prompts of a Parquet file as a sequence; memory is that of some thousand rows."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            BadInput: it is no Parquet file with prompts.
        """
        self.path = path
        self._rows = RowGroups(path, parquet_columns(path))

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Prompt]:
        for start in range(0, len(self), STEP):
            yield from self._range(start, min(len(self), start + STEP))

    def _range(self, start: int, stop: int) -> Iterator[Prompt]:
        """Prompts by row; each is checked as those of a small suite are, when it is read."""
        assumed = Assumptions()
        for index, row in enumerate(self._rows.rows(start, stop), start):
            if isinstance(row, UnreadableRow):
                raise BadInput(f"{self.path}:{index + 1}: {row.why}")
            yield make_prompt(row, index, index + 1, self.path, assumed)


def stored_prompts(folder: RunFolder) -> Sequence[Prompt]:
    """The prompts of a run: its own copy, or the large file that it was begun with.

    Raises:
        BadInput: they are not what the run was begun with.
    """
    stored = folder.read_manifest().prompts
    if stored is None or not stored.source:
        return folder.prompts()
    path = Path(stored.source)
    if file_digest(path) != stored.digest:
        raise BadInput(
            f"{path} is not the prompt file that the run in {folder.path} was begun with: restore it"
        )
    return StreamedPrompts(path)
