"""CPU time of sampling draws one at a time, in chunks, and all at once; and of whole images.

    python benchmarks/speed/sampling.py

Every variant is timed in turn, the least CPU time of the rounds counts, and ratios are to one draw at a
time in the same run: on a machine that others use, too, seconds of different runs say little.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Callable, Mapping

import torch

from sar_eval.decoding import sampling
from sar_eval.decoding.noise import noise_keys
from sar_eval.engines.native import NativeEngine
from sar_eval.types import DrawProtocol, Prompt, make_draw

DRAWS = 64
CHUNKS = (2**16, 2**18, 2**20, 2**30)  # scores
PROTOCOLS = {
    "guidance 2": DrawProtocol("speed", 64, guidance=2.0),
    "guidance 2, top-k 500, top-p 0.9": DrawProtocol("speed", 64, guidance=2.0, top_k=500, top_p=0.9),
}
HEADER = (
    "what",
    "codes",
    *(f"chunks of {chunk:,}" for chunk in CHUNKS[:-1]),
    "all at once",
    "one by one, ms",
)


def least_cpu_seconds(variants: Mapping[int, Callable[[], object]], rounds: int) -> dict[int, float]:
    """The least CPU time of each variant, over rounds in which all take turns."""
    best = dict.fromkeys(variants, float("inf"))
    for _ in range(rounds):
        for name, run in variants.items():
            started = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - started)
    return best


def with_chunks(run: Callable[[], object]) -> dict[int, Callable[[], object]]:
    """The same with chunks of one score (that is, one draw) and of each size."""

    def variant(chunk: int) -> Callable[[], object]:
        def chunked() -> object:
            sampling.CHUNK_SCORES = chunk
            return run()

        return chunked

    return {chunk: variant(chunk) for chunk in (1, *CHUNKS)}


def row(what: str, codes: int, seconds: Mapping[int, float]) -> str:
    """A line of the table: how many times as fast as one draw at a time."""
    ratios = [f"{seconds[1] / seconds[chunk]:.2f}x" for chunk in CHUNKS]
    return "| " + " | ".join([what, f"{codes:,}", *ratios, f"{1000 * seconds[1]:.1f}"]) + " |"


@torch.inference_mode()
def sampling_row(name: str, codes: int, scored: bool, rounds: int) -> str:
    """One token of 64 guided draws, from logits."""
    protocol, device = PROTOCOLS[name], torch.device("cpu")
    logits, ids = torch.randn(2 * DRAWS, codes), torch.arange(codes, dtype=torch.int32)
    keys = noise_keys(list(range(DRAWS)), 1, device)[0]
    function = sampling.sample_and_score if scored else sampling.sample
    variants = with_chunks(lambda: function(logits, keys, ids, protocol))
    what = f"64 tokens, {name}" + (", log-probabilities" if scored else "")
    return row(what, codes, least_cpu_seconds(variants, rounds))


def images_row(rounds: int) -> str:
    """64 guided images of the demo checkpoint, without pixels."""
    draws = [make_draw(Prompt(f"p{n}", "a photo of two red rings"), n, 0) for n in range(DRAWS)]
    with NativeEngine("demo:sft", PROTOCOLS["guidance 2"], batch_size=DRAWS) as engine:
        engine.decode_tokens(draws)  # allocates the buffers
        seconds = least_cpu_seconds(with_chunks(lambda: engine.decode_tokens(draws)), rounds)
        return row("64 images of demo:sft", engine.checkpoint.codebook_size, seconds)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{datetime.date.today()}, CPU, {options.threads} threads, torch {torch.__version__}\n")
    print("\n".join("| " + " | ".join(line) + " |" for line in (HEADER, ["---"] * len(HEADER))))
    for codes in (2560, 64_000):
        print(sampling_row("guidance 2", codes, False, options.rounds))
        print(sampling_row("guidance 2", codes, True, options.rounds))
    print(sampling_row("guidance 2, top-k 500, top-p 0.9", 2560, False, options.rounds))
    print(images_row(options.rounds))


if __name__ == "__main__":
    main()
