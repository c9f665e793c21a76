"""What a `fetch` would download: which files, how large, under which licence, and what is there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sar_eval import discover
from sar_eval.errors import BadInput, StorageFailed
from sar_eval.scoring import split_variant, variants_of
from sar_eval.stages.fetch import Progress, fetch
from sar_eval.tensors.hub import fetch_folder
from sar_eval.tensors.published_weights import (
    FILES_BY_BENCHMARK,
    FOR_SCORERS,
    WEIGHTS,
    cache_folder,
    find_weights,
)
from sar_eval.tensors.remote_file import HubFolder, RemoteFile, in_words

SCORERS = "scorers"
LARGE = 5e9  # bytes that a person is asked about


@dataclass(frozen=True, slots=True)
class Part:
    """A file, or a folder of the hub, that belongs to what was asked for.

    Attributes:
        name: of the weights, "" for a benchmark's files.
        what: its declaration.
        path: in the cache; None in the hub's cache.
        missing: bytes still to come; 0 if it is there, or its size is unknown.
        is_there: whether it is complete.
    """

    name: str
    what: RemoteFile | HubFolder
    path: Path | None
    missing: int
    is_there: bool

    @property
    def facts(self) -> str:
        """Size and licence in words."""
        exact = isinstance(self.what, RemoteFile) and self.what.exact
        return f"{in_words(self.what.size, exact)}; licence: {self.what.licence or 'not known'}"


def plan(what: str, names: Sequence[str]) -> list[Part]:
    """What belongs to a benchmark, or to scorers.

    Args:
        what: "scorers", or a benchmark with weights of its own.
        names: of scorers (`hps`, `clip:hessel`) or of weights (`hps-v2.1`); without any, all.

    Raises:
        BadInput: nothing is known of that name.
    """
    if what == SCORERS:
        wanted = [weights for name in names for weights in weights_of(name)] or FOR_SCORERS
        return [part for name in dict.fromkeys(wanted) for part in _parts(name)]
    if what not in FILES_BY_BENCHMARK:
        raise BadInput(f"nothing to fetch for {what!r}: {', '.join((*FILES_BY_BENCHMARK, SCORERS))}")
    if names:
        raise BadInput(f"fetch {what} gets all of its files: leave out {', '.join(names)}")
    return [_part("", file) for file in FILES_BY_BENCHMARK[what]]


def weights_of(name: str) -> tuple[str, ...]:
    """The names of weights behind a name: of weights, of a scorer (its default form), or of both.

    Raises:
        UnknownName: it is neither.
        BadInput: a scorer that is none, or that needs weights which nobody can fetch.
    """
    own = (name,) if name in FOR_SCORERS else ()
    scorer, variant = split_variant(name)
    if not discover.is_file(name) and scorer not in (known := discover.names(SCORERS)):
        if own:
            return own
        raise discover.unknown("scorer or weights", name, list({*known, *FOR_SCORERS}))
    variants = variants_of(scorer)
    if variant and variant not in variants:
        raise discover.unknown(f"variant of scorer {scorer!r},", variant, [v for v in variants if v])
    needed = variants[variant or next(iter(variants))].weights
    if strange := [weights for weights in needed if weights not in FOR_SCORERS]:
        raise BadInput(
            f"scorer {name}: `fetch` knows no weights {strange[0]!r}; leave them out of its facts"
        )
    return tuple(dict.fromkeys((*own, *needed)))


def download(parts: Sequence[Part], progress: Progress) -> Iterator[tuple[Part, Path]]:
    """Download what is missing, one after the other; yields each part with its path.

    Raises:
        StorageFailed: the disk has no room for what is missing.
        BadInput, Incomplete: see `fetch`.
    """
    _check_room(parts)
    for part in parts:
        if isinstance(part.what, HubFolder):
            yield part, fetch_folder(part.what)
        else:
            yield part, fetch((part.what,), progress=progress)[0]


def _parts(name: str) -> Iterator[Part]:
    weights = WEIGHTS[name]
    if isinstance(weights, HubFolder):
        is_there = _is_found(name)
        yield Part(name, weights, None, 0 if is_there else weights.size, is_there)
        return
    yield from (_part(name, file) for file in weights)


def _part(name: str, file: RemoteFile) -> Part:
    path = cache_folder() / file.name
    begun = path.with_name(f"{path.name}.part")
    have = begun.stat().st_size if begun.is_file() else 0
    is_there = path.is_file()
    return Part(name, file, path, 0 if is_there else max(0, file.size - have), is_there)


def _is_found(name: str) -> bool:
    try:
        find_weights(name)
    except BadInput:
        return False
    return True


def _check_room(parts: Sequence[Part]) -> None:
    """What goes to the hub's cache counts, too: it is mostly on the same disk."""
    missing = sum(part.missing for part in parts)
    folder = cache_folder()
    free = shutil.disk_usage(
        next(path for path in (folder, *folder.resolve().parents) if path.exists())
    ).free
    if missing > free:
        raise StorageFailed(
            f"{in_words(missing)} are to come, and {folder} has {in_words(free)} free: make room, or set "
            "SAR_EVAL_CACHE to a folder on another disk"
        )
