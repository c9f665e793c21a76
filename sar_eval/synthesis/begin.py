"""From what was asked for to a set that is begun, or found again; refuses what cannot work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sar_eval.documents import convert
from sar_eval.errors import BadInput
from sar_eval.stages.resolve import resolve_drawing
from sar_eval.storage.image_set import SPEC, ImageSet
from sar_eval.storage.objects import open_store
from sar_eval.storage.set_reader import spec_of_blocks
from sar_eval.synthesis.embeddings import embedding_name
from sar_eval.synthesis.pins import as_pinned, pinned
from sar_eval.synthesis.prompts import PromptSource, check_usable, open_prompts
from sar_eval.synthesis.selection import Selection
from sar_eval.synthesis.spec import PromptFacts, SetSpec
from sar_eval.types import Json

TAKEN = ("README.md", "funnel.json", "repack.json", "run.json")  # the first two are a set's own, too


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRequest:
    """What `sar-eval synth` is asked for.

    Attributes:
        prompts: path or address of the prompt file.
        checkpoint: its name.
        drawing: changes of how it is drawn, as `stages.resolve` takes them; `images_per_prompt` is best-of.
        selection: what is kept.
        out: the set's address.
        layout, keep, image_format, block_prompts, embed: see `SetSpec`.
        notes: what was assumed is appended by `begin_set`.
    """

    prompts: str
    checkpoint: str
    drawing: Mapping[str, Json]
    selection: Selection
    out: str
    layout: str = "parquet"
    keep: str = "pixels"
    image_format: str = "png"
    block_prompts: int = 256
    embed: str = ""
    notes: list[str] = field(default_factory=list)


def begin_set(request: SetRequest) -> tuple[ImageSet, SetSpec]:
    """Begin a set, or go on with the one that is there.

    Raises:
        BadInput, UnknownName: prompts, checkpoint, selection or store cannot be used.
        SpecMismatch: there is a set under other settings.
    """
    image_set = ImageSet(open_store(absolute(request.out)))
    stored = stored_spec(image_set) if image_set.exists() else None
    index = image_set.prompt_index()
    source = open_prompts(request.prompts, index)
    spec = _resolve(request, source, stored)
    if stored is None:
        check_usable(source)
        check_place(image_set, spec)
    request.notes.extend(source.notes())
    image_set.store.check_writable()
    if stored is None:
        image_set.begin(spec.to_json())
        stored = stored_spec(image_set)  # of another driver, if that was faster
    stored.check_same(spec, f"the set in {request.out}")
    if index is None:  # only now: one of other prompts would stay
        image_set.store_prompt_index(source.index())
    return image_set, stored.resumed(spec)


def absolute(uri: str) -> str:
    """A folder or file as workers elsewhere on a shared file system find it; an address stays as it is."""
    return uri if "://" in uri else str(Path(uri).absolute())


def stored_spec(image_set: ImageSet) -> SetSpec:
    """The spec of a set that was begun.

    Raises:
        BadInput: there is none, or it is broken.
    """
    return SetSpec.from_json(image_set.spec(), f"{image_set.store.uri}, {SPEC}")


def check_place(image_set: ImageSet, spec: SetSpec) -> None:
    """Refuse a place without a spec where a set cannot begin without harm.

    Where somebody deleted the spec of a set, its objects still say whether it was this one.

    Raises:
        BadInput: there are blocks of another set, or files that this one would replace or hide.
    """
    store = image_set.store
    has_blocks = not {"done", "ledger"}.isdisjoint(store.folders(""))
    held = [name for name in (TAKEN[2:] if has_blocks else TAKEN) if store.exists(name)]
    if image_set.exists() or not (held or has_blocks):  # another driver may have been faster
        return
    if held:
        raise BadInput(f"{store.uri} holds {' and '.join(held)} of something else: another --out is needed")
    if spec_of_blocks(image_set) != spec.digest:
        raise BadInput(
            f"{store.uri} has blocks, but no {SPEC}, and they were drawn with other settings: give those "
            f"(README.md has them), restore {SPEC}, or use another --out"
        )


def _resolve(request: SetRequest, source: PromptSource, stored: SetSpec | None) -> SetSpec:
    facts = convert(source.identity(), PromptFacts, request.prompts)
    checkpoint, drawing = request.checkpoint, request.drawing
    if stored is not None:
        checkpoint, drawing = as_pinned(checkpoint, drawing, stored.run)
    prompts = absolute(request.prompts) if Path(request.prompts).exists() else request.prompts
    run = resolve_drawing(prompts, facts.digest, checkpoint, drawing, request.notes)
    return SetSpec(
        pinned(run),
        facts,
        request.selection,
        layout=request.layout,
        keep=request.keep,
        image_format=request.image_format,
        block_prompts=request.block_prompts,
        embed=embedding_name(request.embed),
    )
