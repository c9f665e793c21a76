"""Inception v3 as TensorFlow's file of 2015-12-05 has it, up to the pooled features: the network of FID.

It differs from torchvision's: average pooling leaves out the padding, and the last block pools by the
maximum. Names of tensors are those of pytorch-fid's weights. Widths are read from the weights, so a narrow
network for tests has the same code.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 1008  # of the original's classifier, which features do not need; torchvision's has 1,000
# Convolutions before the blocks, with stride and padding; "pool" is max pooling.
STEM = (
    *(("Conv2d_1a_3x3", 2, 0), ("Conv2d_2a_3x3", 1, 0), ("Conv2d_2b_3x3", 1, 1), ("pool", 2, 0)),
    *(("Conv2d_3b_1x1", 1, 0), ("Conv2d_4a_3x3", 1, 0), ("pool", 2, 0)),
)
# Branches of the blocks, each a chain of convolutions; a pair at the end of one is a fork. Then the
# pooling, which is followed by a convolution where the stride is 1.
_A = ("branch1x1", "branch5x5_1 branch5x5_2", "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3")
_B = ("branch3x3", "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3")
_C = (
    *("branch1x1", "branch7x7_1 branch7x7_2 branch7x7_3"),
    "branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4 branch7x7dbl_5",
)
_D = ("branch3x3_1 branch3x3_2", "branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4")
_E = (
    *("branch1x1", "branch3x3_1 branch3x3_2a|branch3x3_2b"),
    "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a|branch3x3dbl_3b",
)
BLOCKS = {
    **{f"Mixed_5{letter}": (_A, "average") for letter in "bcd"},
    "Mixed_6a": (_B, "reduce"),
    **{f"Mixed_6{letter}": (_C, "average") for letter in "bcde"},
    "Mixed_7a": (_D, "reduce"),
    "Mixed_7b": (_E, "average"),
    "Mixed_7c": (_E, "maximum"),
}


class Convolution(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, shape: torch.Size, stride: int, padding: tuple[int, int]) -> None:
        super().__init__()
        out, into, height, width = shape
        self.conv = nn.Conv2d(into, out, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` to `[N, C', H', W']`."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Block(nn.Module):
    """Branches side by side, the last of them a pooling; their channels are concatenated."""

    def __init__(self, shapes: Mapping[str, torch.Size], branches: tuple[str, ...], pooling: str) -> None:
        super().__init__()
        self.pooling, self.chains = pooling, [branch.split() for branch in branches]
        for chain in self.chains:
            for number, step in enumerate(chain, 1):
                halves = pooling == "reduce" and number == len(chain)
                for name in step.split("|"):
                    self.add_module(name, _convolution(shapes[name], halves))
        if pooling != "reduce":
            self.branch_pool = _convolution(shapes["branch_pool"], halves=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` to `[N, C', H, W]`, or half that size."""
        return torch.cat([*(self._run(chain, x) for chain in self.chains), self._pool(x)], 1)

    def _run(self, chain: list[str], x: Tensor) -> Tensor:
        for step in chain:
            x = torch.cat([self.get_submodule(name)(x) for name in step.split("|")], 1)
        return x

    def _pool(self, x: Tensor) -> Tensor:
        if self.pooling == "reduce":
            return F.max_pool2d(x, 3, 2)
        if self.pooling == "maximum":
            pooled = F.max_pool2d(x, 3, 1, 1)
        else:
            pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return self.branch_pool(pooled)  # type: ignore[no-any-return]


class Inception(nn.Module):
    """From normalised pictures `[N, 3, 299, 299]` to pooled features `[N, D]`, D = 2048 in the original."""

    def __init__(self, shapes: Mapping[str, torch.Size]) -> None:
        """Make the network of the widths that its tensors have.

        Args:
            shapes: of the tensors by name.

        Raises:
            KeyError: the weights of a convolution are not among them.
        """
        super().__init__()
        for name, stride, padding in STEM:
            if name != "pool":
                shape = shapes[f"{name}.conv.weight"]
                self.add_module(name, Convolution(shape, stride, (padding, padding)))
        for name, (branches, pooling) in BLOCKS.items():
            self.add_module(name, Block(_of_block(shapes, name), branches, pooling))

    def forward(self, x: Tensor) -> Tensor:
        """The features."""
        for name, stride, _ in STEM:
            x = F.max_pool2d(x, 3, stride) if name == "pool" else self.get_submodule(name)(x)
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))


def _convolution(shape: torch.Size, halves: bool) -> Convolution:
    """Of the size of its input, or half of it."""
    return Convolution(shape, 2 if halves else 1, (0, 0) if halves else (shape[2] // 2, shape[3] // 2))


def _of_block(shapes: Mapping[str, torch.Size], block: str) -> dict[str, torch.Size]:
    start, end = f"{block}.", ".conv.weight"
    names = [name for name in shapes if name.startswith(start) and name.endswith(end)]
    return {name.removeprefix(start).removesuffix(end): shapes[name] for name in names}
