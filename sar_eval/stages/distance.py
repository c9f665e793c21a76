"""Stage: how far two sets of pictures are from each other, as distributions (FID, KID, CMMD, FD-DINOv2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sar_eval.errors import BadInput
from sar_eval.images.listing import shown
from sar_eval.runtime.progress import ProgressCallback, no_progress
from sar_eval.stages.picture_sets import PictureSet, open_pictures
from sar_eval.stages.set_collection import KEPT, Collected, collect
from sar_eval.stages.set_metrics import METRICS, Settings, networks_for
from sar_eval.stages.set_statistics import SetStatistics, read_statistics
from sar_eval.stats import kernel_distances as kernels
from sar_eval.stats.frechet import frechet_distance

Pair = tuple[SetStatistics, SetStatistics]


@dataclass(frozen=True, slots=True)
class Distance:
    """A figure.

    Attributes:
        value: the smaller, the more alike; KID may be below 0.
        low, high: 95 % interval by resampling both sets; None where none is defined or wanted.
        standard_error: of drawing KID's subsets; None for others.
        subset_deviation: of KID's subsets, which torch-fidelity shows behind its +-; None for others.
        metric: its name.
        n: pictures of either set; None where statistics do not say.
        version: of formula, transform and weights.
    """

    value: float
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None
    subset_deviation: float | None = None
    metric: str = ""
    n: tuple[int | None, int | None] = (None, None)
    version: str = ""


@dataclass(frozen=True, slots=True)
class ComparedSet:
    """One side: pictures read (None for statistics that do not say), and why others were not."""

    label: str
    n: int | None
    problems: dict[str, str]


@dataclass(frozen=True, slots=True)
class Distances:
    """All figures; none if pictures are missing and nobody asked for a partial answer."""

    sets: tuple[ComparedSet, ...]
    metrics: tuple[Distance, ...]
    notes: tuple[str, ...]
    partial: bool = False

    @property
    def failed(self) -> int:
        """Pictures that are missing or unreadable."""
        return sum(len(compared.problems) for compared in self.sets)


def distance(
    paths: Sequence[Path],
    settings: Settings,
    progress: ProgressCallback = no_progress,
    save: Callable[[SetStatistics], None] | None = None,
) -> Distances:
    """Measure the distances between two sets; of one set, only collect its statistics.

    Args:
        paths: one or two run folders, folders of images, or statistics (.npz).
        settings: how.
        progress: is told what is read.
        save: takes the statistics of the first set, if nothing is missing or `partial` is set.

    Raises:
        BadInput: a set, statistics or weights are not as they must be; fewer than two pictures.
    """
    if save is not None and len(settings.features) > 1:
        raise BadInput(
            "a file of statistics holds one kind of features, but these metrics need "
            f"{', '.join(settings.features)}: save them one by one"
        )
    opened = [_open(path, settings) for path in paths]
    sets = _collect(opened, settings, progress)
    compared = tuple(
        ComparedSet(shown(path), found.n, found.problems) for path, found in zip(paths, sets, strict=True)
    )
    notes = [f"{o.label}: {note}" for o in opened if isinstance(o, PictureSet) for note in o.notes]
    failed = sum(len(one.problems) for one in compared)
    if failed and not settings.partial:
        return Distances(compared, (), tuple(notes))
    for one in compared:
        if one.n is not None and one.n < 2:
            raise BadInput(f"{one.label} has {one.n} readable picture: a distribution needs two or more")
    if save is not None:
        save(sets[0].statistics[settings.features[0]])
    metrics = tuple(_measure(sets, settings)) if len(sets) == 2 else ()
    notes += _notes(compared, sets, settings)
    return Distances(compared, metrics, tuple(dict.fromkeys(notes)), partial=failed > 0)


def _open(path: Path, settings: Settings) -> PictureSet | SetStatistics:
    if path.suffix != ".npz" or path.is_dir():
        return open_pictures(path)
    found = read_statistics(path)
    if len(settings.features) > 1:
        raise BadInput(
            f"{shown(path)} holds one kind of features, but these metrics need "
            f"{', '.join(settings.features)}: compare with it for one of them at a time"
        )
    if settings.kept and found.vectors is None:
        needs = ", ".join(name for name in settings.metrics if METRICS[name].formula != "frechet")
        raise BadInput(f"{shown(path)} has no `feats`, which {needs} needs: mean and covariance do not do")
    if not settings.kept.issuperset(settings.features) and found.gaussian is None:
        raise BadInput(f"{shown(path)} has no `mu` and `sigma`, which a Fréchet distance needs")
    return found


def _collect(
    opened: Sequence[PictureSet | SetStatistics], settings: Settings, progress: ProgressCallback
) -> list[Collected]:
    """The statistics of each set. Networks are loaded if there are pictures."""
    has_pictures = any(isinstance(one, PictureSet) for one in opened)
    networks = networks_for(settings) if has_pictures else {}
    found = []
    with ExitStack() as stack:
        for network in networks.values():
            stack.enter_context(network)
        for side, one in zip("AB", opened, strict=False):
            if isinstance(one, SetStatistics):
                found.append(Collected({settings.features[0]: one}, one.seen))
                continue
            found.append(
                collect(
                    one,
                    networks,
                    settings.kept,
                    stage=f"read {side}",
                    batch_size=settings.batch_size,
                    seed=settings.seed,
                    partial=settings.partial,
                    progress=progress,
                )
            )
    return found


def _measure(sets: Sequence[Collected], settings: Settings) -> Iterator[Distance]:
    for name in settings.metrics:
        metric = METRICS[name]
        first, second = (found.statistics[metric.features] for found in sets)
        versions = {one.version for one in (first, second) if one.version}
        if len(versions) > 1:
            raise BadInput(
                f"{name}: the two sides have different features ({' and '.join(sorted(versions))}): "
                "use the same weights for both"
            )
        _check_widths(name, first, second)
        formula = {"frechet": _frechet, "kid": _kid, "cmmd": _cmmd}[metric.formula]
        with np.errstate(over="ignore", invalid="ignore"):
            figure = formula((first, second), settings)
        if not math.isfinite(figure.value):
            raise BadInput(f"{name}: the numbers of the two sides are too large for a distance")
        yield replace(
            figure,
            metric=name,
            n=(first.seen, second.seen),
            version="+".join([f"{name}-{metric.version}", *versions]),
        )


def _check_widths(name: str, first: SetStatistics, second: SetStatistics) -> None:
    if first.width != second.width:
        raise BadInput(f"{name}: features of {first.width} and of {second.width} numbers are no pair")


def _frechet(pair: Pair, _: Settings) -> Distance:
    first, second = (one.gaussian for one in pair)
    assert first is not None
    assert second is not None
    return Distance(frechet_distance(first, second))


def _kid(pair: Pair, settings: Settings) -> Distance:
    found = kernels.kid(pair[0].kept(), pair[1].kept(), settings.seed)
    figure = Distance(
        found.value, standard_error=found.standard_error, subset_deviation=found.subset_deviation
    )
    if not settings.intervals:
        return figure
    low, high = _sums(pair, kernels.cubic, settings.seed).spread(settings.seed)
    return replace(figure, low=found.value + low, high=found.value + high)


def _cmmd(pair: Pair, settings: Settings) -> Distance:
    sums = _sums(pair, kernels.gaussian, settings.seed)
    value = kernels.cmmd(sums)
    if not settings.intervals:
        return Distance(value)
    low, high = (value + kernels.CMMD_SCALE * offset for offset in sums.spread(settings.seed))
    return Distance(value, max(0.0, low), high)


def _sums(pair: Pair, kernel: kernels.Kernel, seed: int) -> kernels.KernelSums:
    vectors, units = zip(*((one.kept(), one.units_of()) for one in pair), strict=True)
    return kernels.KernelSums.of(vectors, units, kernel, seed)


def _notes(compared: Sequence[ComparedSet], sets: Sequence[Collected], settings: Settings) -> Iterator[str]:
    """What a reader of the figures must know."""
    for one, found in zip(compared, sets, strict=True):
        for name in settings.features:
            statistics = found.statistics[name]
            yield from _notes_of(one, statistics, settings, name)


def _notes_of(
    one: ComparedSet, statistics: SetStatistics, settings: Settings, features: str
) -> Iterator[str]:
    mine = [name for name in settings.metrics if METRICS[name].features == features]
    fitted = [name for name in mine if METRICS[name].formula == "frechet"]
    if not statistics.version:
        yield f"{one.label} does not say how its features were made: it must be those of {', '.join(mine)}"
    if fitted and statistics.seen is None:
        yield (
            f"{one.label} does not say of how many pictures it is; {', '.join(fitted)} is biased upwards, "
            "the more the fewer there are"
        )
    elif fitted and statistics.seen is not None and statistics.seen <= statistics.width:
        yield (
            f"{', '.join(fitted)}: {one.label} has {statistics.seen:,} pictures for {statistics.width:,} "
            "dimensions: its covariance is singular and the distance is biased upwards, so compare it with "
            "that of as many other pictures alone"
        )
    if features in settings.kept and statistics.seen is not None and statistics.seen > KEPT:
        yield f"{one.label}: KID and CMMD are of a sample of {KEPT:,} of its {statistics.seen:,} pictures"
