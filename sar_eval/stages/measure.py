"""What a run's figures are means of: its fold over its stored verdicts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sar_eval import __version__, discover
from sar_eval.comparisons import RunFacts
from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.measures import Measure, Stratum
from sar_eval.spec import RunSpec, without
from sar_eval.stages.beside import measures_beside, versions_beside
from sar_eval.stages.inventory import Inventory, StoredVerdicts
from sar_eval.storage.baselines import read_baseline
from sar_eval.storage.run_folder import RunFolder

LARGEST = 1e140  # of sums of scores: sums of their squares must be numbers, too
LARGEST_COMPARED = 1e100  # whose squares can be summed
WEIGHTS = 1e-9, 1e9  # whose sums keep all digits that count


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRun:
    """What can be compared: a run's measures, from its folder or from a baseline file.

    Attributes:
        path: of either.
        stored: spec and folder, which have the run's pictures; None for a baseline.
    """

    path: Path
    facts: RunFacts
    measures: tuple[Measure, ...]
    stored: tuple[RunSpec, RunFolder] | None = None

    @property
    def is_baseline(self) -> bool:
        """Whether this is a file without pictures."""
        return self.stored is None


def score_run(spec: RunSpec, folder: RunFolder) -> ScoredRun:
    """The measures of a run folder; holes are counted in its facts.

    Raises:
        BadInput: it has no judge or no fold, is a shard, has no score at all, or a part cannot be read.
        SpecMismatch: a stored part is of another run.
    """
    if not spec.judge:
        way_on = f"`sar-eval judge {folder.path} --benchmark NAME` gives it some"
        raise BadInput(f"{folder.path} has no judge, so it has no scores: {way_on}")
    if not spec.fold:
        raise BadInput(f"{folder.path} has no fold, so it has no figures: name one by --benchmark")
    if shard := folder.read_manifest().shard:
        raise BadInput(f"{folder.path} is shard {shard} of a run: `sar-eval join` the shards first")
    inventory = Inventory(spec, folder)
    failed = sum(len(inventory.state(block).problems) for block in inventory.blocks.numbers)
    measures = fold_run(inventory)
    if not measures or not measures[0].strata:
        raise BadInput(f"{folder.path} has no score yet: `sar-eval judge {folder.path}` gives them")
    _check_range(measures, str(folder.path))
    facts = facts_of(inventory, failed)
    return ScoredRun(path=folder.path, facts=facts, measures=measures, stored=(spec, folder))


def read_scored(path: Path) -> ScoredRun:
    """What a baseline file holds.

    Raises:
        BadInput: it is none, or is damaged.
    """
    facts, measures = read_baseline(path)
    check_measures(measures, str(path))
    _check_range(measures, str(path))
    if not measures or not measures[0].strata:
        raise BadInput(f"{path} holds no score")
    return ScoredRun(path=path, facts=facts, measures=measures)


def fold_run(inventory: Inventory) -> tuple[Measure, ...]:
    """The measures of the scored draws of a run that has a fold.

    Raises:
        BadInput: the fold fails, gives something else, or a score is no number.
    """
    name = inventory.spec.fold
    with discover.guarded(f"the fold of benchmark {name!r} failed"):
        fold = discover.load("benchmarks", name)()
        measures = tuple(fold.fold(inventory.blocks.prompts, StoredVerdicts(inventory)))
    if odd := next((m for m in measures if not isinstance(m, Measure)), None):
        raise BadInput(
            f"the fold of benchmark {name!r} gives {type(odd).__name__} instead of Measure: since version "
            "0.4.0 a fold says what is averaged (sar_eval.measures), and intervals are made of that"
        )
    measures = (*measures, *measures_beside(inventory, {measure.name for measure in measures}))
    check_measures(measures, f"the fold of benchmark {name!r}")
    return measures


def check_measures(measures: tuple[Measure, ...], where: str) -> None:
    """Refuse measures that no figure can be made of.

    Raises:
        BadInput: two of one name, or scores that are no numbers or out of all range.
    """
    names = Counter(measure.name for measure in measures)
    if double := next((name for name, number in names.items() if number > 1), None):
        raise BadInput(f"{where} has two measures called {double!r}")
    for measure in measures:
        if not all(_is_finite(stratum) for stratum in measure.strata):
            raise BadInput(
                f"{where}, measure {measure.name}: stored scores are out of all range, or no numbers; "
                "remove the run's verdicts and judge again"
            )


def _is_finite(stratum: Stratum) -> bool:
    """Whether sums, and sums of squares, over many resamples of the draws are numbers, too."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.abs(stratum.sums).sum() < LARGEST and np.isfinite(stratum.weights.sum()))


def _check_range(measures: tuple[Measure, ...], where: str) -> None:
    """Refuse scores whose differences have no standard error.

    Raises:
        BadInput: naming the measure.
    """
    for measure in measures:
        for stratum in measure.strata:
            lowest, highest = WEIGHTS
            if ((stratum.weights < lowest) | (stratum.weights > highest)).any():
                wrong = f"a weight is not between {lowest:g} and {highest:g}"
            elif (np.abs(stratum.sums) > LARGEST_COMPARED).any():
                wrong = f"a score is larger than {LARGEST_COMPARED:g}"
            else:
                continue
            raise BadInput(
                f"{where}, measure {shorten(measure.name)}: {wrong}, which cannot be compared: judge again "
                "with scores of a usual size, and save the baseline again"
            )


def facts_of(inventory: Inventory, failed: int) -> RunFacts:
    """What a comparison must know of a run; `failed` counts its draws without a result."""
    spec = inventory.spec
    fold = discover.load("benchmarks", spec.fold)
    return RunFacts(
        name=inventory.folder.path.resolve().name,
        benchmark=spec.benchmark,
        fold=spec.fold,
        fold_version=str(fold.version),
        suite_digest=spec.suite_digest,
        prompts=len(inventory.blocks.prompts),
        images_per_prompt=spec.images_per_prompt,
        checkpoint=spec.checkpoint,
        checkpoint_digest=spec.checkpoint_digest,
        protocol=spec.protocol,
        engine=spec.engine,
        engine_version=spec.engine_version,
        dtype=spec.dtype,
        seed=spec.seed,
        judge=spec.judge,
        judge_version=spec.judge_version,
        judge_digest=spec.judge_digest,
        judge_options=without(spec.judge_options, {*spec.judge_speed_options, *spec.judge_path_options}),
        spec_digest=spec.digest,
        expected=inventory.blocks.draws,
        failed=failed,
        sar_eval=__version__,
        beside=versions_beside(spec, inventory.folder),
    )
