"""Training speed and memory on random weights of the real shape: transformers' Trainer against ours.

    python -m benchmarks.speed.train                        # CPU: 0.5B with 2 layers, 256-token pictures
    python -m benchmarks.speed.train --device cuda --layers 24 --side 32 --pictures 8

Every variant is trained by its own trainer, in a process of its own, one at a time and in turns; of the
steps the fastest counts, and the first of each process is left out. On the CPU seconds are those of one
thread's work (CPU time), which other processes on shared cores change little. `plain` is what one writes
with transformers alone: `Trainer`, `Qwen2ForCausalLM`, its default loss over the whole vocabulary at all
tokens. The loss is also measured by itself.

The roofline of a step is its FLOPs (forward and backward, no recomputation) at the rate of a large product
that is measured in the same run, on the CPU; of a GPU at its data sheet's peak.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import IterableDataset
from transformers import PrinterCallback, Qwen2Config, Qwen2ForCausalLM, Trainer, TrainerCallback
from transformers.loss.loss_utils import ForCausalLMLoss

from benchmarks.speed.decode import CODEBOOK_SIZE, SHAPES, TEXT_VOCAB_SIZE, peak_gb, shape_config
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.train.model import TrainedDecoder, prepare
from sar_eval.train.throughput import GB, TrainingCost, forward_flops, peak_flops
from sar_eval.train.trainer import DecoderTrainer, training_arguments
from sar_eval.train.training_options import TrainingOptions
from sar_eval.train.training_states import TrainingStates
from sar_eval.train.visual_loss import visual_cross_entropy

TEXT_TOKENS = 24  # of a caption with its two special tokens
# What each variant changes of ours; `plain` is not ours.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ours": {},
    "ours, full softmax": {"loss": "full"},
    "ours, checkpointing": {"gradient_checkpointing": True},
    "ours, compiled layers": {"compile": True},
    "ours, eager attention": {"attention": "eager"},
    "ours, float32": {"precision": "float32"},
}
PLAIN, OURS = "plain", "ours"


class Batches(IterableDataset[dict[str, Any]]):
    """The same random pictures for every variant, as `MicroBatches` gives them or as plain rows."""

    first_step = 0

    def __init__(self, pictures: int, tokens: int, steps: int, *, plain: bool) -> None:
        self.pictures, self.tokens, self.steps, self.plain = pictures, tokens, steps, plain

    def __iter__(self) -> Iterator[dict[str, Any]]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(self.steps):
            text = torch.randint(TEXT_VOCAB_SIZE, (self.pictures, TEXT_TOKENS), generator=generator)
            codes = torch.randint(CODEBOOK_SIZE, (self.pictures, self.tokens), generator=generator)
            ids = torch.cat([text, codes + TEXT_VOCAB_SIZE], 1)
            labels = torch.cat([torch.full_like(text, -100), ids[:, TEXT_TOKENS:]], 1)
            yield from self._shaped(ids, labels)

    def _shaped(self, ids: torch.Tensor, labels: torch.Tensor) -> Iterator[dict[str, Any]]:
        if self.plain:
            for row, wanted in zip(ids, labels, strict=True):
                yield {"input_ids": row, "labels": wanted, "attention_mask": torch.ones_like(row)}
        else:
            facts = {"total": codes_in(labels), "keys": [], "truncated": 0}
            yield {"input_ids": ids, "labels": labels, **facts}


def codes_in(labels: torch.Tensor) -> int:
    """Tokens that are predicted."""
    return int((labels != -100).sum())


class StepTimes(TrainerCallback):
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self._begun = clock()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop it."""
        self.seconds.append(clock() - self._begun)


def clock() -> float:
    """Seconds: of the CPU's work for each thread, or on the wall after a GPU has finished its own."""
    if not torch.cuda.is_available():
        return time.process_time() / torch.get_num_threads()
    torch.cuda.synchronize()
    return time.perf_counter()


def decoder(options: argparse.Namespace, kind: Any, attention: str) -> Any:
    """Random float32 weights of the shape, with fewer layers if asked for."""
    torch.manual_seed(0)
    config = Qwen2Config(**shape_config(options.shape) | {"num_hidden_layers": options.layers})
    config._attn_implementation = attention
    return kind(config)


def trainer(options: argparse.Namespace, folder: Path, times: StepTimes) -> Trainer:
    """The variant's."""
    changes = dict(VARIANTS[options.variant])
    attention = changes.pop("attention", "sdpa")
    plain = options.variant == PLAIN
    asked = {"precision": "bfloat16", "warmup": 0, "learning_rate": 1e-4, **changes}
    settings = TrainingOptions(steps=1 + options.steps, batch_size=options.pictures, **asked)
    batches: Any = Batches(options.pictures, options.side**2, settings.steps, plain=plain)
    args = training_arguments(folder / "state", settings, 1)
    args.save_strategy = "no"
    if plain:
        model = decoder(options, Qwen2ForCausalLM, "sdpa")
        made = Trainer(model=model, args=args, train_dataset=batches, callbacks=[times])
        made.remove_callback(PrinterCallback)
        return made
    model = prepare(decoder(options, TrainedDecoder, attention), TEXT_VOCAB_SIZE, settings.loss)
    states = TrainingStates(folder / "state")
    return DecoderTrainer(batches, settings, states, model=model, args=args, callbacks=[times])


def measure_steps(options: argparse.Namespace) -> dict[str, float]:
    """Train some steps: seconds of the fastest after the first, and the process's peak."""
    times = StepTimes()
    with tempfile.TemporaryDirectory() as folder:
        trainer(options, Path(folder), times).train()
    return {"seconds": min(times.seconds[1:]), "peak": peak_gb(options.device)}


def measure_loss(options: argparse.Namespace) -> dict[str, float]:
    """The loss and its gradients alone: seconds, and memory above inputs and the head's gradient."""
    config, device = shape_config(options.shape), options.device
    tokens, hidden_size = options.loss_tokens[0], config["hidden_size"]
    hidden = torch.randn(tokens, hidden_size, device=device, requires_grad=True)
    head = torch.randn(config["vocab_size"], hidden_size, device=device).mul_(0.02).requires_grad_()
    head.grad = torch.full_like(head, 0.0)  # part of the state, and there from the second step on
    codes = torch.randint(CODEBOOK_SIZE, (tokens,), device=device)
    loss = plain_loss if options.variant == PLAIN else our_loss
    before, seconds = held_gb(device), []
    for _ in range(2):
        hidden.grad = None
        started = clock()
        with torch.autocast(device, torch.bfloat16):
            value = loss(hidden, head, codes)
        torch.autograd.backward(value)
        seconds.append(clock() - started)
    return {"seconds": min(seconds), "memory": peak_gb(device) - before}


def plain_loss(hidden: torch.Tensor, head: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The way of transformers' `Qwen2ForCausalLM`; labels are shifted already."""
    logits = torch.nn.functional.linear(hidden, head)[None]
    found: torch.Tensor = ForCausalLMLoss(
        logits, None, head.shape[0], shift_labels=codes[None] + TEXT_VOCAB_SIZE
    )
    return found


def our_loss(hidden: torch.Tensor, head: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The way of `TrainedDecoder`."""
    return visual_cross_entropy(hidden, head[TEXT_VOCAB_SIZE:], codes) / len(codes)


def held_gb(device: str) -> float:
    """What is held now."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / GB
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / GB


def product_rate(size: int = 1024, runs: int = 3) -> float:
    """FLOP/s of square bfloat16 products on the CPU, the best of some runs."""
    matrix, seconds = torch.ones((size, size), dtype=torch.bfloat16), []
    for _ in range(runs):
        started = clock()
        torch.mm(matrix, matrix)
        seconds.append(clock() - started)
    return 2 * size**3 / min(seconds)


def measure_rate(options: argparse.Namespace) -> dict[str, float]:
    """The rate that the roofline stands on."""
    if options.device == "cpu":
        return {"flops": product_rate()}
    return {"flops": peak_flops(torch.device(options.device), "bfloat16") or 0.0}


KINDS: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "steps": measure_steps,
    "loss": measure_loss,
    "rate": measure_rate,
}


def in_process(
    kind: str, variant: str, layers: int, options: argparse.Namespace, tokens: int = 0
) -> dict[str, float]:
    """One measurement in a new process, so that its peak is its own."""
    names = ("shape", "device", "side", "pictures", "steps", "threads")
    words = [word for name in names for word in (f"--{name}", str(getattr(options, name)))]
    words += ["--layers", str(layers), "--variant", variant, "--kind", kind]
    words += ["--loss-tokens", str(tokens)]
    command = [sys.executable, "-m", "benchmarks.speed.train", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{kind} of {variant}: {done.stderr[-2000:]}")
    print(f"{variant}, {layers} layers, {kind}: {done.stdout.splitlines()[-1]}", file=sys.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def best(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The smallest of each figure; of a rate the largest."""
    return {name: (max if name == "flops" else min)(r[name] for r in rounds) for name in rounds[0]}


def flops_a_step(options: argparse.Namespace, variant: str, layers: int) -> float:
    """Forward and backward: of the plain loss the head is multiplied at text tokens, too."""
    config = DecoderConfig.from_dict(shape_config(options.shape) | {"num_hidden_layers": layers})
    tokens = options.side**2
    length = TEXT_TOKENS + tokens
    whole = variant in (PLAIN, "ours, full softmax")
    rows = CODEBOOK_SIZE + (TEXT_VOCAB_SIZE if whole else 0)
    predicted = length if variant == PLAIN else tokens
    return 3.0 * options.pictures * forward_flops(config, length, predicted, rows)


def steps_table(
    found: dict[str, dict[str, float]], rate: float, layers: int, options: argparse.Namespace
) -> str:
    """A row for each variant."""
    tokens = options.pictures * options.side**2
    lines = [
        "| variant | visual tokens/s | ratio | peak GB | TFLOP a step | s at the roofline |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for variant, values in found.items():
        flops = flops_a_step(options, variant, layers)
        speed = tokens / values["seconds"]
        ratio = found[PLAIN]["seconds"] / values["seconds"]
        roof = f"{flops / rate:.2f} of {values['seconds']:.2f}" if rate else "unknown"
        lines.append(
            f"| {variant} | {speed:.1f} | {ratio:.2f}x | {values['peak']:.1f} | "
            f"{flops / 1e12:.2f} | {roof} |"
        )
    return "\n".join(lines)


def extrapolated(
    few: dict[str, float], more: dict[str, float], layers: tuple[int, int], depth: int
) -> float:
    """Seconds a step with `depth` layers, if every layer takes the same."""
    a_layer = (more["seconds"] - few["seconds"]) / (layers[1] - layers[0])
    return more["seconds"] + (depth - layers[1]) * a_layer


def run_all(options: argparse.Namespace) -> None:
    """Measure all in turns and print the tables."""
    depths = sorted({options.layers, options.more_layers or options.layers})
    steps: dict[tuple[str, int], list[dict[str, float]]] = {}
    losses: dict[tuple[int, str], list[dict[str, float]]] = {}
    rates = []
    for _ in range(options.rounds):
        rates.append(in_process("rate", OURS, options.layers, options))
        for key in product(options.loss_tokens, (PLAIN, OURS)):
            losses.setdefault(key, []).append(in_process("loss", key[1], depths[0], options, key[0]))
        deeper = [(variant, depth) for depth in depths[1:] for variant in (PLAIN, OURS)]
        for variant, depth in [*((variant, depths[0]) for variant in options.variants), *deeper]:
            steps.setdefault((variant, depth), []).append(in_process("steps", variant, depth, options))
    rate = best(rates)["flops"]
    print(
        f"{datetime.date.today()}, {options.device}, {options.threads} threads, torch {torch.__version__}"
    )
    print(
        f"{options.shape} with {options.layers} layers, bfloat16, {options.pictures} picture(s) of ", end=""
    )
    print(f"{options.side**2} tokens; {rate / 1e9:.0f} GFLOP/s; command: {json.dumps(sys.argv[1:])}\n")
    shallow = {variant: best(steps[variant, depths[0]]) for variant in options.variants}
    print(steps_table(shallow, rate, depths[0], options) + "\n")
    print(loss_table({key: best(rounds) for key, rounds in losses.items()}, options) + "\n")
    if len(depths) == 2:
        layers = shape_config(options.shape)["num_hidden_layers"]
        whole = {
            v: extrapolated(*(best(steps[v, d]) for d in depths), (depths[0], depths[1]), layers)
            for v in (PLAIN, OURS)
        }
        flops = {v: flops_a_step(options, v, layers) for v in whole}
        print(
            f"Extrapolated to {layers} layers from {depths[0]} and {depths[1]}: {whole[PLAIN]:.1f} and "
            f"{whole[OURS]:.1f} s a step, {whole[PLAIN] / whole[OURS]:.2f}x; by FLOPs alone "
            f"{flops[PLAIN] / flops[OURS]:.2f}x."
        )


def loss_table(found: dict[tuple[int, str], dict[str, float]], options: argparse.Namespace) -> str:
    """The loss by itself."""
    config = DecoderConfig.from_dict(shape_config(options.shape))
    lines = [
        "| tokens | loss | s | ratio | GB of its own | share | GB by arithmetic |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (tokens, variant), values in found.items():
        plain = found[tokens, PLAIN]
        ratio, share = plain["seconds"] / values["seconds"], values["memory"] / plain["memory"]
        cost = TrainingCost(
            config=config,
            rows=CODEBOOK_SIZE + (TEXT_VOCAB_SIZE if variant == PLAIN else 0),
            lengths=[(tokens, tokens)],
            micro=1,
            chunked=variant != PLAIN,
        )
        lines.append(
            f"| {tokens:,} | {variant} | {values['seconds']:.2f} | {ratio:.2f}x | {values['memory']:.2f} | "
            f"{share:.2f} | {cost.loss_bytes / GB:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print, or measure one thing for the process that does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="0.5B", choices=SHAPES)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--more-layers", type=int, default=8, help="for the extrapolation; 0: none")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", type=int, default=16, help="visual tokens along one side of a picture")
    parser.add_argument("--pictures", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2, help="after the first")
    parser.add_argument(
        "--loss-tokens", type=int, nargs="+", default=[1024, 2048], help="of the loss by itself"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--variant", default=OURS, help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.kind:
        print(json.dumps(KINDS[options.kind](options)))
    else:
        run_all(options)


if __name__ == "__main__":
    main()
