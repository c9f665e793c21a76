"""Compare the tensors of a file with those of a model."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def describe_mismatch(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """The number and the first of missing, unexpected and unfit tensors; "" if all fit.

    Whole numbers in place of real ones are a quantised network's: cast, they would be another network.
    """
    both = [name for name in expected if name in state]
    wrong_shape = [name for name in both if state[name].shape != expected[name].shape]
    wrong_kind = [n for n in both if expected[n].is_floating_point() > state[n].is_floating_point()]
    groups = {
        "missing": sorted(set(expected) - set(state)),
        "unexpected": sorted(set(state) - set(expected)),
        "of another shape": [
            f"{name} is {list(state[name].shape)}, the model's is {list(expected[name].shape)}"
            for name in wrong_shape
        ],
        "of another kind of number": [
            f"{name} is {_kind(state[name])}, the model's is {_kind(expected[name])}" for name in wrong_kind
        ],
    }
    return "; ".join(f"{len(names)} {kind} ({names[0]}, ...)" for kind, names in groups.items() if names)


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
