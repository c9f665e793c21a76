"""From what became of a block's draws to its objects and its done-record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from sar_eval.decoding.encode_images import encode
from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.families.prompting import prompt_texts
from sar_eval.families.recognise import find_checkpoint
from sar_eval.storage.image_set import object_name
from sar_eval.storage.set_objects import data_object, manifest_object
from sar_eval.storage.set_rows import BlockRecord, DataRow, ManifestRow
from sar_eval.synthesis.selection import Outcome, count_fates
from sar_eval.synthesis.spec import SetSpec

PROBLEMS = 5  # errors that a done-record names
MAX_PROBLEM = 200  # characters of one


class BlockEncoder:
    """Encodes blocks of a set; all of it is a pure function of spec and outcomes."""

    def __init__(self, spec: SetSpec, device: str) -> None:
        self.spec, self.device = spec, device
        self.measures = [measure.name for measure in spec.selection.measures]

    def encode(
        self, block: int, attempt: int, outcomes: Sequence[Outcome], ids: Mapping[int, str]
    ) -> tuple[BlockRecord, bytes, bytes]:
        """The record, and the bytes of the data and the manifest object (no data if nothing is kept).

        Args:
            block: its number.
            attempt: how often it was committed before.
            outcomes: of its draws, by row and index.
            ids: of its prompts, by row.
        """
        kept = [outcome for outcome in outcomes if outcome.fate == "kept"]
        data, suffix = b"", ""
        if kept:
            rows = [self._data_row(outcome, ids) for outcome in kept]
            data, suffix = data_object(rows, self.spec.layout, self.metadata, self.measures)
        positions = {id(outcome): position for position, outcome in enumerate(kept)}
        lines = [self._manifest_row(outcome, ids, positions.get(id(outcome))) for outcome in outcomes]
        manifest = manifest_object(lines, self.measures)
        record = BlockRecord(
            block=block,
            attempt=attempt,
            data=object_name("data", block, data, suffix) if kept else "",
            manifest=object_name("manifest", block, manifest, ".parquet"),
            prompts=len(self.spec.rows_of(block)),
            draws=len(outcomes),
            data_bytes=len(data),
            manifest_bytes=len(manifest),
            fates=count_fates(outcomes),
            problems=_problems(outcomes),
            device=self._device(outcomes),
        )
        return record, data, manifest

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """Of each data object: the spec's digest, and whose codes its tokens are."""
        found = {"sar_eval_spec": self.spec.digest}
        if self.spec.keep == "pixels":
            return found
        run = self.spec.run
        checkpoint = find_checkpoint(run.checkpoint, str(run.engine_options.get("visual_tokenizer", "")))
        size = str(checkpoint.codebook_size)
        return found | {"codebook_size": size, "encoder": checkpoint.encoder_digest}

    def _data_row(self, outcome: Outcome, ids: Mapping[int, str]) -> DataRow:
        drawn, keep = outcome.drawn, self.spec.keep
        draw, generation = drawn.draw, drawn.generation
        if keep != "pixels" and not generation.tokens:
            raise BadInput(f"engine {self.spec.run.engine!r} gives no visual tokens: use --keep pixels")
        if keep != "pixels":
            self._check_codes(generation.tokens)
        text = prompt_texts(self.spec.run.protocol, draw)[0]
        return DataRow(
            row=drawn.row,
            index=draw.index,
            id=ids[drawn.row],
            caption=draw.prompt.text,
            seed=draw.seed,
            text=text,
            image=self._image(outcome) if keep != "tokens" else None,
            tokens=generation.tokens if keep != "pixels" else None,
            scores={n: v.score for n, v in outcome.values.items() if v.score is not None},
        )

    def _check_codes(self, codes: Sequence[int]) -> None:
        """Refuse an engine whose codes are of another codebook: stored, they would be other numbers.

        Raises:
            BadInput: so.
        """
        size = int(self.metadata["codebook_size"])
        if min(codes) < 0 or max(codes) >= size:
            wrong = next(code for code in codes if not 0 <= code < size)
            raise BadInput(
                f"engine {self.spec.run.engine!r} gives the token {wrong}, of a codebook of {size}: use "
                "--keep pixels"
            )

    def _image(self, outcome: Outcome) -> bytes:
        """The picture, compressed as the set keeps it."""
        pixels = np.asarray(outcome.drawn.picture.rgb)
        outcome.drawn.forget()
        return encode(pixels, self.spec.image_format)

    def _manifest_row(self, outcome: Outcome, ids: Mapping[int, str], position: int | None) -> ManifestRow:
        drawn = outcome.drawn
        return ManifestRow(
            row=drawn.row,
            index=drawn.draw.index,
            id=ids[drawn.row],
            seed=drawn.draw.seed,
            fate=outcome.fate,
            why=outcome.why,
            values=outcome.values,
            pixels=outcome.pixels,
            phash=outcome.phash,
            position=position,
            embedding=outcome.embedding if position is not None else None,
        )

    def _device(self, outcomes: Sequence[Outcome]) -> str:
        named = (outcome.drawn.generation.provenance.get("device") for outcome in outcomes)
        return str(next((name for name in named if name), self.device))


def _problems(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """The first few draws that lack something, each with the reason."""
    lacking = [outcome for outcome in outcomes if outcome.fate in ("failed", "unjudged")]
    return tuple(
        shorten(f"{o.drawn.row}/{o.drawn.draw.index}: {o.why}", MAX_PROBLEM)[1:-1]
        for o in lacking[:PROBLEMS]
    )
