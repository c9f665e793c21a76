"""Decoding speed of the engines on random weights of the real shape: no download, one run, one table.

    python benchmarks/speed/decode.py                      # CPU: 0.5B, bfloat16, a part of an image
    python benchmarks/speed/decode.py --device cuda --side 64 --images 1 8 64
    python benchmarks/speed/decode.py --vllm .venv-vllm/bin/python         # and the engine vllm

vLLM has an environment of its own, so another process draws with it, on the same weights, when it is told
to; the others wait. Every variant decodes the same prompts with guidance 6. `hf` is the yardstick:
transformers' own decoder, two forwards a token. Bytes a step are what a step must read at least: the layers
and the rows of the head that are sampled from, once a forward, and each row's filled cache.
"""

import argparse
import dataclasses
import datetime
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from sar_eval.decoding.load import load_decoder
from sar_eval.decoding.loop import BatchDecoder, Decoded, Vocabulary
from sar_eval.decoding.memory import kv_bytes
from sar_eval.decoding.noise import noise_keys
from sar_eval.decoding.speculation import Speculation
from sar_eval.decoding.transformer import Decoder
from sar_eval.engines.hf import HfEngine
from sar_eval.families.shape import Shape
from sar_eval.families.simplear import Checkpoint
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
# Variants on vLLM: its options, and whether the whole head is computed.
ON_VLLM: dict[str, tuple[dict[str, Any], bool]] = {
    "vllm": ({}, False),
    "vllm, compiled": ({"enforce_eager": False}, False),
    "vllm, whole head": ({}, True),
}


class Random(Checkpoint):
    """A checkpoint of random weights, which are in no file unless `write` puts them there."""

    weights: dict[str, torch.Tensor]
    config: dict[str, object]
    text_vocabulary = TEXT
    codebook_size = VISUAL

    def read_weights(self, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Those in memory, or those of the folder."""
        if not self.weights:
            return super().read_weights(device, dtype)
        return {name: tensor.to(device, dtype) for name, tensor in self.weights.items()}

    def write(self, folder: Path) -> None:
        """Put it into files, for another process."""
        from safetensors.torch import save_file

        save_file(self.weights, folder / "model.safetensors")
        told = self.config | {"architectures": ["SimpARForCausalLM"]}
        (folder / "config.json").write_text(json.dumps(told))

    def prompt_ids(self, text: str) -> list[int]:
        """Ids of any text, for the check that the engine makes when it starts."""
        return [1, *(3 + ord(letter) for letter in text), 2]


def make_checkpoint(name: str, folder: Path | None = None) -> Random:
    """Random weights of a shape, in bfloat16, or those that another process wrote into a folder."""
    config = SHAPES[name] | {
        "model_type": "qwen2",
        "num_key_value_heads": 2,
        "vocab_size": TEXT + VISUAL,
        "rope_theta": 1e6,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32_768,
        "tie_word_embeddings": True,
    }
    checkpoint = Random(name, folder or Path(), Path())
    checkpoint.__dict__ |= {"weights": {} if folder else random_weights(config), "config": config}
    return checkpoint


def random_weights(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Weights of that configuration by name."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    with torch.device("meta"):
        names = {n: t.shape for n, t in Qwen2ForCausalLM(Qwen2Config(**config)).state_dict().items()}
    weights = {
        n: torch.randn(s, dtype=torch.bfloat16) * 0.02 for n, s in names.items() if n != "lm_head.weight"
    }
    return weights | {n: torch.ones_like(t) for n, t in weights.items() if "norm" in n}


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


class OnVllm:
    """The same bench in another environment, one variant, row by row."""

    def __init__(self, python: str, variant: str, folder: Path, words: list[str]) -> None:
        command = [python, __file__, *words, "--serve", str(folder), "--variants", variant]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, text=True, **pipes)
        self.ask("ready")

    def ask(self, question: str) -> Any:
        """One line there, one line back."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(question, file=self.process.stdin, flush=True)
        while not (answer := self.process.stdout.readline()).startswith("{"):
            if not answer:
                raise SystemExit("the process with vLLM has ended: run its command by hand to see why")
        return json.loads(answer)

    def row(self, images: int) -> Row:
        """Measure."""
        return Row(**self.ask(str(images)))


def serve(bench: Bench, variant: str, images: int) -> None:
    """Measure for `OnVllm`, in the environment that has vLLM, until there is no more question."""
    from sar_eval.engines.vllm import VllmEngine
    from sar_eval.vllm_guided.driver import Order

    options, whole = ON_VLLM[variant]
    engine = VllmEngine.__new__(VllmEngine)
    engine.checkpoint, engine.device, engine.dtype = bench.checkpoint, bench.device, bench.dtype
    engine.protocol = dataclasses.replace(PROTOCOL, full_vocab=whole)
    engine.batch_size, engine.steps, engine.waves, engine.rounding = images, bench.tokens, True, 0.0
    engine.options = {"max_num_batched_tokens": 2048} | options
    engine.load()
    for question in sys.stdin:
        if question.strip() == "ready":
            print("{}", flush=True)
            continue
        number = int(question)
        prompts = bench.prompts(number)
        orders = [Order((tuple(prompts[n]), tuple(prompts[number])), n, 6.0) for n in range(number)]

        def run(orders: list[Order] = orders) -> Decoded:
            drawn = engine.driver.draw(orders)
            assert all(len(image.tokens) == bench.tokens for image in drawn), drawn
            return Decoded(*[torch.zeros(1)] * 3, [bench.tokens - 1])

        row = bench.measure(number, variant, run, TEXT + VISUAL if whole else VISUAL, 1)
        print(json.dumps(dataclasses.asdict(row)), flush=True)


def start_vllm(options: argparse.Namespace, bench: Bench, folder: Path) -> list[OnVllm]:
    """A process for each variant on vLLM, if there is an interpreter for them."""
    variants = [name for name in ON_VLLM if name in options.variants] if options.vllm else []
    if not variants:
        return []
    bench.checkpoint.write(folder)
    names = ("shape", "device", "dtype", "side", "threads")
    words = [word for name in names for word in (f"--{name}", str(getattr(options, name)))]
    words += ["--images", str(max(options.images))]
    return [OnVllm(options.vllm, variant, folder, words) for variant in variants]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="0.5B", choices=SHAPES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--side", type=int, default=8, help="visual tokens along one side of an image")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--variants", nargs="+", default=["hf", "native", "speculate", *ON_VLLM])
    parser.add_argument("--rounds", type=int, default=3, help="of all variants; the fastest of each counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--vllm", metavar="PYTHON", default="", help="interpreter of an environment with vLLM"
    )
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    checkpoint = make_checkpoint(options.shape, options.serve)
    bench = Bench(checkpoint, options.device, options.dtype, options.side)
    if options.serve:
        serve(bench, options.variants[0], max(options.images))
        return
    bandwidth = copy_bandwidth(options.device)
    decoder = load_decoder(bench.checkpoint, options.device, options.dtype)
    best: dict[tuple[int, str], Row] = {}
    with tempfile.TemporaryDirectory() as folder:
        others = start_vllm(options, bench, Path(folder))
        for _ in range(options.rounds):
            for images in options.images:
                own = bench.rows(images, decoder, options.variants)
                for row in [*own, *(other.row(images) for other in others)]:
                    before = best.setdefault((images, row.variant), row)
                    best[images, row.variant] = min(row, before, key=lambda r: r.seconds)
        for other in others:
            other.process.terminate()
    rows = sorted(best.values(), key=lambda row: row.images)
    base = {}
    for row in rows:
        base.setdefault(row.images, row.images * row.tokens / row.seconds)
    device = torch.cuda.get_device_name() if options.device != "cpu" else platform.processor() or "CPU"
    print(f"{datetime.date.today()}, {device}, {options.threads} threads, torch {torch.__version__}")
    print(f"{options.shape}, {options.dtype}, guidance 6, {bench.tokens} tokens an image; ", end="")
    print(f"copy bandwidth {bandwidth:.1f} GB/s; command: {json.dumps(sys.argv[1:])}\n")
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells(base[row.images], bandwidth) for row in rows)]
    print("\n".join("| " + " | ".join(line) + " |" for line in lines))


if __name__ == "__main__":
    main()
