"""What a run folder holds, block by block: what is drawn, what is judged, and what is missing and why.

Blocks that are whole are known from the footers of their parts; only the rows of the others are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sar_eval.errors import BadInput
from sar_eval.spec import RunSpec
from sar_eval.stages.resume import (
    check_blocks,
    check_judge,
    check_keys,
    check_spec,
    is_tied,
    open_blocks,
    spec_digests,
)
from sar_eval.storage.parts import Part
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import PartFacts, verdict_from_row
from sar_eval.types import Verdict

NOT_DRAWN, NOT_JUDGED = "not generated", "not judged"
VERDICT_COLUMNS = ("key", "judge", "judge_version", "score", "passed", "reason", "evidence", "error")


@dataclass(frozen=True, slots=True)
class BlockState:
    """Counts of one block, and its draws without a result: key and reason."""

    generated: int
    judged: int
    problems: dict[str, str] = field(default_factory=dict)


class Inventory:
    """The parts of a run, checked to be this run's."""

    def __init__(self, spec: RunSpec, folder: RunFolder) -> None:
        """Read the footers.

        Raises:
            BadInput: prompts or parts are damaged, or verdicts were given under other options.
            SpecMismatch: generations are of another run.
        """
        self.spec, self.folder = spec, folder
        self.blocks = open_blocks(spec, folder)
        self.generations = folder.generations
        self.verdicts = folder.verdicts(spec.verdict_table) if spec.judge else None
        self.drawn = self.generations.parts()
        self.judged = self.verdicts.parts() if self.verdicts else {}
        check_blocks([*self.drawn.values(), *self.judged.values()], self.blocks)
        digests = spec_digests(spec, folder)
        self.facts = {number: self.generations.facts(part) for number, part in self.drawn.items()}
        for number, facts in self.facts.items():
            check_spec(self.drawn[number], facts, digests)
        self._verdict_facts = {
            number: self._facts_of_verdicts(part) for number, part in self.judged.items()
        }

    def state(self, block: int) -> BlockState:
        """What a block has and lacks."""
        size = self.blocks.draws_in(block)
        if block not in self.drawn:
            return BlockState(0, 0, dict.fromkeys(self.blocks.keys(block), NOT_DRAWN))
        if self._is_whole(block):
            return BlockState(size, size if self.verdicts else 0)
        problems = self._problems(block)
        failed = sum(error is not None for error in self._errors(block).values())
        unjudged = len(problems) if self.verdicts else 0
        return BlockState(size - failed, size - unjudged if self.verdicts else 0, problems)

    def count(self, name: str) -> int:
        """The sum of a column over all generations (see `PartFacts.sums`)."""
        return sum(facts.sums.get(name, 0) for facts in self.facts.values())

    @property
    def devices(self) -> list[str]:
        """Where images were drawn, as "device, wave size"."""
        return sorted({device for facts in self.facts.values() for device in facts.devices})

    def _is_whole(self, block: int) -> bool:
        size = self.blocks.draws_in(block)
        if not _all_done(self.facts[block], size):
            return False
        return self.verdicts is None or (
            block in self.judged
            and _all_done(self._verdict_facts[block], size)
            and is_tied(self.judged[block], self._verdict_facts[block], self.drawn[block])
        )

    def _facts_of_verdicts(self, part: Part) -> PartFacts:
        table = self.folder.verdicts(self.spec.verdict_table)
        facts = table.facts(part)
        check_judge(self.spec, table, facts)
        return facts

    def check_block(self, block: int) -> None:
        """Read the rows of a block, which the footers otherwise stand for.

        Raises:
            BadInput: they are rows of other draws, a score is no number, or a footer says otherwise.
        """
        self._errors(block)
        self._verdict_values(block, ("key", "score"))
        self.generations.check_facts(self.drawn[block])
        if self.verdicts is not None and block in self.judged:
            self.verdicts.check_facts(self.judged[block])

    def _errors(self, block: int) -> dict[str, str | None]:
        """Of each drawn image of the block, why it has none, or None if it has one."""
        part, expected = self.drawn[block], self.blocks.keys(block)
        rows = self.generations.read(part.path, ["key", "error"]).to_pylist()
        check_keys(part, [row["key"] for row in rows], expected)
        return {row["key"]: row["error"] for row in rows}

    def _problems(self, block: int) -> dict[str, str]:
        """Why draws of the block have no result, by key."""
        errors = self._errors(block)
        if self.verdicts is None:
            return {key: error for key, error in errors.items() if error is not None}
        verdicts = {verdict.key: verdict.error for verdict in self.verdicts_of(block)}
        found = {key: errors[key] or verdicts.get(key, NOT_JUDGED) for key in errors}
        return {key: why for key, why in found.items() if why is not None}

    def verdicts_of(self, block: int) -> Iterator[Verdict]:
        """The block's verdicts on images that are stored.

        Raises:
            BadInput: a part is damaged, holds verdicts on other draws, or a score that is no number.
        """
        for values in self._verdict_values(block, VERDICT_COLUMNS):
            yield verdict_from_row(dict(zip(VERDICT_COLUMNS, values, strict=True)))

    def scores_of(self, block: int) -> Iterator[tuple[str, float | None]]:
        """Key and score of the block's verdicts (see `verdicts_of`): of a whole block from the footer."""
        facts = self._verdict_facts.get(block) if block in self.drawn else None
        if facts is None or not self._is_whole(block) or len(facts.scores) != facts.rows:
            return self._verdict_values(block, ("key", "score"))
        keys = self.blocks.keys(block)
        _check_scores(self.judged[block], keys, facts.scores)
        return zip(keys, facts.scores, strict=True)

    def _verdict_values(self, block: int, columns: tuple[str, ...]) -> Iterator[Any]:
        """Values of the columns, of which the first is the key, row by row."""
        if block not in self.judged or block not in self.drawn or self.verdicts is None:
            return iter(())
        part = self.judged[block]
        found = self.verdicts.read(part.path, columns).to_pydict()
        check_keys(part, found["key"], self.blocks.keys(block))
        _check_scores(part, found["key"], found["score"])
        rows = zip(*(found[name] for name in columns), strict=True)
        if self._is_whole(block):
            return rows
        valid = self._valid_keys(block)
        return (row for row in rows if row[0] in valid)

    def _valid_keys(self, block: int) -> set[str]:
        """Keys of the verdicts that are on the images that are stored now."""
        errors = self._errors(block)
        digests = self.generations.image_digests(self.drawn[block], len(errors))
        images = {
            key: digest for (key, error), digest in zip(errors.items(), digests, strict=True) if not error
        }
        if self.verdicts is None:
            return set()
        names = ["key", "image_digest"]
        judged = self.verdicts.read(self.judged[block].path, names).to_pylist()
        return {row["key"] for row in judged if images.get(row["key"], "") == row["image_digest"]}


class StoredVerdicts(Mapping[str, Verdict]):
    """A run's verdicts by draw key, read block by block: iterating holds one block in memory.

    Looking one up by its key reads them all.
    """

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self.scores())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, key: str) -> Verdict:
        return self._by_key[key]

    def items(self) -> Any:
        """Keys and verdicts."""
        return ((v.key, v) for block in self.inventory.judged for v in self.inventory.verdicts_of(block))

    def values(self) -> Any:
        """The verdicts."""
        return (verdict for _, verdict in self.items())

    def scores(self) -> Iterator[tuple[str, float | None]]:
        """Keys and scores, without evidence: several times faster than `items`."""
        return (found for block in self.inventory.judged for found in self.inventory.scores_of(block))

    @cached_property
    def _by_key(self) -> dict[str, Verdict]:
        return dict(self.items())


def _all_done(facts: PartFacts, size: int) -> bool:
    return facts.errors == 0 and facts.rows == size


def _check_scores(part: Part, keys: Sequence[str], scores: Sequence[float | None]) -> None:
    for key, score in zip(keys, scores, strict=True):
        if score is not None and not math.isfinite(score):
            raise BadInput(f"{part.path}: the score of {key} is {score}: remove the part and judge again")
