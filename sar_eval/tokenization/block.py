"""What a worker does with a block: read, filter, resize, encode, store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sar_eval.errors import BadInput
from sar_eval.images.files import DECODING_THREADS, decode_image
from sar_eval.runtime.slots import WorkerSlot, limit_threads
from sar_eval.storage.objects import open_store
from sar_eval.storage.token_folder import BlockFigures, Rejected, TokenFolder, TokenRow
from sar_eval.tokenization.captions import usable_captions
from sar_eval.tokenization.encoder import CodeEncoder
from sar_eval.tokenization.reasons import Refused
from sar_eval.tokenization.sizes import SizeRule
from sar_eval.tokenization.sources.source import Found, Source
from sar_eval.tokenization.spec import TokenizeSpec

WAITING = 4  # batches of pictures that wait for others of their size, at most


@dataclass(frozen=True, slots=True)
class TokenizeTask:
    """The work on blocks; see `runtime.runtimes.Task`.

    Attributes:
        out: address of the folder.
        spec: see `TokenizeSpec`.
        sources: of its places, as readers.
        batch_size: pictures that are encoded together.
    """

    out: str
    spec: TokenizeSpec
    sources: tuple[Source, ...]
    batch_size: int

    @contextmanager
    def open(self, slot: WorkerSlot) -> Iterator[Callable[[int], Future[BlockFigures]]]:
        """Load the encoder once; blocks give futures of their `BlockFigures`."""
        encoder = CodeEncoder(self.spec.tokenizer, slot.device)
        folder = TokenFolder(open_store(self.out))
        threads = max(DECODING_THREADS, slot.threads)
        with ThreadPoolExecutor(threads) as decoders, ThreadPoolExecutor(1) as writer:
            limit_threads(slot)
            yield _Worker(self, folder, encoder, decoders, writer).run


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture at its size, RGB uint8 `[H, W, 3]`, with its captions."""

    key: str
    captions: tuple[str, ...]
    pixels: NDArray[np.uint8]


@dataclass(slots=True)
class _Worker:
    """The open parts of a worker."""

    task: TokenizeTask
    folder: TokenFolder
    encoder: CodeEncoder
    decoders: ThreadPoolExecutor
    writer: ThreadPoolExecutor

    def run(self, block: int) -> Future[BlockFigures]:
        """Encode a block; it is stored in a thread, while the next one is encoded."""
        batches = _Batches(self.encoder, self.task.batch_size)
        rejected: list[Rejected] = []
        for prepared in self._prepared(block):
            if isinstance(prepared, Rejected):
                rejected.append(prepared)
            else:
                batches.add(prepared)
        rows, metadata = batches.finish(), self.encoder.metadata
        return self.writer.submit(self.folder.commit, block, rows, rejected, metadata)

    def _prepared(self, block: int) -> Iterator[Prepared | Rejected]:
        """Pictures of a block in order; decoded in threads, about two batches ahead."""
        spec = self.task.spec
        rule = SizeRule(spec.options, self.encoder.multiples)
        return _ahead(
            self.decoders,
            lambda found: prepare(found, rule, spec.options.caption_length),
            self._found(block),
            2 * self.task.batch_size,
        )

    def _found(self, block: int) -> Iterator[Found]:
        for place, units in groupby(self.folder.units(block), key=lambda unit: unit.place):
            yield from self.task.sources[place].read(list(units))


def prepare(found: Found, rule: SizeRule, length: tuple[int, int]) -> Prepared | Rejected:
    """A picture with usable captions at its size, or why there is none."""
    if isinstance(found, Rejected):
        return found
    try:
        captions = usable_captions(found.captions, length)
        return Prepared(found.key, captions, rule.fit(decode_image(found.image), found.key))
    except Refused as refused:
        return Rejected(found.key, refused.reason, refused.detail)
    except BadInput as error:
        return Rejected(found.key, "unreadable", str(error))


@dataclass(slots=True)
class _Batches:
    """Gathers pictures by size and encodes them; rows come out in the order in which pictures came in.

    Which pictures are encoded together depends on the block alone, so that its bytes do.
    """

    encoder: CodeEncoder
    batch_size: int
    _rows: list[TokenRow | None] = field(default_factory=list)
    _waiting: dict[tuple[int, ...], list[tuple[int, Prepared]]] = field(default_factory=dict)

    def add(self, prepared: Prepared) -> None:
        """Take a picture."""
        same = self._waiting.setdefault(prepared.pixels.shape, [])
        same.append((len(self._rows), prepared))
        self._rows.append(None)
        if len(same) == self.batch_size:
            self._encode(prepared.pixels.shape)
        elif sum(map(len, self._waiting.values())) >= WAITING * self.batch_size:
            self._encode(max(self._waiting, key=lambda shape: (len(self._waiting[shape]), shape)))

    def finish(self) -> list[TokenRow]:
        """Encode what waits; all rows."""
        for shape in sorted(self._waiting):
            self._encode(shape)
        return [row for row in self._rows if row is not None]

    def _encode(self, shape: tuple[int, ...]) -> None:
        batch = self._waiting.pop(shape)
        codes = self.encoder.encode(np.stack([prepared.pixels for _, prepared in batch]))
        height, width = shape[0] // self.encoder.patch, shape[1] // self.encoder.patch
        for (position, prepared), row in zip(batch, codes, strict=True):
            self._rows[position] = TokenRow(prepared.key, prepared.captions, row, height, width)


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Found], Any], items: Iterable[Found], most: int
) -> Iterator[Any]:
    """Results in order, of which at most so many wait: `Executor.map` would take all items at once."""
    waiting: deque[Future[Any]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
