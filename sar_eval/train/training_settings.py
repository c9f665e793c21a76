"""What a training began with: kept in its folder, and held against what is asked for when it goes on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import cast, get_args

from sar_eval.documents import read_json
from sar_eval.errors import BadInput
from sar_eval.resume_rules import differences, refuse_others
from sar_eval.storage.files import storage_errors, write_json
from sar_eval.storage.training_journal import HOLDOUT, SAMPLES
from sar_eval.train.evaluation import BEST, RESULTS
from sar_eval.train.step_rows import FILE as DIVERGED
from sar_eval.train.token_stream import TokenStream, WeightedPlace
from sar_eval.train.training_options import Precision, TrainingOptions
from sar_eval.types import Json

SETTINGS = "settings.json"


def training_settings(
    options: TrainingOptions, start: Mapping[str, Json], data: Sequence[WeightedPlace], stream: TokenStream
) -> dict[str, Json]:
    """What the weights of a training depend on: the order of places and the cuts of shards, too."""
    return {
        "training": asdict(options),
        "start": dict(start),
        "data": {
            "places": [{"place": str(each.place), "weight": each.weight} for each in data],
            "shards": stream.contents,
        },
    }


def keep_settings(out: Path, now: Mapping[str, Json], options: TrainingOptions, resumed: int) -> None:
    """Hold what is asked for against what the training in `out` began with, and write it there.

    A training that begins anew with other settings takes nothing over: evaluations of the one before, which
    died before its first state, would be taken for its own.

    Args:
        out: its folder, locked.
        now: of `training_settings`.
        options: how it is trained.
        resumed: the step of its last state; 0 if there is none.

    Raises:
        BadInput: it goes on, and a value differs that may not; or its state is after the step to end at.
    """
    path = out / SETTINGS
    allowed = [f"training.{name}" for name in options.may_change({})]
    if resumed:
        stored = read_json(path) if path.exists() else {}
        if not isinstance(stored, dict):
            raise BadInput(f"{path} is no file of a training's settings: remove {out} to begin again")
        before = stored.get("training")
        allowed = [
            f"training.{name}" for name in options.may_change(before if isinstance(before, dict) else {})
        ]
        refuse_others(stored, now, path, allowed)
        _refuse_earlier_end(out, options, resumed)
    elif not _is_same(path, now, allowed):
        _remove_evaluations(out)
    (out / DIVERGED).unlink(missing_ok=True)
    write_json(path, now)


def begun_precision(out: Path) -> Precision | None:
    """That of the training which `out` has the settings of; None if they name none.

    Raises:
        BadInput: they cannot be read.
    """
    settings = read_json(out / SETTINGS) if (out / SETTINGS).exists() else None
    training = settings.get("training") if isinstance(settings, dict) else None
    found = training.get("precision") if isinstance(training, dict) else None
    return cast(Precision, found) if found in get_args(Precision) else None


def _refuse_earlier_end(out: Path, options: TrainingOptions, resumed: int) -> None:
    if resumed > options.last_step:
        named = "--stop-at" if options.stop_at else "--steps"
        raise BadInput(
            f"{out} has the state of step {resumed}, after {named} {options.last_step}: the weights of "
            f"that step are gone. Name a later {named}, or train in another --out"
        )


def _is_same(path: Path, now: Mapping[str, Json], allowed: Sequence[str]) -> bool:
    """Whether a training in which nothing was saved yet had the same settings; a damaged file says no."""
    try:
        stored = read_json(path)
    except BadInput:
        return False
    return isinstance(stored, dict) and all(
        any(fnmatchcase(name, each) for each in allowed) for name, _, _ in differences(stored, now)
    )


def _remove_evaluations(out: Path) -> None:
    with storage_errors(out):
        for name in (RESULTS, SAMPLES, BEST, f"{BEST}.new", f"{BEST}.old"):
            shutil.rmtree(out / name, ignore_errors=True)
        (out / HOLDOUT).unlink(missing_ok=True)
