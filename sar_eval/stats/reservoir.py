"""A random sample of bounded size of vectors that come in batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Reservoir:
    """Keeps all vectors up to a number; of more, a sample in which each is as likely (Vitter 1985).

    The sample depends on the seed and on the order of the vectors, not on their batches.
    """

    def __init__(self, capacity: int, seed: int) -> None:
        """Keep at most `capacity` vectors."""
        self.capacity, self.seen = capacity, 0
        self._rng = np.random.default_rng(seed)
        self._vectors: list[NDArray[Any]] = []
        self._units: list[int] = []

    def add(self, vectors: NDArray[Any], units: NDArray[np.int64]) -> None:
        """Take in vectors `[N, D]`, each with the number of what it belongs to."""
        for vector, unit in zip(vectors, units.tolist(), strict=True):
            if self.seen < self.capacity:
                self._vectors.append(vector.copy())
                self._units.append(unit)
            elif (place := int(self._rng.random() * (self.seen + 1))) < self.capacity:
                self._vectors[place], self._units[place] = vector.copy(), unit
            self.seen += 1

    def vectors(self) -> NDArray[Any]:
        """What is kept, `[N, D]`."""
        return np.stack(self._vectors)

    def units(self) -> NDArray[np.int64]:
        """To what each of them belongs, `[N]`."""
        return np.array(self._units, dtype=np.int64)
