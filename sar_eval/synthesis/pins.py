"""Names of the hub with their commits: a set goes on with the files that it was begun with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace

from sar_eval import discover
from sar_eval.families.locate import COSMOS_REPO, locate, locate_place, with_same_commit
from sar_eval.families.recognise import find_checkpoint
from sar_eval.families.simplear import Checkpoint as SimpleArCheckpoint
from sar_eval.spec import RunSpec
from sar_eval.types import Json

VISUAL = "visual_tokenizer"  # the engines' option


def pinned(run: RunSpec) -> RunSpec:
    """The spec with the commit of its visual tokenizer, if that is of the hub; the checkpoint has its.

    Raises:
        BadInput, UnknownName, Incomplete: checkpoint or visual tokenizer are not found, see `locate`.
    """
    asked = str(run.engine_options.get(VISUAL, ""))
    if not asked and VISUAL not in inspect.signature(discover.load("engines", run.engine)).parameters:
        return run
    name = _visual_name(run.checkpoint, asked)
    return replace(run, engine_options={**run.engine_options, VISUAL: name}) if name else run


def _visual_name(checkpoint: str, asked: str) -> str:
    """The visual tokenizer's name on the hub with its commit; "" for one that is not there by itself."""
    if find_checkpoint(checkpoint, asked).family == SimpleArCheckpoint.family:
        return locate(checkpoint, asked).visual_name
    place = locate_place(asked, "visual tokenizer") if asked else None
    return place.name if place is not None and place.hub_folder else ""


def as_pinned(
    checkpoint: str, drawing: Mapping[str, Json], earlier: RunSpec
) -> tuple[str, Mapping[str, Json]]:
    """What to draw with at a later start, though the hub's branches may have moved on.

    Args:
        checkpoint: its name, as it is asked for.
        drawing: changes of how it is drawn, with the table `engine_options`.
        earlier: `pinned` at the first start.
    """
    stored = str(earlier.engine_options.get(VISUAL, ""))
    options = dict(drawing.get("engine_options", {}))
    visual = with_same_commit(str(options.get(VISUAL, "")) or COSMOS_REPO, stored)
    if visual == stored:
        options[VISUAL] = visual
    return with_same_commit(checkpoint, earlier.checkpoint), {**drawing, "engine_options": options}
