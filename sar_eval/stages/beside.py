"""Stage: scorers' numbers beside the verdicts of a run's own judge, stored and summarised with them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sar_eval import discover
from sar_eval.documents import convert
from sar_eval.errors import BadInput
from sar_eval.measures import Measure
from sar_eval.runtime.progress import ProgressCallback, no_progress
from sar_eval.runtime.runtimes import Runtime
from sar_eval.scoring import label, read_names
from sar_eval.spec import RunSpec
from sar_eval.stages.inventory import Inventory, StoredVerdicts
from sar_eval.stages.judge import judge
from sar_eval.stages.resolve import build_judge, with_judge
from sar_eval.stages.resume import check_files, stopped, wanted_blocks
from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import Json

JUDGE, FOLD = "score", "scores"
COMMON = ("dtype", "images_at_once")  # options of all scorers


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """One row of `beside` in `run.json`: scorers that were asked for together.

    Attributes:
        versions: of each scorer, by name.
        judge_version, judge_options, judge_speed_options, judge_path_options: as of a spec.
    """

    versions: Mapping[str, str]
    judge_version: str
    judge_options: Mapping[str, Json]
    judge_speed_options: tuple[str, ...] = ()
    judge_path_options: tuple[str, ...] = ()

    def of(self, spec: RunSpec) -> RunSpec:
        """The spec of a run with these scorers as its judge."""
        return replace(
            spec,
            judge=JUDGE,
            fold=FOLD,
            beside=True,
            judge_version=self.judge_version,
            judge_options=self.judge_options,
            judge_speed_options=self.judge_speed_options,
            judge_path_options=self.judge_path_options,
        )

    def to_json(self) -> dict[str, Json]:
        """As `run.json` stores it."""
        return {
            "versions": dict(self.versions),
            "judge_version": self.judge_version,
            "judge_options": dict(self.judge_options),
            "judge_speed_options": list(self.judge_speed_options),
            "judge_path_options": list(self.judge_path_options),
        }


def scorers_beside(
    spec: RunSpec, names: Json, options: Mapping[str, Json], folder: RunFolder
) -> list[Beside]:
    """What to judge for these scorers: what the run has begun with any of them, and one with all others.

    Raises:
        BadInput, UnknownName: no such scorer, one that does not take its options, or `run.json` names code
            that was not asked for.
    """
    listed = read_names(names, "--scorers")
    if unknown := sorted(options.keys() - _tables(listed)):
        raise BadInput(f"--scorer-option {unknown[0]}: the scorers are {', '.join(map(label, listed))}")
    asked = _made(spec, listed, options).versions
    begun = [side for side in stored_beside(folder) if side.versions.items() & asked.items()]
    for side in begun:  # a run folder may be a stranger's
        check_files(side.of(spec), listed, folder)
    covered = {name for side in begun for name, _ in side.versions.items() & asked.items()}
    left = [name for name in listed if label(name) not in covered]
    return [*begun, *([_made(spec, left, options)] if left else [])]


def score_beside(
    spec: RunSpec,
    sides: Sequence[Beside],
    folder: RunFolder,
    runtime: Runtime,
    progress: ProgressCallback = no_progress,
) -> None:
    """Give every drawn image the numbers that it lacks (lock held).

    Raises:
        StorageFailed: the disk is full or read-only; what is stored stays.
    """
    for side in sides:
        _record(side, folder)
        judge(side.of(spec), folder, runtime, progress)


def lacking_beside(spec: RunSpec, folder: RunFolder) -> list[str]:
    """Which scorers beside the verdicts lack numbers, as after an interruption: a line for each."""
    problems: list[str] = []
    shown: set[str] = set()
    for side in () if spec.beside else reversed(stored_beside(folder)):
        if side.versions.keys() <= shown:  # all of them came again later
            continue
        shown |= side.versions.keys()
        inventory = Inventory(side.of(spec), folder)
        wanted = wanted_blocks(inventory.blocks, stopped(folder, inventory.drawn))
        lost = {key: why for n in wanted for key, why in inventory.state(n).problems.items()}
        if lost:
            key, why = next(iter(lost.items()))
            names = ", ".join(side.versions) or "scorers"
            problems.append(
                f"{len(lost)} images lack scores of {names}: {key}: {why} (`sar-eval judge {folder.path} "
                f"--scorers {names.replace(' ', '')}` gives what can be had; --partial does without)"
            )
    return problems[::-1]


def stored_beside(folder: RunFolder) -> list[Beside]:
    """The scorers whose numbers stand beside the run's verdicts, in the order in which they came.

    Raises:
        BadInput: `run.json` has an unusable value there.
    """
    where = f"{folder.path / 'run.json'}, beside"
    return [convert(dict(row), Beside, where, "restore the file") for row in folder.read_manifest().beside]


def measures_beside(inventory: Inventory, taken: Collection[str] = ()) -> Iterator[Measure]:
    """`scorer/NAME` for each scorer beside the verdicts; of two of one name, the one that came last.

    Args:
        inventory: of the run.
        taken: names of the fold's own measures, which stay.
    """
    found: dict[str, Measure] = {}
    for side in () if inventory.spec.beside else stored_beside(inventory.folder):
        its = Inventory(side.of(inventory.spec), inventory.folder)
        fold = discover.load("benchmarks", FOLD)()
        measures = fold.fold(its.blocks.prompts, StoredVerdicts(its))
        found |= {m.name: m for m in measures if m.name.startswith("scorer/") and m.name not in taken}
    yield from found.values()


def scorer_measures(spec: RunSpec, folder: RunFolder) -> list[Measure]:
    """`scorer/NAME` for each scorer of a run: those of its judge `score`, and those beside the verdicts."""
    inventory = Inventory(spec, folder)
    own = []
    if spec.judge == JUDGE:
        measures = discover.load("benchmarks", FOLD)().fold(
            inventory.blocks.prompts, StoredVerdicts(inventory)
        )
        own = [measure for measure in measures if measure.name.startswith("scorer/")]
    return [*own, *measures_beside(inventory, {measure.name for measure in own})]


def versions_beside(spec: RunSpec, folder: RunFolder) -> dict[str, str]:
    """Version of each scorer beside the verdicts, by name."""
    sides = () if spec.beside else stored_beside(folder)
    return {name: version for side in sides for name, version in side.versions.items()}


def _made(spec: RunSpec, names: Sequence[str], options: Mapping[str, Json]) -> Beside:
    """Scorers with those of the options that are theirs.

    Raises:
        BadInput, UnknownName: as `scorers_beside`.
    """
    settings = {name: value for name, value in options.items() if name in _tables(names)}
    side = replace(spec, judge=JUDGE, judge_options={"scorers": list(names), **settings})
    made = with_judge(side)
    return Beside(
        versions=build_judge(side, "cpu").set.versions,
        judge_version=made.judge_version,
        judge_options=made.judge_options,
        judge_speed_options=made.judge_speed_options,
        judge_path_options=made.judge_path_options,
    )


def _tables(names: Sequence[str]) -> set[str]:
    """Names of options that belong to these scorers."""
    return {*COMMON, *map(label, names), *(label(name).partition(":")[0] for name in names)}


def _record(side: Beside, folder: RunFolder) -> None:
    """Note the scorers in `run.json`, those asked for last at the end."""
    manifest = folder.read_manifest()
    rows = tuple(row for row in manifest.beside if dict(row) != side.to_json())
    if (*rows, side.to_json()) != manifest.beside:
        folder.write_manifest(replace(manifest, beside=(*rows, side.to_json())))
