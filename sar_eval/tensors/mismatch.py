"""Compare the tensors of a file with those of a model."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def describe_mismatch(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """The number and the first of missing, unexpected and differently shaped tensors; "" if all fit."""
    wrong_shape = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    groups = {
        "missing": sorted(set(expected) - set(state)),
        "unexpected": sorted(set(state) - set(expected)),
        "of another shape": [
            f"{name} is {list(state[name].shape)}, the model's is {list(expected[name].shape)}"
            for name in wrong_shape
        ],
    }
    return "; ".join(f"{len(names)} {kind} ({names[0]}, ...)" for kind, names in groups.items() if names)
