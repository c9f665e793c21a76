"""Any draw of a set again, from the set's spec and the prompt file alone, held against its manifest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from sar_eval.documents import shorten
from sar_eval.errors import BadInput, SpecMismatch
from sar_eval.images.files import decode_image
from sar_eval.images.perceptual_hash import pixel_digest
from sar_eval.spec import RunSpec
from sar_eval.stages.resolve import build_engine, find_drawn
from sar_eval.storage.image_set import ImageSet, digest_of
from sar_eval.storage.set_objects import manifest_rows, read_manifest
from sar_eval.storage.set_rows import ManifestRow
from sar_eval.synthesis.prompts import BadRow, PromptSource, draws_of_row
from sar_eval.synthesis.spec import SetSpec
from sar_eval.types import Draw, Generation, Prompt

KEY = re.compile(r"\d{1,15}(/\d{1,6})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Redrawn:
    """A draw that was made again.

    Attributes:
        row, index: its key.
        prompt: as the file has it; without text where the row cannot be used.
        generation: with an image, or the reason why there is none.
        stored: what the manifest says of it; None if its block is not committed yet.
        pixels: digest of its pixels; empty without an image.
    """

    row: int
    index: int
    prompt: Prompt
    generation: Generation
    stored: ManifestRow | None
    pixels: bytes

    @property
    def same(self) -> bool | None:
        """Whether the pixels are the manifest's; None where either has none."""
        if self.stored is None or not self.stored.pixels or not self.pixels:
            return None
        return self.stored.pixels == self.pixels


def parse_keys(words: Sequence[str], spec: SetSpec) -> list[tuple[int, int]]:
    """Rows and indices of draws, each once, in order.

    Args:
        words: each ROW/INDEX, or ROW for all draws of a prompt.
        spec: of the set.

    Raises:
        BadInput: none of these, or outside of the set.
    """
    found: dict[tuple[int, int], None] = {}
    for word in words:
        row, _, index = word.partition("/")
        if not KEY.fullmatch(word):
            raise BadInput(
                f"{shorten(word)} is no key: ROW/INDEX, as in the set's columns `row` and `index`"
            )
        if int(row) >= spec.prompts.rows:
            raise BadInput(f"{word}: the set has the rows 0 to {spec.prompts.rows - 1:,}")
        if index and int(index) >= spec.best_of:
            raise BadInput(f"{word}: each prompt of the set has the draws 0 to {spec.best_of - 1}")
        indices = [int(index)] if index else range(spec.best_of)
        found |= dict.fromkeys((int(row), n) for n in indices)
    return sorted(found)


def same_files(spec: SetSpec, checkpoint: str = "") -> SetSpec:
    """The spec with a checkpoint that may lie elsewhere now, and has the bytes that the set was drawn with.

    Args:
        spec: of the set.
        checkpoint: its name; "" for the one in the spec.

    Raises:
        BadInput, UnknownName: there is none.
        SpecMismatch: it has other bytes.
    """
    run = replace(spec.run, checkpoint=checkpoint) if checkpoint else spec.run
    found = find_drawn(run.engine, run.checkpoint, run.engine_options)
    if found.digest != run.checkpoint_digest:
        raise SpecMismatch(
            f"the checkpoint {run.checkpoint} is not the one that the set was drawn with (digest "
            f"{found.digest}, the set's is {run.checkpoint_digest}): name that one with --ckpt"
        )
    return replace(spec, run=replace(run, checkpoint=found.name))


def draw_again(
    image_set: ImageSet,
    spec: SetSpec,
    source: PromptSource,
    keys: Sequence[tuple[int, int]],
    device: str,
) -> Iterator[Redrawn]:
    """Draw keys of a set, in order, a batch at a time.

    Args:
        image_set: where the manifest is.
        spec: of the set, from `same_files`.
        source: the set's prompts.
        keys: from `parse_keys`.
        device: "cpu" or "cuda".

    Raises:
        BadInput: an object of the set is missing or damaged.
    """
    stored = _stored(image_set, spec, keys)
    with build_engine(_with_format(spec), device) as engine:
        for start in range(0, len(keys), spec.run.batch_size):
            part = keys[start : start + spec.run.batch_size]
            asked = list(_asked(part, source, spec.run.seed))
            draws = [draw for _, draw, why in asked if not why]
            made = {generation.key: generation for generation in engine.generate(draws)} if draws else {}
            for (row, index), (prompt, draw, why) in zip(part, asked, strict=True):
                nothing = Generation(draw.key, draw.seed, error=why or "the engine gave no image")
                yield _redrawn(row, index, prompt, made.get(draw.key, nothing), stored.get((row, index)))


def _with_format(spec: SetSpec) -> RunSpec:
    """Pictures come as the set stores them; an engine that has no such option gives what it gives."""
    options = spec.run.engine_options
    has_format = "image_format" in spec.run.engine_speed_options
    return replace(
        spec.run, engine_options={**options, "image_format": spec.image_format} if has_format else options
    )


def _asked(
    keys: Iterable[tuple[int, int]], source: PromptSource, seed: int
) -> Iterator[tuple[Prompt, Draw, str]]:
    """The prompt and the draw of each key, and why it cannot be drawn ("" if it can)."""
    for row, group in groupby(keys, key=lambda key: key[0]):
        [found] = source.prompts(row, row + 1)
        prompt, why = (Prompt(found.id, ""), found.why) if isinstance(found, BadRow) else (found, "")
        for draw in draws_of_row(row, prompt, seed, [index for _, index in group]):
            yield prompt, draw, why


def _redrawn(
    row: int, index: int, prompt: Prompt, generation: Generation, stored: ManifestRow | None
) -> Redrawn:
    if stored is not None and stored.seed != generation.seed:
        raise BadInput(
            f"the manifest's row of {row}/{index} has the seed {stored.seed}, the spec gives "
            f"{generation.seed}: run `sar-eval synth verify`"
        )
    pixels = b"" if generation.image is None else pixel_digest(decode_image(generation.image))
    return Redrawn(row, index, prompt, generation, stored, pixels)


def _stored(
    image_set: ImageSet, spec: SetSpec, keys: Sequence[tuple[int, int]]
) -> Mapping[tuple[int, int], ManifestRow]:
    """The manifest's rows of the keys, from the blocks that are committed."""
    wanted, found = set(keys), dict[tuple[int, int], ManifestRow]()
    for block in sorted({row // spec.block_prompts for row, _ in keys}):
        record = image_set.record(block)
        if record is None:
            continue
        data, where = image_set.store.read(record.manifest), image_set.store.where(record.manifest)
        if digest_of(data) not in record.manifest:
            raise BadInput(f"{where} is damaged: run `sar-eval synth verify`")
        rows = manifest_rows(read_manifest(data, where=where), where)
        found |= {(row.row, row.index): row for row in rows if (row.row, row.index) in wanted}
    return found
