"""A step's matrix products on the CPU, by how their weights are stored.

    python benchmarks/speed/packed_weights.py        # the shapes of SimpleAR-0.5B and Janus-Pro-1B
    python benchmarks/speed/packed_weights.py --dtype bfloat16 --rows 2 8

The weights are random numbers of bfloat16, as published checkpoints have them, and as many of one shape as
no cache holds. Variants take turns; the fastest of the rounds counts.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

if __package__:
    from benchmarks.speed.decode import copy_bandwidth
else:
    from decode import copy_bandwidth

from sar_eval.decoding.linear import HalfStored, OneDnn, Plain, can_pack, scaled_to_half

SHAPES = {  # [out, in] of the products of a layer
    "SimpleAR-0.5B": {"qkv": (1152, 896), "out": (896, 896), "gate, up": (9728, 896), "down": (896, 4864)},
    "Janus-Pro-1B": {
        "qkv": (6144, 2048),
        "out": (2048, 2048),
        "gate, up": (11_264, 2048),
        "down": (2048, 5632),
    },
}
BYTES_OF_COPIES = 400e6  # of weights of one shape, in float32


def half_stored(weight: torch.Tensor) -> HalfStored:
    """Stored in float16."""
    found = scaled_to_half(weight)
    assert found is not None
    return HalfStored(*found, None, weight.dtype)


Variant = Callable[[torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]
VARIANTS: dict[str, Variant] = {
    "PyTorch": lambda weight: Plain(weight, None),
    "oneDNN, packed": lambda weight: OneDnn(weight, None),
    "float16, packed": half_stored,
}


def measure(
    shape: tuple[int, int], variants: list[Variant], options: argparse.Namespace
) -> dict[int, list[float]]:
    """Milliseconds of one product by number of rows, in the order of the variants."""
    copies = max(2, int(BYTES_OF_COPIES / (4 * shape[0] * shape[1])))
    dtype = getattr(torch, options.dtype)
    # One number in some hundred millions would be too small to be stored in float16 beside the others.
    weights = [F.hardshrink(torch.randn(shape), 1e-6) * 0.02 for _ in range(copies)]
    weights = [weight.bfloat16().to(dtype) for weight in weights]
    stored = [[variant(weight) for weight in weights] for variant in variants]
    best = {rows: [float("inf")] * len(stored) for rows in options.rows}
    for _ in range(options.rounds):
        for rows, fastest in best.items():
            x = torch.randn(rows, shape[1]).to(dtype)
            for index, products in enumerate(stored):
                started = time.perf_counter()
                for product in products:
                    product(x)
                seconds = time.perf_counter() - started
                fastest[index] = min(fastest[index], seconds / copies * 1e3)
    return best


def print_network(name: str, options: argparse.Namespace) -> None:
    """The table of one network's layer."""
    packs = can_pack(getattr(torch, options.dtype))
    variants = {label: one for label, one in VARIANTS.items() if packs or not label.startswith("oneDNN")}
    measured = [measure(shape, list(variants.values()), options) for shape in SHAPES[name].values()]
    numbers = sum(out * inner for out, inner in SHAPES[name].values())
    print(f"\n{name}, one layer: {numbers / 1e6:.1f} million weights, {options.dtype}\n")
    header = ["rows", *variants, "ratio", "GB/s of float16"]
    print("| " + " | ".join(header) + " |\n| " + " | ".join("---" for _ in header) + " |")
    for rows in options.rows:
        times = [sum(by_shape[rows][index] for by_shape in measured) for index in range(len(variants))]
        cells = [str(rows), *(f"{value:.1f} ms" for value in times)]
        ratio, read = times[0] / times[-1], 2 * numbers / times[-1] / 1e6
        print("| " + " | ".join([*cells, f"{ratio:.1f}x", f"{read:.1f}"]) + " |")


@torch.inference_mode()
def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 96])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    bandwidth = copy_bandwidth("cpu")
    print(
        f"{datetime.date.today()}, {torch.get_num_threads()} threads, torch {torch.__version__}, ", end=""
    )
    print(f"{torch.backends.cpu.get_cpu_capability()}; copy bandwidth {bandwidth:.1f} GB/s")
    for name in SHAPES:
        print_network(name, options)


if __name__ == "__main__":
    main()
