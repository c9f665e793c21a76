"""Stage: read every byte of a run and say what is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sar_eval.errors import SarEvalError
from sar_eval.spec import RunSpec
from sar_eval.stages.inventory import Inventory
from sar_eval.storage.files import storage_errors
from sar_eval.storage.parts import PartTable
from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import suite_digest


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification found.

    Attributes:
        parts, bytes: how many parts were read, and their size.
        damaged: parts whose bytes do not match the digest in their name.
        problems: what else is wrong: prompts, rows of other draws, a summary that was changed.
    """

    parts: int
    bytes: int
    damaged: tuple[Path, ...]
    problems: tuple[str, ...]

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.damaged or self.problems)


def verify(spec: RunSpec, folder: RunFolder, *, repair: bool = False) -> Verification:
    """Read all parts of a run, of every judge, and check them against their digests.

    Args:
        spec: of the run.
        folder: its folder (lock held, with `repair`).
        repair: remove damaged parts, so that the command that wrote them makes them again.

    Raises:
        StorageFailed: a damaged part cannot be removed.
    """
    paths, damaged = [], []
    for table in _tables(folder):
        paths += table.paths()
        damaged += table.damaged_parts()
    size = sum(path.stat().st_size for path in paths)
    problems = () if damaged else tuple(_problems(spec, folder))
    if repair:
        for path in damaged:
            with storage_errors(path):
                path.unlink()
    return Verification(len(paths), size, tuple(damaged), problems)


def _tables(folder: RunFolder) -> Iterator[PartTable]:
    yield folder.generations
    for judge in sorted((folder.path / "verdicts").glob("*")):
        if judge.is_dir():
            yield folder.verdicts(judge.name)


def _problems(spec: RunSpec, folder: RunFolder) -> Iterator[str]:
    """What is wrong with a run whose parts are all as they were written."""
    try:
        inventory = Inventory(spec, folder)
        for block in inventory.drawn:
            inventory.check_block(block)
        if not folder.prompt_source and suite_digest(inventory.blocks.prompts) != spec.suite_digest:
            yield f"{folder.path / 'prompts.parquet'} holds other prompts than the run was begun with"
        if (folder.path / "summary.json").exists():
            folder.read_summary()
    except SarEvalError as error:
        yield str(error)
