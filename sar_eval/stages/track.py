"""Stage: show a scored run in experiment trackers: figures, settings, a sample of pictures, the report."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import heappush, heappushpop
from itertools import chain, groupby, zip_longest
from math import isclose
from pathlib import Path
from zlib import crc32

from sar_eval import discover
from sar_eval.checkpoint_steps import step_in
from sar_eval.clients.redact import redactor
from sar_eval.errors import BadInput, Incomplete, TrackerFailed
from sar_eval.options import check_kinds
from sar_eval.protocols import Tracker
from sar_eval.spec import RunSpec
from sar_eval.stages.inventory import Inventory
from sar_eval.storage.run_folder import RunFolder
from sar_eval.tracked_runs import TrackedPicture, TrackedRun
from sar_eval.types import Json, Metric, Summary

PROJECT = "sar-eval"
PICTURES = 16
# Where the packages look for keys: no message shows what is in them.
SECRETS = ("WANDB_API_KEY", "HF_TOKEN", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD")


@dataclass(frozen=True, slots=True)
class HowToShow:
    """What the user says of the run in the tracker.

    Attributes:
        project: experiment or folder that it is shown under.
        name: the run's there; "" for its folder's.
        step: of training; None for the one in the checkpoint's name, if that has one.
        pictures: how many at most.
    """

    project: str = PROJECT
    name: str = ""
    step: int | None = None
    pictures: int = PICTURES


def make_trackers(names: Sequence[str], options: Mapping[str, Json]) -> dict[str, Tracker]:
    """The trackers of these names, each with those of the options that it has.

    Raises:
        UnknownName: no tracker is called so.
        MissingExtra: its package is not installed.
        BadInput: an option that none of them has, or one with an unusable value.
    """
    classes = {name: discover.load("trackers", name) for name in names}
    known = {name: list(inspect.signature(found).parameters) for name, found in classes.items()}
    if unknown := options.keys() - {*chain(*known.values())}:
        lists = "; ".join(f"{name} has {', '.join(has) or 'none'}" for name, has in known.items())
        raise BadInput(f"--tracker-option {min(unknown)}: {lists or 'no tracker is named'}")
    made: dict[str, Tracker] = {}
    for name, found in classes.items():
        own = {option: value for option, value in options.items() if option in known[name]}
        check_kinds(found, own, f"tracker {name!r}")
        with discover.guarded(f"tracker {name!r} cannot be made"):
            made[name] = found(**own)
    return made


def track(
    spec: RunSpec, folder: RunFolder, summary: Summary, tracker: tuple[str, Tracker], how: HowToShow
) -> str:
    """Show a run in one tracker, and return where.

    Raises:
        Incomplete: the run has no score.
        BadInput: a stored part cannot be read.
        TrackerFailed: the tracker raised anything.
    """
    name, shown = tracker
    run = describe(spec, folder, summary, how)
    try:
        with discover.guarded(f"tracker {name!r} failed"), nobody_to_ask():
            return shown.log(run)
    except BadInput as error:
        raise TrackerFailed(
            f"{without_secrets(str(error))}; the run and its score are stored: log them again with "
            f"`sar-eval track {folder.path} --to {name}`"
        ) from error


def describe(spec: RunSpec, folder: RunFolder, summary: Summary, how: HowToShow) -> TrackedRun:
    """The run as trackers take it. Pictures are read when they are asked for.

    Raises:
        Incomplete: it has no score, so nothing of it can be compared.
        BadInput: a stored part cannot be read, or two figures would have one name.
    """
    if not summary.metrics:
        raise Incomplete(f"{folder.path} has no score: nothing is logged before the run is complete")
    inventory = Inventory(spec, folder)
    report = (folder.path / "report.html", folder.path / "report_assets")
    return TrackedRun(
        project=how.project,
        name=how.name or folder.path.resolve().name,
        benchmark=as_key(spec.benchmark),
        step=step_in(spec.checkpoint) if how.step is None else how.step,
        config=_config(spec, folder, summary),
        figures=_figures(as_key(spec.benchmark), summary.metrics),
        pictures=_read(inventory, _choose(inventory, how.pictures)),
        report=tuple(path for path in report if path.exists()) if report[0].is_file() else (),
    )


def _config(spec: RunSpec, folder: RunFolder, summary: Summary) -> dict[str, Json]:
    """Everything that decides images and verdicts; no key is in it, as none is in a spec."""
    return spec.to_json() | {
        "spec_digest": spec.digest,
        "git_commit": folder.read_manifest().git_commit,
        "versions": dict(summary.versions),
        "images": summary.judged,
        "partial": summary.partial,
    }


def _figures(benchmark: str, metrics: Iterable[Metric]) -> dict[str, float]:
    """Every metric's value, the ends of its interval and what it is a mean of, by a name for all trackers.

    Raises:
        BadInput: two metrics, by what is left of their names, would be one figure.
    """
    figures: dict[str, float] = {}
    for metric in metrics:
        if metric.value is None:  # a task or split without prompts
            continue
        name = f"{benchmark}/{as_key(metric.name)}"
        values = {"": metric.value, "_low": metric.low, "_high": metric.high, "_n": metric.n}
        found = {f"{name}{end}": float(value) for end, value in values.items() if value is not None}
        if doubled := found.keys() & figures.keys():
            raise BadInput(f"two metrics would be logged as {min(doubled)!r}: give their tasks other names")
        figures |= found
    return figures


def as_key(name: str) -> str:
    """A metric's name with what all trackers allow, of which MLflow allows least (no `..`, no `//`)."""
    parts = re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII)[:200].split("/")
    return "/".join(part.strip(" .") or "_" for part in parts)


def _choose(inventory: Inventory, number: int) -> list[tuple[int, str]]:
    """Block and key of the pictures to show, in suite order.

    Of each task in turn one of the lower half of its scores (with passed and failed: a failed one) and one
    of the upper half. Which ones, a hash of the key says: the same for every checkpoint as far as verdicts
    allow it.
    """
    means = _mean_scores(inventory)
    groups = defaultdict[tuple[str, bool], list[tuple[int, int, str]]](list)  # heaps, least wanted first
    for task, block, key, score in _scored(inventory):
        upper = score > means[task] or isclose(score, means[task])  # equal scores are no lower half
        heap, entry = groups[task, upper], (-crc32(key.encode()), block, key)
        (heappush if len(heap) < number else heappushpop)(heap, entry)
    turns = zip_longest(*(sorted(heap, reverse=True) for _, heap in sorted(groups.items())))
    wanted = [entry for turn in turns for entry in turn if entry is not None][:number]
    return sorted((block, key) for _, block, key in wanted)


def _mean_scores(inventory: Inventory) -> dict[str, float]:
    """By task."""
    sums, counts = defaultdict[str, float](float), Counter[str]()
    for task, _, _, score in _scored(inventory):
        sums[task] += score
        counts[task] += 1
    return {task: total / counts[task] for task, total in sums.items()}


def _scored(inventory: Inventory) -> Iterator[tuple[str, int, str, float]]:
    """Task, block, key and score of every draw that has one, in suite order; one block in memory."""
    for block in inventory.judged:
        tasks = {draw.key: draw.prompt.tag for draw in inventory.blocks[block]}
        for key, score in _scores_of(inventory, block):
            if score is not None:
                yield tasks[key], block, key, score


def _scores_of(inventory: Inventory, block: int) -> list[tuple[str, float | None]]:
    """Keys and scores of a block; of a judge that only passes and fails, 1 and 0."""
    scores = list(inventory.scores_of(block))
    if all(score is not None for _, score in scores):
        return scores
    verdicts = inventory.verdicts_of(block)
    return [(v.key, v.passed if v.score is None and v.passed is not None else v.score) for v in verdicts]


def _read(inventory: Inventory, chosen: Sequence[tuple[int, str]]) -> Iterator[TrackedPicture]:
    """The pictures and their verdicts, one after the other.

    Raises:
        BadInput: a stored part cannot be read.
    """
    for block, entries in groupby(chosen, lambda entry: entry[0]):
        wanted = {key for _, key in entries}
        path = inventory.drawn[block].path
        verdicts = {
            verdict.key: verdict for verdict in inventory.verdicts_of(block) if verdict.key in wanted
        }
        stored = inventory.generations.read(path, ["key"]).column("key").to_pylist()
        prompts = {draw.key: draw.prompt for draw in inventory.blocks[block]}
        for position, key in enumerate(stored):
            if key in wanted:
                [image] = inventory.generations.images_at(path, [position])
                verdict, prompt = verdicts[key], prompts[key]
                result = (verdict.score, verdict.passed, verdict.reason)
                yield TrackedPicture(key, prompt.tag, prompt.text, image or b"", *result)


@contextmanager
def nobody_to_ask() -> Iterator[None]:
    """No input: a tracker that would ask for a key fails, as nobody may be there after a long run."""
    before = sys.stdin
    with Path(os.devnull).open() as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = before


def without_secrets(text: str) -> str:
    """A message without the keys that a tracker's package reads."""
    for variable in SECRETS:
        text = redactor(os.environ.get(variable, ""))(text)
    return re.sub(r"//[^/@\s]+@", "//[key]@", text)  # user and password in a server's address
