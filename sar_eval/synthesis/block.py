"""What a worker does with a block of prompts: draw, judge what can still pass, select, encode, commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain
from typing import Any

from sar_eval.decoding.encode_images import UNCOMPRESSED
from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.runtime.slots import WorkerSlot, limit_threads
from sar_eval.stages.generate import NO_IMAGE, begins_ahead
from sar_eval.stages.resolve import build_engine
from sar_eval.storage.image_set import PROMPT_INDEX, ImageSet
from sar_eval.storage.objects import open_store
from sar_eval.storage.set_rows import BlockRecord
from sar_eval.synthesis.block_encoder import BlockEncoder
from sar_eval.synthesis.embeddings import Embedder
from sar_eval.synthesis.measures import Drawn, OpenMeasures
from sar_eval.synthesis.prompts import BadRow, PromptSource, draws_of_row, open_prompts
from sar_eval.synthesis.selection import DECODED_AT_ONCE, KEEP, Outcome, Selection, drop_duplicates, select
from sar_eval.synthesis.spec import SetSpec
from sar_eval.types import Draw, Generation, Prompt

AHEAD = 2  # chunks of a block that are drawn before they are judged


@dataclass(frozen=True, slots=True)
class BlockOutcome:
    """What travels back from a worker: names and numbers.

    `committed` is false where another worker had committed the block, or an earlier attempt was no worse.
    """

    record: BlockRecord
    committed: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class BlockTask:
    """The work on a set's blocks.

    Attributes:
        uri: of the set.
        spec: of the set.
        earlier: records of blocks whose draws lack something, which are drawn again.
        skipped: rows of the prompt file that are not drawn, each with the reason.
        one_by_one: whether each prompt is drawn for itself, instead of as many as fill a batch.
    """

    uri: str
    spec: SetSpec
    earlier: Mapping[int, BlockRecord] = field(default_factory=dict)
    skipped: Mapping[int, str] = field(default_factory=dict)
    one_by_one: bool = False

    @contextmanager
    def open(self, slot: WorkerSlot) -> Iterator[Callable[[int], Any]]:
        """Load engine, judges and scorers once; blocks give futures of a `BlockOutcome`."""
        with _opened(self, slot) as worker:
            yield worker.run


@dataclass(frozen=True, slots=True)
class PromptTask:
    """Draws and judges single prompts, and stores nothing: to find those at which a worker fails."""

    uri: str
    spec: SetSpec

    @contextmanager
    def open(self, slot: WorkerSlot) -> Iterator[Callable[[int], Any]]:
        """Load engine, judges and scorers once; a row number gives None."""
        with _opened(BlockTask(self.uri, self.spec), slot) as worker:
            yield worker.try_row


@contextmanager
def _opened(task: BlockTask, slot: WorkerSlot) -> Iterator[_BlockWorker]:
    image_set = ImageSet(open_store(task.uri))
    if (index := image_set.prompt_index()) is None:  # without it any file of that name would do
        raise BadInput(f"{task.uri} was not begun to the end (no {PROMPT_INDEX}): run `synth start` again")
    source = open_prompts(task.spec.run.suite, index)
    measures = OpenMeasures(task.spec.selection.measures, slot.device)
    embed = task.spec.embed
    with (
        build_engine(task.spec.run, slot.device) as engine,
        measures,
        Embedder.of_set(embed, slot.device) if embed else nullcontext() as embedder,
        ThreadPoolExecutor(1) as executor,
    ):
        limit_threads(slot)
        if hasattr(engine, "image_format"):  # most are thrown away: only what is kept is compressed
            engine.image_format = UNCOMPRESSED
        encoder = BlockEncoder(task.spec, slot.device)
        yield _BlockWorker(task, engine, measures, embedder, source, image_set, executor, encoder)


@dataclass
class _BlockWorker:
    """The open parts of a worker."""

    task: BlockTask
    engine: Any
    measures: OpenMeasures
    embedder: Embedder | None
    source: PromptSource
    image_set: ImageSet
    executor: ThreadPoolExecutor
    encoder: BlockEncoder

    @cached_property
    def spec(self) -> SetSpec:
        """Of the set."""
        return self.task.spec

    @cached_property
    def _selection(self) -> Selection:
        """What is kept of a prompt's draws; duplicates are looked for in the whole block."""
        return replace(self.spec.selection, duplicates=KEEP)

    def run(self, block: int) -> Future[BlockOutcome]:
        """Draw a block; the rest is done in a thread, while the next block is drawn."""
        started = time.monotonic()
        prompts = self._prompts(self.spec.rows_of(block))
        judged: list[Future[list[Outcome]]] = []
        for first in range(0, len(prompts), self._chunk):
            if len(judged) >= AHEAD:  # else pictures pile up where judges are slower than the engine
                judged[-AHEAD].result()
            judged.append(self._draw(prompts[first : first + self._chunk]))
        return self.executor.submit(partial(self._finish, block, prompts, judged, started))

    def try_row(self, row: int) -> None:
        """Draw and judge one prompt."""
        self._draw(self._prompts(range(row, row + 1))).result()

    @cached_property
    def _chunk(self) -> int:
        """Prompts that are drawn together: about a batch, and whole groups of those judged together.

        The last digits of a network may depend on its batch, so these groups are the same in any case.
        """
        judged = max(1, DECODED_AT_ONCE // self.spec.best_of)
        return judged * max(1, self.spec.run.batch_size // (judged * self.spec.best_of))

    def _draw(self, prompts: Sequence[_PromptDraws]) -> Future[list[Outcome]]:
        """Draw some prompts; the future judges and selects."""
        wanted = [prompt.draws for prompt in prompts if not prompt.refused]
        together = wanted if self.task.one_by_one else [tuple(chain.from_iterable(wanted))]
        waves = [wave for draws in together for wave in self._waves(draws)]
        return self.executor.submit(partial(self._judge, prompts, waves))

    def _prompts(self, rows: range) -> list[_PromptDraws]:
        found = self.source.prompts(rows.start, rows.stop)
        return [self._named(row, prompt) for row, prompt in zip(rows, found, strict=True)]

    def _named(self, row: int, prompt: Prompt | BadRow) -> _PromptDraws:
        """The draws of a prompt, and why they are not made."""
        refused = self.task.skipped.get(row, "")
        if isinstance(prompt, BadRow):
            refused = prompt.why
            prompt = Prompt(prompt.id, "")
        draws = draws_of_row(row, prompt, self.spec.run.seed, range(self.spec.best_of))
        return _PromptDraws(row, prompt.id, draws, refused)

    def _waves(self, draws: Sequence[Draw]) -> list[Future[list[Generation]]]:
        if not draws:
            return []
        if begins_ahead(self.engine):
            return list(self.engine.begin(draws))
        done = Future[list[Generation]]()
        done.set_result(list(self.engine.generate(draws)))
        return [done]

    def _judge(
        self, prompts: Sequence[_PromptDraws], waves: Sequence[Future[list[Generation]]]
    ) -> list[Outcome]:
        """Judge and select; an outcome that cannot be kept any more lets go of its picture."""
        found = _by_key(generation for wave in waves for generation in wave.result())
        drawn = [
            Drawn(prompt.row, draw, _checked(draw, found.get(draw.key), prompt.refused))
            for prompt in prompts
            for draw in prompt.draws
        ]
        outcomes = select(drawn, self._selection, self.measures, self.embedder)
        for outcome in outcomes:
            if outcome.fate != "kept":
                outcome.drawn.drop()
        return outcomes

    def _finish(
        self,
        block: int,
        prompts: Sequence[_PromptDraws],
        judged: Sequence[Future[list[Outcome]]],
        started: float,
    ) -> BlockOutcome:
        """Look for duplicates, encode what is kept, and commit."""
        outcomes = [outcome for chunk in judged for outcome in chunk.result()]
        drop_duplicates(outcomes, self.spec.selection.duplicates)
        earlier = self.task.earlier.get(block)
        attempt = 0 if earlier is None else earlier.attempt + 1
        record, data, manifest = self.encoder.encode(
            block, attempt, outcomes, {prompt.row: prompt.id for prompt in prompts}
        )
        worse = earlier is not None and record.lacking >= earlier.lacking
        committed = not worse and self.image_set.commit(record, data, manifest)
        return BlockOutcome(record, committed, time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class _PromptDraws:
    """The draws of a prompt, and why they are not made ("" if they are); `id` is the prompt's own."""

    row: int
    id: str
    draws: tuple[Draw, ...]
    refused: str


def _by_key(generations: Iterable[Generation]) -> dict[str, Generation]:
    """What an engine gave, which is anyone's code.

    Raises:
        ValueError: a draw was given twice, and nobody knows which one is meant.
    """
    found: dict[str, Generation] = {}
    for generation in generations:
        if generation.key in found:
            raise ValueError(f"engine gave {shorten(generation.key)} twice")
        found[generation.key] = generation
    return found


def _checked(draw: Draw, generation: Generation | None, refused: str) -> Generation:
    """What the engine gave for a draw, or why there is nothing."""
    if generation is None or (generation.image is None and generation.error is None):
        return Generation(draw.key, draw.seed, error=refused or NO_IMAGE)
    return generation
