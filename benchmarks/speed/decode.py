"""Decoding speed of the engines on random weights of the real shape: no download, one run, one table.

    python benchmarks/speed/decode.py                      # CPU: 0.5B, bfloat16, a part of an image
    python benchmarks/speed/decode.py --device cuda --side 64 --images 1 8 64
    python benchmarks/speed/decode.py --vllm .venv-vllm/bin/python         # and the engine vllm

vLLM has an environment of its own, so it is measured in another process, on the same weights, one process
at a time. Every variant decodes the same prompts with guidance 6. `hf` is the baseline: transformers' own
decoder, two forwards per token. Bytes a step are the minimum that a step must read: the layers and the rows
of the head that are sampled from, once per forward, and each row's filled cache.
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
from sar_eval.decoding.loop import BatchDecoder, DecodeOutput, Vocabulary
from sar_eval.decoding.memory import kv_bytes
from sar_eval.decoding.noise import noise_keys
from sar_eval.decoding.speculation import SpeculativeDecoder
from sar_eval.decoding.transformer import Decoder
from sar_eval.engines.hf import HfEngine
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.image_plan import ImagePlan, guidance_weights
from sar_eval.families.simplear import Checkpoint
from sar_eval.types import DrawProtocol

TEXT_VOCAB_SIZE = 151_672  # Qwen2.5's tokenizer with SimpleAR's special tokens
CODEBOOK_SIZE = 64_000  # Cosmos' codes
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SHAPES = {
    "0.5B": dict(zip(SIZES, (896, 4864, 24, 14), strict=True)),
    "1.5B": dict(zip(SIZES, (1536, 8960, 28, 12), strict=True)),
    "tiny": dict(zip(SIZES, (128, 256, 2, 2), strict=True)),
}
PROMPT_LENGTH, NEGATIVE_LENGTH = 24, 30  # tokens, about those of a GenEval prompt in the protocol
PROTOCOL = DrawProtocol("speed", 1024, guidance=6.0)
# Variants on vLLM: its options, and whether the full head is computed.
ON_VLLM: dict[str, tuple[dict[str, Any], bool]] = {
    "vllm": ({}, False),
    "vllm, compiled": ({"enforce_eager": False}, False),
    "vllm, whole head": ({}, True),
}


class RandomCheckpoint(Checkpoint):
    """A checkpoint of random weights in memory; `write` saves them as files."""

    weights: dict[str, torch.Tensor]
    config: dict[str, object]
    text_vocab_size = TEXT_VOCAB_SIZE
    codebook_size = CODEBOOK_SIZE

    def read_weights(self, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """The weights in memory, or those of the folder."""
        if not self.weights:
            return super().read_weights(device, dtype)
        return {name: tensor.to(device, dtype) for name, tensor in self.weights.items()}

    def write(self, folder: Path) -> None:
        """Save it as files, for another process."""
        from safetensors.torch import save_file

        save_file(self.weights, folder / "model.safetensors")
        config = self.config | {"architectures": ["SimpARForCausalLM"]}
        (folder / "config.json").write_text(json.dumps(config))

    def prompt_ids(self, text: str) -> list[int]:
        """Any ids, for the engine's self-check."""
        return [1, *(3 + ord(letter) for letter in text), 2]


def shape_config(name: str) -> dict[str, Any]:
    """The `config.json` of a shape."""
    return SHAPES[name] | {
        "model_type": "qwen2",
        "num_key_value_heads": 2,
        "vocab_size": TEXT_VOCAB_SIZE + CODEBOOK_SIZE,
        "rope_theta": 1e6,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32_768,
        "tie_word_embeddings": True,
    }


def make_checkpoint(name: str, folder: Path | None = None) -> RandomCheckpoint:
    """Random weights of a shape in bfloat16, or those that another process saved in a folder."""
    config = shape_config(name)
    checkpoint = RandomCheckpoint(name, folder or Path(), Path())
    checkpoint.__dict__ |= {"weights": {} if folder else random_weights(config), "config": config}
    return checkpoint


def random_weights(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Random weights by name for a configuration."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    with torch.device("meta"):
        names = {n: t.shape for n, t in Qwen2ForCausalLM(Qwen2Config(**config)).state_dict().items()}
    weights = {
        n: torch.randn(s, dtype=torch.bfloat16) * 0.02 for n, s in names.items() if n != "lm_head.weight"
    }
    return weights | {n: torch.ones_like(t) for n, t in weights.items() if "norm" in n}


@dataclasses.dataclass
class Measurement:
    """A measured variant."""

    images: int
    variant: str
    seconds: float
    steps: float
    tokens: int
    step_bytes: float
    peak: float
    picture: int = 4096  # tokens of a whole one, of which fewer may have been measured

    def table_row(self, base: float, bandwidth: float) -> list[str]:
        """A table row; `base` is the tokens/s of the first variant."""
        rate = self.images * self.tokens / self.seconds
        achieved = self.step_bytes * self.steps / self.seconds / 1e9
        return [
            str(self.images),
            self.variant,
            f"{rate:.1f}",
            f"{rate / base:.2f}x",
            f"{rate / self.picture:.4f}",
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
        started = now(device)
        target.copy_(source)
        best = max(best, 2 * source.numel() / (now(device) - started) / 1e9)
    return best


def now(device: str) -> float:
    """Seconds, after the device has finished its work."""
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_gb(device: str) -> float:
    """Peak memory: of the device since the last reset, or of this process."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


class Bench:
    """One shape on one device, all engines on the same prompts."""

    def __init__(self, checkpoint: RandomCheckpoint, device: str, dtype: str, grid_side: int) -> None:
        self.checkpoint, self.device, self.dtype = checkpoint, device, dtype
        self.tokens = grid_side**2
        self.plan = ImagePlan(grid_side, grid_side, guidance_weights(PROTOCOL.guidance))
        self.itemsize = 4 if dtype == "float32" else 2

    def prompts(self, images: int) -> list[list[int]]:
        """Token ids of the prompts, then of the negative prompts."""
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(0, TEXT_VOCAB_SIZE, (images, PROMPT_LENGTH), generator=generator).tolist()
        negative = torch.randint(0, TEXT_VOCAB_SIZE, (NEGATIVE_LENGTH,), generator=generator).tolist()
        return ids + [negative] * images

    def step_bytes(self, images: int, head_rows: int, forwards: int) -> float:
        """The minimum that a step must read."""
        config = DecoderConfig.from_dict(self.checkpoint.config)
        query = config.num_attention_heads * config.head_dim
        key = config.num_key_value_heads * config.head_dim
        layer = config.hidden_size * (2 * query + 2 * key + 3 * config.intermediate_size)
        weights = (config.num_hidden_layers * layer + head_rows * config.hidden_size) * self.itemsize
        cache = 2 * images * (PROMPT_LENGTH + self.tokens / 2) * kv_bytes(config, self.itemsize)
        return forwards * weights + cache

    def measure(
        self, images: int, variant: str, run: Callable[[], DecodeOutput], head_rows: int, forwards: int
    ) -> Measurement:
        """Measure one run (on a GPU the second one)."""
        if self.device != "cpu":
            run()  # captures the graphs
            torch.cuda.reset_peak_memory_stats()
        started = now(self.device)
        output = run()
        seconds = now(self.device) - started
        steps = max(output.steps)
        size = self.step_bytes(images, head_rows, forwards)
        return Measurement(images, variant, seconds, steps, self.tokens, size, peak_gb(self.device))

    def measurements(self, images: int, decoder: Decoder, variants: list[str]) -> Iterator[Measurement]:
        """Measure each variant once."""
        if "hf" in variants:
            yield self.hf(images)
        yield self.native(images, decoder)
        if "speculate" in variants and images <= 4:
            yield self.native(images, decoder, window=8)

    @torch.inference_mode()
    def hf(self, images: int) -> Measurement:
        """Measure the engine `hf`."""
        engine = HfEngine.__new__(HfEngine)
        engine.checkpoint, engine.protocol, engine.device, engine.dtype = (
            self.checkpoint,
            PROTOCOL,
            self.device,
            self.dtype,
        )
        engine.plan = self.plan
        engine.load()
        prompts, keys = self.prompts(images), self.keys(images)

        def run() -> DecodeOutput:
            ids, failed_at = engine.decode_ids([prompts[:images], prompts[images:]], keys)
            return DecodeOutput(ids, failed_at, failed_at, [self.tokens - 1])

        return self.measure(images, "hf", run, TEXT_VOCAB_SIZE + CODEBOOK_SIZE, 2)

    def keys(self, images: int) -> torch.Tensor:
        """The noise keys of all positions."""
        return noise_keys(list(range(images)), self.tokens, torch.device(self.device))

    @torch.inference_mode()
    def native(self, images: int, decoder: Decoder, *, window: int = 0) -> Measurement:
        """Measure the engine `native`, with speculation where there is a window."""
        vocabulary = Vocabulary(decoder, self.checkpoint.visual_ids, full_vocab=False)
        prompts, keys = self.prompts(images), self.keys(images)
        batch = BatchDecoder(decoder, vocabulary, PROTOCOL, images, NEGATIVE_LENGTH, self.plan)

        def run() -> DecodeOutput:
            if window:
                return SpeculativeDecoder(
                    decoder, vocabulary, PROTOCOL, self.plan, prompts, keys, window
                ).run()
            return batch.run(prompts, keys)

        variant = "native --speculate" if window else "native"
        return self.measure(images, variant, run, CODEBOOK_SIZE, 1)


class VllmBench:
    """The same bench for one variant on vLLM, in a process of another environment."""

    def __init__(self, python: str, variant: str, folder: Path, words: list[str]) -> None:
        command = [python, __file__, *words, "--serve", str(folder), "--variants", variant]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, text=True, **pipes)
        self.request("ready")

    def request(self, line: str) -> Any:
        """Send one line and return the JSON object of the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(line, file=self.process.stdin, flush=True)
        while not (response := self.process.stdout.readline()).startswith("{"):
            if not response:
                raise SystemExit("the process with vLLM has ended: run its command by hand to see why")
        return json.loads(response)

    def measure(self, images: int) -> Measurement:
        """Measure that number of images."""
        return Measurement(**self.request(str(images)))


def serve(bench: Bench, variant: str, images: int) -> None:
    """Measure for `VllmBench`, in the environment that has vLLM, until its input ends."""
    from sar_eval.engines.vllm import VllmEngine
    from sar_eval.vllm_guided.driver import ImageRequest

    options, full_head = ON_VLLM[variant]
    engine = VllmEngine.__new__(VllmEngine)
    engine.checkpoint, engine.device, engine.dtype = bench.checkpoint, bench.device, bench.dtype
    engine.protocol = dataclasses.replace(PROTOCOL, full_vocab=full_head)
    engine.batch_size, engine.image_tokens, engine.waves, engine.rounding = images, bench.tokens, True, 0.0
    engine.plan = bench.plan
    engine.options = {"max_num_batched_tokens": 2048} | options
    engine.load()
    for line in sys.stdin:
        if line.strip() == "ready":
            print("{}", flush=True)
            continue
        number = int(line)
        prompts = bench.prompts(number)
        pairs = [(tuple(prompts[n]), tuple(prompts[number])) for n in range(number)]
        requests = [ImageRequest(pair, n, 6.0) for n, pair in enumerate(pairs)]

        def run(requests: list[ImageRequest] = requests) -> DecodeOutput:
            outputs = engine.driver.generate(requests)
            assert all(len(output.tokens) == bench.tokens for output in outputs), outputs
            return DecodeOutput(*[torch.zeros(1)] * 3, [bench.tokens - 1])

        head_rows = CODEBOOK_SIZE + (TEXT_VOCAB_SIZE if full_head else 0)
        measurement = bench.measure(number, variant, run, head_rows, 1)
        print(json.dumps(dataclasses.asdict(measurement)), flush=True)


def start_vllm(options: argparse.Namespace, bench: Bench, folder: Path) -> list[VllmBench]:
    """Start a process for each variant on vLLM, if `--vllm` is given."""
    variants = [name for name in ON_VLLM if name in options.variants] if options.vllm else []
    if not variants:
        return []
    bench.checkpoint.write(folder)
    names = ("shape", "device", "dtype", "side", "threads")
    words = [word for name in names for word in (f"--{name}", str(getattr(options, name)))]
    words += ["--images", str(max(options.images))]
    return [VllmBench(options.vllm, variant, folder, words) for variant in variants]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="0.5B", choices=SHAPES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--side", type=int, default=8, help="visual tokens along one side of an image")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--variants", nargs="+", default=["hf", "native", "speculate", *ON_VLLM])
    parser.add_argument("--rounds", type=int, default=3, help="of all variants; the fastest counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--vllm", metavar="PYTHON", default="", help="of an environment with vLLM")
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
    best: dict[tuple[int, str], Measurement] = {}
    with tempfile.TemporaryDirectory() as folder:
        vllm_benches = start_vllm(options, bench, Path(folder))
        for _ in range(options.rounds):
            for images in options.images:
                own = bench.measurements(images, decoder, options.variants)
                for row in [*own, *(vllm_bench.measure(images) for vllm_bench in vllm_benches)]:
                    fastest = best.setdefault((images, row.variant), row)
                    best[images, row.variant] = min(row, fastest, key=lambda r: r.seconds)
        for vllm_bench in vllm_benches:
            vllm_bench.process.terminate()
    rows = sorted(best.values(), key=lambda row: row.images)
    base = {}
    for row in rows:
        base.setdefault(row.images, row.images * row.tokens / row.seconds)
    device = torch.cuda.get_device_name() if options.device != "cpu" else platform.processor() or "CPU"
    print(f"{datetime.date.today()}, {device}, {options.threads} threads, torch {torch.__version__}")
    print(f"{options.shape}, {options.dtype}, guidance 6, {bench.tokens} tokens an image; ", end="")
    print(f"copy bandwidth {bandwidth:.1f} GB/s; command: {json.dumps(sys.argv[1:])}\n")
    lines = [HEADER, ["---"] * len(HEADER), *(row.table_row(base[row.images], bandwidth) for row in rows)]
    print("\n".join("| " + " | ".join(line) + " |" for line in lines))


if __name__ == "__main__":
    main()
