"""Hold every byte of a set against the names and records that committed it, and take back what is damaged.

An object's name carries the digest of its bytes, and its block's record names it with its size. So what
somebody deleted, cut or changed is found, and a block whose record is removed is drawn again by the next
start, to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from sar_eval.errors import BadInput
from sar_eval.storage.image_set import (
    BLOCKS_PER_GROUP,
    OBJECT_NAME,
    OTHER_BYTES,
    PROMPT_INDEX,
    RECORD_NAME,
    SPEC,
    ImageSet,
    digest_of,
    record_name,
)
from sar_eval.storage.objects import ObjectMissing, ObjectStore
from sar_eval.storage.prompt_source import unpack_index
from sar_eval.storage.set_groups import Group, Problem, group_numbers, listed, read_group
from sar_eval.storage.set_reader import REMOVAL, REMOVED, SetReader
from sar_eval.synthesis.spec import PromptFacts, SetSpec

READERS = 8  # objects that are in memory at a time; each may have a hundred megabytes
MISSING = "it is missing"


@dataclass(slots=True)
class Verified:
    """What was looked at, and what is wrong.

    `size` is in bytes of the objects; `repacked` says that the set is a copy by `synth repack`, which has
    no blocks and is made anew instead.
    """

    blocks: int = 0
    objects: int = 0
    size: int = 0
    problems: list[Problem] = field(default_factory=list)
    repacked: bool = False

    @property
    def blocks_hurt(self) -> list[int]:
        """Numbers of the blocks that have to be drawn again."""
        return sorted({problem.block for problem in self.problems if problem.block is not None})


@dataclass(frozen=True, slots=True)
class _Expected:
    """An object that something names, with its bytes if that is known."""

    name: str
    size: int | None
    block: int | None = None


def verify(
    image_set: ImageSet,
    progress: Callable[[int, int], None],
    quick: bool = False,
) -> Verified:
    """Look at every committed block, or every object of a repacked set, and at what `synth dedup` wrote.

    Args:
        image_set: to look at.
        progress: told how many of how many groups of blocks are done.
        quick: look at names and sizes alone, and read no data object.

    Raises:
        BadInput: there is no set, or the store cannot be read.
    """
    reader = SetReader(image_set.store)
    spec = SetSpec.from_json(reader.spec, image_set.store.where(SPEC))  # which refuses a changed one
    found = Verified(repacked=reader.repacked is not None)
    found.problems += _of_index(image_set, spec)
    numbers = [] if reader.repacked else group_numbers(image_set)
    for count, number in enumerate(numbers, 1):
        group = read_group(image_set, number)
        found.blocks += len(group.standing)
        found.problems += group.problems
        _look_at(found, image_set.store, _named(group), _sizes(image_set, number), quick)
        progress(count, len(numbers))
    if reader.repacked:
        parts = [_Expected(part.name, part.size) for part in reader.parts()]
        _look_at(found, image_set.store, parts, _listed(image_set.store, "data/"), quick)
    removals = _listed(image_set.store, REMOVED)
    named = [_Expected(name, None) for name in removals if REMOVAL.fullmatch(name)]
    _look_at(found, image_set.store, named, removals, quick)
    return found


def repair(image_set: ImageSet, problems: Sequence[Problem]) -> list[int]:
    """Take back the blocks with problems, so that the next start draws them again; returns their numbers.

    Damaged ledgers and removals of `synth dedup` go: a start and `synth dedup` make them again. Nothing
    else is lost, also if this is interrupted: what only a ledger knows of other blocks is written as
    done-records before that ledger goes, and problems stay visible until their block is gone.

    Raises:
        StorageFailed: no permission to write or to delete.
    """
    made_again = {problem.name for problem in problems if problem.block is None}
    blocks = {problem.block for problem in problems if problem.block is not None}
    for number in sorted({block // BLOCKS_PER_GROUP for block in blocks}):
        made_again |= _take_back(image_set, read_group(image_set, number), blocks)
    objects = {problem.name for problem in problems if OBJECT_NAME.fullmatch(problem.name)}
    image_set.store.delete(sorted(made_again | objects))
    return sorted(blocks)


def _of_index(image_set: ImageSet, spec: SetSpec) -> Iterator[Problem]:
    """What is wrong with the index of the prompt file; a missing one is made by the next start."""
    data = image_set.prompt_index()
    if data is None:
        return
    try:
        facts, _ = unpack_index(data, "it")
    except BadInput as error:
        yield Problem(PROMPT_INDEX, str(error))
        return
    if PromptFacts(facts.size, facts.digest, facts.rows) != spec.prompts:
        yield Problem(PROMPT_INDEX, "it is that of another prompt file")


def _named(group: Group) -> list[_Expected]:
    return [
        _Expected(name, record.data_bytes if name == record.data else record.manifest_bytes, record.block)
        for name, record in group.named().items()
    ]


def _sizes(image_set: ImageSet, number: int) -> dict[str, int]:
    return {info.name: info.size for _, info in listed(image_set, number)}


def _listed(store: ObjectStore, prefix: str) -> dict[str, int]:
    return {info.name: info.size for info in store.list(prefix)}


def _look_at(
    found: Verified,
    store: ObjectStore,
    expected: Sequence[_Expected],
    sizes: Mapping[str, int],
    quick: bool,
) -> None:
    """Compare objects with what names them.

    Args:
        found: what is wrong is added to it.
        store: of the set.
        expected: the objects.
        sizes: in bytes, of those that a listing has.
        quick: whether bytes are not looked at.
    """
    found.objects += len(expected)
    found.size += sum(sizes.get(each.name, 0) for each in expected)
    wrong = [problem for each in expected if (problem := _wrong_size(store, each, sizes))]
    found.problems += wrong
    if not quick:
        known = {problem.name for problem in wrong}
        found.problems += _wrong_bytes(store, [each for each in expected if each.name not in known])


def _wrong_size(store: ObjectStore, expected: _Expected, sizes: Mapping[str, int]) -> Problem | None:
    name = expected.name
    if name not in sizes:  # a listing may lag behind
        return None if store.exists(name) else Problem(name, MISSING, expected.block)
    if expected.size in (None, sizes[name]):
        return None
    why = f"it has {sizes[name]:,} bytes, its record says {expected.size:,}"
    return Problem(name, why, expected.block)


def _wrong_bytes(store: ObjectStore, expected: Sequence[_Expected]) -> Iterator[Problem]:
    def wrong(each: _Expected) -> str:
        try:
            good = f"-{digest_of(store.read(each.name))}." in each.name
        except ObjectMissing:
            return MISSING
        except BadInput as error:
            return str(error)
        return "" if good else OTHER_BYTES

    with ThreadPoolExecutor(READERS, thread_name_prefix="verify") as pool:
        for each, why in zip(expected, pool.map(wrong, expected), strict=True):
            if why:
                yield Problem(each.name, why, each.block)


def _take_back(image_set: ImageSet, group: Group, blocks: set[int]) -> set[str]:
    """Remove the done-records of some blocks of a group; returns the ledgers that have to go as well."""
    stale = {
        name for name, lines in group.ledgers.items() if any(record.block in blocks for record, _ in lines)
    }
    for name in sorted(stale):
        for record, line in group.ledgers[name]:
            if record.block not in blocks:
                image_set.store.create(record_name(record.block, record.attempt), line)
    gone = [
        name for name in group.done if (match := RECORD_NAME.fullmatch(name)) and int(match[2]) in blocks
    ]
    image_set.store.delete(gone)
    return stale
