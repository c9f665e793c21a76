"""Which blocks of a set are committed, by names alone: cheap enough to ask again and again."""

from __future__ import annotations

from sar_eval.storage.image_set import (
    BLOCKS_PER_GROUP,
    LEDGER_NAME,
    RECORD_NAME,
    group_folders,
    record_name,
)
from sar_eval.storage.objects import ObjectStore


class CommittedBlocks:
    """Looks for done-records and ledgers; groups that were found whole are not listed again.

    Args:
        store: of the set.
        blocks: number of blocks of the set.
    """

    def __init__(self, store: ObjectStore, blocks: int) -> None:
        self.store, self.blocks = store, blocks
        self._whole: set[int] = set()
        self._found: set[int] = set()

    def finished(self) -> set[int]:
        """Numbers of the blocks that have a done-record; the set grows with later calls."""
        for info in self.store.list("ledger/"):
            if match := LEDGER_NAME.fullmatch(info.name):
                self._add_group(int(match[1]))
        for group, name in group_folders(self.store).items():
            if group not in self._whole:
                self._list(name)
        return self._found

    def has(self, block: int) -> bool:
        """Whether a block has a done-record by now."""
        return block in self._found or self.store.exists(record_name(block, 0))

    def _list(self, folder: str) -> None:
        group = int(folder)
        matches = (RECORD_NAME.fullmatch(info.name) for info in self.store.list(f"done/{folder}/"))
        found = {int(match[2]) for match in matches if match}
        self._found |= found
        if found.issuperset(self._numbers(group)):
            self._whole.add(group)

    def _add_group(self, group: int) -> None:
        if group not in self._whole:
            self._whole.add(group)
            self._found.update(self._numbers(group))

    def _numbers(self, group: int) -> range:
        first = group * BLOCKS_PER_GROUP
        return range(first, min(self.blocks, first + BLOCKS_PER_GROUP))
