"""From pictures to statistics of their features; each picture is decoded once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_eval.errors import BadInput
from sar_eval.images.files import DECODING_THREADS
from sar_eval.images.picture import Picture
from sar_eval.runtime.progress import ProgressCallback, ProgressEvent
from sar_eval.stages.picture_sets import PictureSet, StoredPicture
from sar_eval.stages.set_statistics import SetStatistics
from sar_eval.stats.frechet import Moments
from sar_eval.stats.reservoir import Reservoir

if TYPE_CHECKING:
    from sar_eval.networks.set_features import FeatureNetwork

KEPT = 50_000  # vectors of a set for KID and CMMD: 400 MB of Inception's


class Collector:
    """Statistics of one kind of features, as far as the metrics need them.

    Mean and covariance take the same memory for any number of pictures. For KID and CMMD the vectors
    themselves are kept: all of up to 50,000, of more a random sample.
    """

    def __init__(self, network: FeatureNetwork, *, kept: bool, seed: int) -> None:
        """Collect mean and covariance, and with `kept` the vectors too."""
        self.network, self.seen = network, 0
        self._moments: Moments | None = None
        self._kept = Reservoir(KEPT, seed) if kept else None
        self._units: dict[str, int] = {}

    def add(self, pictures: Sequence[StoredPicture], prepared: Sequence[Any]) -> None:
        """Embed a batch.

        Raises:
            BadInput: the network gives something else than finite numbers.
        """
        vectors = self.network.embed(prepared)
        if not np.isfinite(vectors).all():
            raise BadInput(f"features of {pictures[0].name} are not finite: are the weights damaged?")
        self.seen += len(vectors)
        moments = Moments.of(vectors)
        if self._moments is None:
            self._moments = moments
        else:
            self._moments.add(moments)
        if self._kept is not None:
            numbers = [self._units.setdefault(picture.unit, len(self._units)) for picture in pictures]
            self._kept.add(vectors, np.array(numbers, dtype=np.int64))

    def statistics(self) -> SetStatistics:
        """What was collected of two pictures or more."""
        gaussian = None if self._moments is None else self._moments.gaussian()
        vectors, units = (None, None) if self._kept is None else (self._kept.vectors(), self._kept.units())
        return SetStatistics(gaussian, vectors, units, self.network.version, self.seen)


@dataclass(frozen=True, slots=True)
class Collected:
    """Statistics by features; empty where too few pictures were read, or some are missing.

    Attributes:
        n: pictures that were read.
        problems: why others were not, by name.
    """

    statistics: dict[str, SetStatistics]
    n: int | None
    problems: dict[str, str] = field(default_factory=dict)


def collect(
    pictures: PictureSet,
    networks: Mapping[str, FeatureNetwork],
    kept: frozenset[str],
    *,
    stage: str,
    batch_size: int,
    seed: int,
    partial: bool,
    progress: ProgressCallback,
) -> Collected:
    """Read all pictures of a set and embed them.

    After the first picture that cannot be read the others are only decoded, to name all that fail, unless
    `partial` takes what is there.

    Args:
        pictures: the set.
        networks: by name of the features, loaded.
        kept: names of the features whose vectors are needed themselves.
        stage: name for progress.
        batch_size: pictures of one forward pass; changes figures by rounding alone.
        seed: of the sample of a large set.
        partial: whether an incomplete set has statistics.
        progress: is told of every batch.
    """
    collectors = {
        name: Collector(network, kept=name in kept, seed=seed) for name, network in networks.items()
    }
    problems, n = dict(pictures.problems), 0
    progress(ProgressEvent(stage, 0, pictures.total, len(problems)))
    for batch in _batches(_prepared(pictures, networks, 2 * batch_size), batch_size):
        problems |= {picture.name: found for picture, found in batch if isinstance(found, str)}
        read = [(picture, found) for picture, found in batch if not isinstance(found, str)]
        n += len(read)
        if read and (partial or not problems):
            for name, collector in collectors.items():
                collector.add([picture for picture, _ in read], [found[name] for _, found in read])
        progress(ProgressEvent(stage, n, pictures.total, len(problems), 0, len(read)))
    if n < 2 or (problems and not partial):
        return Collected({}, n, problems)
    return Collected({name: c.statistics() for name, c in collectors.items()}, n, problems)


def _prepared(
    pictures: PictureSet, networks: Mapping[str, FeatureNetwork], ahead: int
) -> Iterator[tuple[StoredPicture, Any]]:
    """Each picture with its tensors by features, or with why there are none; decoded ahead, in threads."""
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        waiting: deque[tuple[StoredPicture, Future[Any]]] = deque()
        for picture in pictures.pictures():
            waiting.append((picture, pool.submit(_prepare, picture, networks)))
            if len(waiting) > ahead:
                yield _finished(waiting)
        while waiting:
            yield _finished(waiting)


def _finished(waiting: deque[tuple[StoredPicture, Future[Any]]]) -> tuple[StoredPicture, Any]:
    picture, future = waiting.popleft()
    return picture, future.result()


def _prepare(picture: StoredPicture, networks: Mapping[str, FeatureNetwork]) -> dict[str, Any] | str:
    try:
        decoded = Picture.from_bytes(picture.read())
        return {name: network.prepare(decoded) for name, network in networks.items()}
    except BadInput as error:
        return str(error)


def _batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(islice(items, size)):
        yield batch
