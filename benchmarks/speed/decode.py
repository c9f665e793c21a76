"""Decoding speed of the engines on random weights of the real shape: no download, one run, one table.

    python benchmarks/speed/decode.py                      # CPU: 0.5B, bfloat16, a part of a picture
    python benchmarks/speed/decode.py --device cuda --side 64 --images 1 8 64

Every variant decodes the same prompts with guidance 6. `hf` is the yardstick: transformers' own decoder,
two forwards a token. Bytes a step are what a step must read at least: the layers and the rows of the
head that are sampled from, once a forward, and each row's filled cache.
"""

import argparse
import dataclasses
import datetime
import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from sar_eval.engines.hf import HfEngine
from sar_eval.models.checkpoint import Checkpoint
from sar_eval.models.decoding import BatchDecoder, Decoded, Vocabulary
from sar_eval.models.memory import kv_bytes
from sar_eval.models.noise import noise_keys
from sar_eval.models.qwen2 import Decoder
from sar_eval.models.shape import Shape
from sar_eval.models.speculation import Speculation
from sar_eval.types import DrawProtocol

TEXT, VISUAL = 151_672, 64_000  # Qwen2.5's tokenizer with SimpleAR's special tokens; Cosmos' codes
SHAPES = {
    "0.5B": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
    },
    "1.5B": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
    },
    "tiny": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
}
PROMPT, NEGATIVE = 24, 30  # tokens, about what the protocol gives for a GenEval prompt
PROTOCOL = DrawProtocol("speed", 1024, guidance=6.0)


class Random(Checkpoint):
    """A checkpoint of random weights that were never in a file."""

    weights: dict[str, torch.Tensor]
    config: dict[str, object]
    text_vocabulary = TEXT
    codebook_size = VISUAL

    def _weights(self, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return {name: tensor.to(device, dtype) for name, tensor in self.weights.items()}


def make_checkpoint(name: str) -> Random:
    """Random weights of a shape, in bfloat16."""
    config = SHAPES[name] | {
        "model_type": "qwen2",
        "num_key_value_heads": 2,
        "vocab_size": TEXT + VISUAL,
        "rope_theta": 1e6,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32_768,
        "tie_word_embeddings": True,
    }
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    with torch.device("meta"):
        names = {n: t.shape for n, t in Qwen2ForCausalLM(Qwen2Config(**config)).state_dict().items()}
    weights = {
        n: torch.randn(s, dtype=torch.bfloat16) * 0.02 for n, s in names.items() if n != "lm_head.weight"
    }
    weights |= {n: torch.ones_like(t) for n, t in weights.items() if "norm" in n}
    checkpoint = Random(name, Path(), Path())
    checkpoint.__dict__ |= {"weights": weights, "config": config}
    return checkpoint


@dataclasses.dataclass
class Row:
    """A measured variant."""

    images: int
    variant: str
    seconds: float
    steps: float
    tokens: int
    step_bytes: float
    peak: float

    def cells(self, base: float, bandwidth: float) -> list[str]:
        """The row as text; `base` is the tokens/s of the first variant."""
        rate = self.images * self.tokens / self.seconds
        achieved = self.step_bytes * self.steps / self.seconds / 1e9
        return [
            str(self.images),
            self.variant,
            f"{rate:.1f}",
            f"{rate / base:.2f}x",
            f"{1 / (self.seconds / self.images / self.tokens * 4096):.4f}",
            f"{self.steps / self.tokens:.2f}",
            f"{self.step_bytes / 1e9:.2f}",
            f"{achieved:.1f} ({achieved / bandwidth:.0%})",
            f"{self.peak:.1f}",
        ]


HEADER = (
    "images",
    "engine",
    "tokens/s",
    "ratio",
    "images/s of 4,096 tokens",
    "forwards a token",
    "GB a step",
    "GB/s (of the bandwidth)",
    "peak GB",
)


def copy_bandwidth(device: str) -> float:
    """GB/s of a large copy, bytes read and written, the best of five."""
    source = torch.empty(400_000_000, dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(5):
        began = now(device)
        target.copy_(source)
        best = max(best, 2 * source.numel() / (now(device) - began) / 1e9)
    return best


def now(device: str) -> float:
    """Seconds, after the device has done what it was given."""
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_gb(device: str) -> float:
    """The most memory so far: of the device since the last reset, or of this process."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


class Bench:
    """One shape on one device, all engines on the same prompts."""

    def __init__(self, checkpoint: Random, device: str, dtype: str, side: int) -> None:
        self.checkpoint, self.device, self.dtype, self.tokens = checkpoint, device, dtype, side**2
        self.itemsize = 4 if dtype == "float32" else 2

    def prompts(self, images: int) -> list[list[int]]:
        """Token ids of the prompted rows and the negative rows."""
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(0, TEXT, (images, PROMPT), generator=generator).tolist()
        return ids + [torch.randint(0, TEXT, (NEGATIVE,), generator=generator).tolist()] * images

    def bytes_a_step(self, images: int, head_rows: int, forwards: int) -> float:
        """What a step must read at least."""
        shape = Shape.read(self.checkpoint.config)
        query = shape.heads * shape.head_dim
        layer = shape.hidden * (2 * query + 2 * shape.kv_heads * shape.head_dim + 3 * shape.intermediate)
        weights = (shape.layers * layer + head_rows * shape.hidden) * self.itemsize
        filled = 2 * images * (PROMPT + self.tokens / 2) * kv_bytes(shape, self.itemsize)
        return forwards * weights + filled

    def measure(
        self, images: int, variant: str, run: Callable[[], Decoded], head_rows: int, forwards: int
    ) -> Row:
        """Time one run (on a GPU the second one)."""
        if self.device != "cpu":
            run()  # captures the graphs
            torch.cuda.reset_peak_memory_stats()
        began = now(self.device)
        decoded = run()
        seconds = now(self.device) - began
        steps = max(decoded.steps)
        size = self.bytes_a_step(images, head_rows, forwards)
        return Row(images, variant, seconds, steps, self.tokens, size, peak_gb(self.device))

    def rows(self, images: int, decoder: Decoder, variants: list[str]) -> Iterator[Row]:
        """One round of the variants."""
        if "hf" in variants:
            yield self.hf(images)
        yield self.native(images, decoder)
        if "speculate" in variants and images <= 4:
            yield self.native(images, decoder, window=8)

    @torch.inference_mode()
    def hf(self, images: int) -> Row:
        """The yardstick."""
        engine = HfEngine.__new__(HfEngine)
        engine.checkpoint, engine.protocol, engine.device, engine.dtype = (
            self.checkpoint,
            PROTOCOL,
            self.device,
            self.dtype,
        )
        engine.steps = self.tokens
        engine.load()
        prompts, keys = self.prompts(images), self.keys(images)

        def run() -> Decoded:
            tokens, failed_at = engine.loop(prompts[:images], prompts[images:], keys)
            return Decoded(tokens, failed_at, failed_at, [self.tokens - 1])

        return self.measure(images, "hf", run, TEXT + VISUAL, 2)

    def keys(self, images: int) -> torch.Tensor:
        """The noise of all steps."""
        return noise_keys(list(range(images)), self.tokens, torch.device(self.device))

    @torch.inference_mode()
    def native(self, images: int, decoder: Decoder, *, window: int = 0) -> Row:
        """Our loop, or our speculation with a window."""
        vocabulary = Vocabulary(decoder, range(TEXT, TEXT + VISUAL), full=False)
        prompts, keys = self.prompts(images), self.keys(images)
        batch = BatchDecoder(decoder, vocabulary, PROTOCOL, images, NEGATIVE, self.tokens)

        def run() -> Decoded:
            if window:
                return Speculation(decoder, vocabulary, PROTOCOL, prompts, keys, window).run()
            return batch.run(prompts, keys)

        return self.measure(images, "native --speculate" if window else "native", run, VISUAL, 1)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="0.5B", choices=SHAPES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--side", type=int, default=8, help="visual tokens along one side of a picture")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--variants", nargs="+", default=["hf", "native", "speculate"])
    parser.add_argument("--rounds", type=int, default=3, help="of all variants; the fastest of each counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bandwidth = copy_bandwidth(options.device)
    bench = Bench(make_checkpoint(options.shape), options.device, options.dtype, options.side)
    decoder = bench.checkpoint.load_decoder(options.device, options.dtype)
    best: dict[tuple[int, str], Row] = {}
    for _ in range(options.rounds):
        for images in options.images:
            for row in bench.rows(images, decoder, options.variants):
                before = best.setdefault((images, row.variant), row)
                best[images, row.variant] = min(row, before, key=lambda r: r.seconds)
    rows = list(best.values())
    base = {}
    for row in rows:
        base.setdefault(row.images, row.images * row.tokens / row.seconds)
    device = torch.cuda.get_device_name() if options.device != "cpu" else platform.processor() or "CPU"
    print(f"{datetime.date.today()}, {device}, {options.threads} threads, torch {torch.__version__}")
    print(f"{options.shape}, {options.dtype}, guidance 6, {bench.tokens} tokens a picture; ", end="")
    print(f"copy bandwidth {bandwidth:.1f} GB/s; command: {json.dumps(sys.argv[1:])}\n")
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells(base[row.images], bandwidth) for row in rows)]
    print("\n".join("| " + " | ".join(line) + " |" for line in lines))


if __name__ == "__main__":
    main()
