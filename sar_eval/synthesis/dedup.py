"""`synth dedup`: which kept draws of a whole set repeat earlier ones, and the object that says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sar_eval.errors import BadInput
from sar_eval.options import check_choice, check_whole_number
from sar_eval.storage.image_set import REPACKED
from sar_eval.storage.objects import ObjectStore
from sar_eval.storage.set_dedup import (
    METHODS,
    KeptColumn,
    Keys,
    read_kept,
    removal_names,
    removed_by,
    store_removals,
)
from sar_eval.synthesis.keep_first import (
    Pairs,
    Places,
    keep_first,
    repeats_of_equal,
    repeats_of_near_hashes,
)
from sar_eval.synthesis.near_embeddings import check_unit, near_embeddings
from sar_eval.synthesis.near_hashes import MAX_DISTANCE

OWNER = "synth dedup"
LACKING = {
    "pixels": "digests of pixels",
    "phash": "perceptual hashes",
    "embedding": "embeddings: start a set with --embed clip, or use --by phash",
}


@dataclass(frozen=True, slots=True)
class DedupOptions:
    """How repeats are found.

    Attributes:
        by: "pixels", those of the same pixels; "phash", perceptual hashes; "embedding", stored embeddings.
        distance: bits in which the hashes of a draw and one that repeats it may differ.
        similarity: cosine that the embeddings of a draw and one that repeats it have at least.
        device: torch device that compares embeddings.
    """

    by: str = "phash"
    distance: int = 3
    similarity: float = 0.97
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_choice("by", self.by, METHODS, OWNER)
        check_whole_number("distance", self.distance, OWNER, minimum=0, maximum=MAX_DISTANCE)
        if not 0 < self.similarity <= 1:
            raise BadInput(f"similarity {self.similarity} of {OWNER} must be above 0 and at most 1")

    @property
    def facts(self) -> dict[str, str]:
        """What decides which draws repeat others."""
        return {
            "pixels": {},
            "phash": {"distance": str(self.distance)},
            "embedding": {"similarity": repr(self.similarity)},
        }[self.by]


@dataclass(frozen=True, slots=True)
class DedupResult:
    """What was found.

    Attributes:
        kept: draws that the set keeps.
        compared: of these, those that have what is compared and that no method before this one removed.
        without: those that lack it.
        removed: those that repeat others.
        name: of the object that lists them; "" if there are none.
        stale: methods after this one that were used before: what they removed may repeat what is gone now.
    """

    kept: int
    compared: int
    without: int
    removed: int
    name: str
    stale: tuple[str, ...] = ()


def deduplicate(
    store: ObjectStore, options: DedupOptions, progress: Callable[[int, int], None] = lambda done, of: None
) -> DedupResult:
    """Find the kept draws that repeat others, and store their keys in the place of the earlier ones.

    A function of the set and the options alone. Needs some 50 bytes for each kept draw, and as much as all
    embeddings have. Nothing is stored before all is decided: after a stop it starts anew.

    Raises:
        BadInput: no set, no such column, or a damaged manifest.
        StorageFailed: the result cannot be stored.
    """
    if store.exists(REPACKED):
        raise BadInput(f"{store.uri} was repacked and has no manifest: deduplicate the set that it is from")
    column = read_kept(store, options.by, progress)
    without = column.kept - len(column.keys)
    if column.kept and not len(column.keys):
        raise BadInput(f"the manifest of {store.uri} has no {LACKING[options.by]}")
    place = METHODS.index(options.by)
    column = _less(column, removed_by(store, METHODS[:place]))
    repeats = _repeats(column.values, options)
    gone = repeats != np.arange(len(repeats))
    earlier = removal_names(store, [options.by])
    name = store_removals(store, options.by, column.keys[gone], column.keys[repeats[gone]], options.facts)
    changed = earlier != [name] if name else bool(earlier)
    later = [method for method in METHODS[place + 1 :] if changed and removal_names(store, [method])]
    return DedupResult(column.kept, len(repeats), without, int(gone.sum()), name, tuple(later))


def restore(store: ObjectStore, method: str) -> int:
    """Delete what a method removed, so that its draws are back; returns how many objects that were."""
    names = removal_names(store, [method])
    store.delete(names)
    return len(names)


def _less(column: KeptColumn, removed: Keys) -> KeptColumn:
    """Without the draws that an earlier method removed."""
    if not len(removed):
        return column
    stays = ~np.isin(column.keys, removed, assume_unique=True)
    return KeptColumn(column.keys[stays], column.values[stays], column.kept)


def _repeats(values: NDArray[Any], options: DedupOptions) -> Places:
    """For each value, the place of the one that it repeats, its own if none."""
    if options.by == "pixels":
        return repeats_of_equal(values)
    if options.by == "phash":
        return repeats_of_near_hashes(values.astype(np.uint64, copy=False), options.distance)
    embeddings = values.astype(np.float16, copy=False)
    check_unit(embeddings)

    def find_pairs(among: Places | slice) -> Pairs:
        places = np.arange(len(embeddings))[among]
        for left, right in near_embeddings(embeddings[among], options.similarity, options.device):
            yield places[left], places[right]

    return keep_first(np.arange(len(embeddings)), find_pairs)
