"""All pairs of embeddings whose cosine is at least a number, exactly.

Everything is compared with everything: at 14 degrees (a cosine of 0.97), embeddings of CLIP lie too close
together for bands or trees to leave pairs out and lose none. A product in float32 finds who may be near;
its error is bounded, so none is missed, and whoever may be is decided in whole numbers: CPU and GPU agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sar_eval.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 2048  # embeddings of a block; two blocks are compared at a time
SCALE = 2.0**24  # makes every float16 a whole number
DECIDED_AT_ONCE = 2**22  # numbers
LONGEST, SHORTEST = 1.05, 0.95  # of an embedding that was normalised and rounded


def near_embeddings(
    embeddings: NDArray[np.float16], similarity: float, device: str = "cpu"
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The places of every two embeddings `[n, D]` of length 1 whose cosine is at least `similarity`.

    Costs n^2 * D operations. Each pair comes once.

    Args:
        embeddings: all of them.
        similarity: between 0 and 1.
        device: torch device of the products.

    Raises:
        BadInput: an embedding has another length than 1, or is no number.
    """
    least = _least_product(similarity, embeddings.shape[1])
    for start in range(0, len(embeddings), ROWS):
        rows = _on_device(embeddings[start : start + ROWS], device)
        for other in range(start, len(embeddings), ROWS):
            columns = _on_device(embeddings[other : other + ROWS], device)
            found = ((rows @ columns.T) >= least).nonzero().cpu().numpy() + np.array([start, other])
            left, right = found[found[:, 0] < found[:, 1]].T
            yield from _decide(embeddings, left, right, similarity)


def _least_product(similarity: float, width: int) -> float:
    """What the float32 product of two normalised vectors has at least if their cosine is `similarity`.

    A sum of D products has an error of at most D * 2**-24, whatever the order of the sum (N. Higham,
    "Accuracy and Stability of Numerical Algorithms", section 3.1); there are a few more from normalising.
    Twice that covers the terms of higher order.
    """
    return similarity - 2 * (width + 8) * 2.0**-24


def _on_device(embeddings: NDArray[np.float16], device: str) -> Tensor:
    """Float32, of length 1 but for rounding."""
    import torch

    vectors = embeddings.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return torch.from_numpy(vectors).to(device)


def _decide(
    embeddings: NDArray[np.float16],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    similarity: float,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Those pairs whose cosine is large enough, by integer products of a few at a time."""
    step = max(1, DECIDED_AT_ONCE // max(embeddings.shape[1], 1))
    for start in range(0, len(left), step):
        first, second = left[start : start + step], right[start : start + step]
        one, two = _whole(embeddings[first]), _whole(embeddings[second])
        lengths = np.sqrt(_products(one, one) * _products(two, two))
        near = _products(one, two) >= similarity * lengths
        if near.any():
            yield first[near], second[near]


def _whole(embeddings: NDArray[np.float16]) -> NDArray[np.int64]:
    return (embeddings.astype(np.float64) * SCALE).astype(np.int64)


def _products(one: NDArray[np.int64], two: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each two vectors; the sum is exact, below 2**50."""
    return np.asarray(np.einsum("nd,nd->n", one, two), np.float64)


def check_unit(embeddings: NDArray[np.float16]) -> None:
    """Refuse what no network of ours stored.

    Raises:
        BadInput: an embedding is not of length 1, or is no number.
    """
    for start in range(0, len(embeddings), ROWS):
        lengths = np.linalg.norm(embeddings[start : start + ROWS].astype(np.float32), axis=1)
        if not np.all((lengths > SHORTEST) & (lengths < LONGEST)):
            raise BadInput("an embedding of the set is not of length 1: `sar-eval synth verify`")
