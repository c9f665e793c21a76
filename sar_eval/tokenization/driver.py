"""Begin a tokenization or go on with it, run its blocks, and write its manifest at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from sar_eval.errors import BadInput, Incomplete
from sar_eval.runtime.runtimes import Runtime
from sar_eval.storage.objects import PROBE, check_lasting, open_store
from sar_eval.storage.token_folder import (
    PLAN,
    SHARD_FORMAT,
    SPEC,
    BlockFigures,
    TokenFolder,
    check_finished,
    check_shards,
    plan_bytes,
    shard_name,
)
from sar_eval.tokenization.block import TokenizeTask
from sar_eval.tokenization.encoder import CodeEncoder
from sar_eval.tokenization.options import TokenizeOptions
from sar_eval.tokenization.places import blocks_of, open_sources, pinned
from sar_eval.tokenization.reasons import FAULTS
from sar_eval.tokenization.sources.source import Source
from sar_eval.tokenization.spec import StoredSpec, TokenizeSpec
from sar_eval.types import Json

Progress = Callable[[int, int, int], None]  # blocks done, all of them, rows so far
OWN = (SPEC, PLAN)  # of a driver that began at the same time, or was killed
EXAMPLES = 5  # rejected pictures that are named at the end


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeRequest:
    """What is asked for; `batch_size` may change when it is asked for again."""

    places: Sequence[str]
    tokenizer: Path
    out: str
    options: TokenizeOptions = field(default_factory=TokenizeOptions)
    batch_size: int = 64


@dataclass(frozen=True, slots=True)
class Tokenized:
    """What came of it: rows, tokens, captions, and how many pictures were left out, by reason.

    Attributes:
        examples: the first of these, for messages.
        notes: what was assumed of tables of captions, for messages.
    """

    rows: int
    tokens: int
    captions: int
    rejected: dict[str, int]
    examples: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def faults(self) -> int:
        """Pictures that are damaged or lack something, those left out on request not counted."""
        return sum(number for reason, number in self.rejected.items() if reason in FAULTS)


def tokenize(
    request: TokenizeRequest,
    runtime: Runtime,
    progress: Progress = lambda done, blocks, rows: None,
) -> Tokenized:
    """Encode the pictures of some places to token shards; goes on where an earlier call was stopped.

    Raises:
        BadInput: tokenizer, places or options cannot be used, or no picture was left.
        SpecMismatch: the folder was begun with other settings, or the pictures have changed since.
        StorageFailed: a shard cannot be stored; those before it stay.
        Incomplete: blocks failed more often than they are tried.
    """
    begun = begin(request)
    spec, folder = begun.spec, begun.folder
    if folder.manifest() is None:
        readers = tuple(source.without_listing() for source in begun.sources)
        _run(TokenizeTask(folder.store.uri, spec, readers, request.batch_size), folder, runtime, progress)
        _finish(spec, folder)
    check_finished(folder.store)
    return _result(folder, begun.notes)


@dataclass(frozen=True, slots=True)
class Begun:
    """What is to be done, where, and from what; `notes` say what was assumed of tables."""

    spec: TokenizeSpec
    folder: TokenFolder
    sources: list[Source]
    notes: tuple[str, ...]


def begin(request: TokenizeRequest) -> Begun:
    """Begin, or find again what was begun.

    Raises:
        BadInput, SpecMismatch: see `tokenize`.
    """
    encoder = CodeEncoder(request.tokenizer)
    request.options.check_patch(*encoder.multiples)
    check_lasting(request.out)
    folder = TokenFolder(open_store(request.out if "://" in request.out else Path(request.out).absolute()))
    stored = _stored(folder)
    places = tuple(map(str, request.places))
    found = _resolve(places, request, encoder.metadata, stored)
    notes: list[str] = []
    sources = open_sources(found.pinned, request.options, notes)
    plan, digest, blocks = plan_bytes(blocks_of(sources, request.options.block_pictures))
    spec = replace(found, plan=digest, blocks=blocks)
    if stored is None:
        _check_empty(folder)
        folder.store.check_writable()
        stored = StoredSpec.read(folder.begin(spec.to_json()), folder.store.where(SPEC))
    spec.check_same(stored, request.out, lambda: folder.first_change(plan))
    folder.keep_plan(plan)
    return Begun(spec, folder, sources, tuple(notes))


def _stored(folder: TokenFolder) -> StoredSpec | None:
    found = folder.spec()
    return None if found is None else StoredSpec.read(found, folder.store.where(SPEC))


def _resolve(
    places: tuple[str, ...], request: TokenizeRequest, metadata: dict[str, str], stored: StoredSpec | None
) -> TokenizeSpec:
    """With datasets of the hub at the commits where they were when this was begun."""
    absolute = tuple(place if "://" in place else str(Path(place).absolute()) for place in places)
    if stored and stored.places == absolute and len(stored.pinned) == len(absolute):
        at = stored.pinned
    else:
        at = tuple(map(pinned, absolute))
    return TokenizeSpec(absolute, at, request.tokenizer.absolute(), request.options, metadata, "", 0)


def _check_empty(folder: TokenFolder) -> None:
    """Refuse a folder with anything in it: a reader could not tell its files from ours."""
    names = (info.name for info in folder.store.list("") if not info.name.startswith(PROBE))
    there = next((name for name in names if name not in OWN), None)
    if there is not None:
        raise BadInput(f"{folder.store.uri} already has {there}: name an empty folder with --out")


def _run(task: TokenizeTask, folder: TokenFolder, runtime: Runtime, progress: Progress) -> None:
    done, blocks = folder.done(), task.spec.blocks
    number, rows, failed = len(done), 0, dict[int, str]()
    progress(number, blocks, rows)
    with closing(runtime.run(task, (block for block in range(blocks) if block not in done))) as results:
        for result in results:
            if result.error is not None:
                failed[result.block] = result.error
                continue
            number, rows = number + 1, rows + result.result.rows
            progress(number, blocks, rows)
    if failed:
        block, why = min(failed.items())
        raise Incomplete(
            f"{len(failed)} of {blocks} blocks failed; block {block}: {why}. Finished blocks are stored: "
            "mend this and run the same command again to go on"
        )


def _finish(spec: TokenizeSpec, folder: TokenFolder) -> None:
    found = list(folder.figures())
    if len(found) < spec.blocks:
        raise Incomplete(f"{spec.blocks - len(found)} of {spec.blocks} blocks are missing: run this again")
    check_shards(folder.store, {shard_name(each.block): each.bytes for each in found if each.rows})
    rejected = _added(found, "rejected")
    if not any(figures.rows for figures in found):
        reasons = ", ".join(f"{number} {reason}" for reason, number in rejected.items())
        examples = "".join(f"; {line}" for line in _examples(folder)[:1])
        raise BadInput(f"no picture was left to train on ({reasons or 'there was none'}){examples}")
    folder.finish(
        {
            "format": SHARD_FORMAT,
            "rows": sum(figures.rows for figures in found),
            "tokens": sum(figures.tokens for figures in found),
            "captions": sum(figures.captions for figures in found),
            "sizes": _added(found, "sizes"),
            "rejected": rejected,
            **spec.to_json(),
            "shards": [_shard(figures) for figures in found if figures.rows],
        }
    )


def _shard(figures: BlockFigures) -> dict[str, Json]:
    return {
        "name": shard_name(figures.block),
        "rows": figures.rows,
        "tokens": figures.tokens,
        "bytes": figures.bytes,
        "digest": figures.digest,
    }


def _added(found: Sequence[BlockFigures], name: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for figures in found:
        total.update(getattr(figures, name))
    return dict(sorted(total.items()))


def _examples(folder: TokenFolder) -> list[str]:
    return [
        f"{line.key}: {line.reason}{line.detail and f' ({line.detail})'}"
        for line in folder.rejected(EXAMPLES)
    ]


def _result(folder: TokenFolder, notes: tuple[str, ...]) -> Tokenized:
    found = list(folder.figures())
    return Tokenized(
        rows=sum(figures.rows for figures in found),
        tokens=sum(figures.tokens for figures in found),
        captions=sum(figures.captions for figures in found),
        rejected=_added(found, "rejected"),
        examples=tuple(_examples(folder)),
        notes=notes,
    )
