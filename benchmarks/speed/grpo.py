"""Seconds of a GRPO step by stage, from real steps of a recipe, and what its choices cost side by side.

    python -m benchmarks.speed.grpo                                       # the demo, on any machine
    python -m benchmarks.speed.grpo simplear-0.5b-clip --ckpt path/to/checkpoint --steps 4

Every variant starts from the same checkpoint and does the same steps through `train grpo`'s own loop; the
stages' seconds are those of its journal, the least of all steps. The first step of a run is left out
(buffers, CUDA graphs, clocks), the hold-out too, and groups without variance stay in, so that all variants
train on the same number of pictures. Ratios are of this very run; absolute figures depend on the machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import torch

from sar_eval.cli.train_grpo import HowToTrain
from sar_eval.rl.grpo_recipe import GrpoOptions, GrpoRecipe, load_grpo_recipe
from sar_eval.rl.grpo_run import GrpoSetup, train_grpo
from sar_eval.runtime.slots import cores
from sar_eval.storage.training_journal import read_steps
from sar_eval.types import Json

STAGES = ("rollout", "judge", "train", "sync", "other")
GB = 1e9
Changes = Mapping[str, Mapping[str, Json]]  # values by table and key of the recipe


@dataclass(frozen=True, slots=True)
class Measured:
    """A variant's steps.

    Attributes:
        variant: its name.
        images: drawn in a step.
        seconds: by stage; of one step, or the least of several.
        peak: bytes of the trainer's process on its card, the engine's included; 0 on the CPU.
    """

    variant: str
    images: int
    seconds: Mapping[str, float]
    peak: int

    @property
    def step_s(self) -> float:
        """Of a whole step."""
        return sum(self.seconds.values())

    def row(self, base: Measured) -> str:
        """Of the table, against the first variant."""
        cells = [self.variant, f"{self.step_s:.2f}", f"{self.step_s / base.step_s:.2f}x"]
        cells += [f"{self.seconds[stage]:.2f}" for stage in STAGES]
        train = self.seconds["train"] / base.seconds["train"] if base.seconds["train"] else 1.0
        cells += [f"{train:.2f}x", f"{self.images / self.step_s:.2f}"]
        return f"| {' | '.join([*cells, f'{self.peak / GB:.1f}' if self.peak else '-'])} |"


def variants(options: GrpoOptions, guidance: float) -> Iterator[tuple[str, Changes]]:
    """The recipe as it is, then what differs from it in one choice."""
    yield f"recipe ({options.policy})", {}
    if guidance != 1:
        others = [mode for mode in ("guided", "detached", "conditional") if mode != options.policy]
        yield from ((mode, {"grpo": {"policy": mode}}) for mode in others)
        yield "unguided", {"grpo": {"policy": "unguided"}, "protocol": {"guidance": 1.0}}
    yield from _batches(options)
    if options.beta > 0:
        yield "no reference", {"grpo": {"beta": 0.0, "kl": "off"}}
    other = not options.gradient_checkpointing
    yield f"checkpointing {'on' if other else 'off'}", {"grpo": {"gradient_checkpointing": other}}


def _batches(options: GrpoOptions) -> Iterator[tuple[str, Changes]]:
    """Other numbers of pictures: of a group that are trained on, of a forward pass."""
    group, kept = options.group, options.keep or options.group
    half = group // 4 * 2  # an even number
    for keep in sorted({group, half} - {0, kept}):
        yield f"keep {keep} of {group}", {"grpo": {"keep": keep % group}}
    trained = options.prompts * kept
    now = min(options.micro, trained)
    for micro in (now // 2, now * 2):
        if 1 <= micro <= trained:
            yield f"micro {micro}", {"grpo": {"micro": micro}}


def recipe_of(name: str, steps: int, changes: Changes) -> GrpoRecipe:
    """The recipe with a variant's changes, for timing."""
    timing: dict[str, Json] = {"steps": steps, "warmup": 0, "save_every": steps, "drop_equal_groups": False}
    tables = {table: dict(values) for table, values in changes.items()}
    tables["grpo"] = {**timing, **tables.get("grpo", {})}
    return msgspec.structs.replace(load_grpo_recipe(name, tables), holdout=None)


def measure(variant: str, recipe: GrpoRecipe, ckpt: str) -> list[Measured]:
    """One training run; a row for each step but the first."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        train_grpo(GrpoSetup.of(recipe, ckpt), Path(folder) / "run", lambda _: None)
        rows = read_steps(Path(folder) / "run")
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    images = recipe.options.prompts * recipe.options.group
    return [
        Measured(variant, images, {s: row.values[f"seconds/{s}"] for s in STAGES}, peak) for row in rows[1:]
    ]


def fastest(steps: Sequence[Measured]) -> Measured:
    """The least of a variant's steps, stage by stage: what else the machine does only adds to it."""
    seconds = {stage: min(step.seconds[stage] for step in steps) for stage in STAGES}
    return Measured(steps[0].variant, steps[0].images, seconds, max(step.peak for step in steps))


def measure_all(name: str, ckpt: str, steps: int, rounds: int, changes: Changes) -> list[Measured]:
    """All variants, in turn, as often as there are rounds: a slow minute then slows them all."""
    recipe = load_grpo_recipe(name, {table: dict(values) for table, values in changes.items()})
    chosen = list(variants(recipe.options, float(recipe.protocol.get("guidance", 1.0))))
    found: dict[str, list[Measured]] = {variant: [] for variant, _ in chosen}
    for _ in range(rounds):
        for variant, own in chosen:
            both = {t: {**changes.get(t, {}), **own.get(t, {})} for t in {*changes, *own}}
            began = time.perf_counter()
            found[variant] += measure(variant, recipe_of(name, steps, both), ckpt)
            print(f"{variant}: {time.perf_counter() - began:.0f} s", flush=True)
    return [fastest(steps) for steps in found.values()]


def table(measured: Sequence[Measured]) -> str:
    """As Markdown, ratios against the first row."""
    names = ["variant", "s a step", "ratio", *STAGES, "train, ratio", "images/s", "peak GB"]
    lines = [f"| {' | '.join(names)} |", f"| --- |{' ---: |' * (len(names) - 1)}"]
    return "\n".join(lines + [each.row(measured[0]) for each in measured])


def machine() -> str:
    """What the figures are of."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {cores()} cores"
    return f"{datetime.now(UTC):%Y-%m-%d}, {device}, torch {torch.__version__}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default="shapes")
    parser.add_argument("--ckpt", default="demo:pretrain")
    parser.add_argument(
        "--steps", type=int, default=4, help="of each variant and round, the first left out"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    options = parser.parse_args()
    if options.steps < 2 or options.rounds < 1:
        parser.error("--steps must be 2 or more (the first is left out), --rounds 1 or more")
    changes = HowToTrain(set=options.set).changes()
    measured = measure_all(options.recipe, options.ckpt, options.steps, options.rounds, changes)
    print(f"\n{machine()}; {options.recipe} from {options.ckpt}, {measured[0].images} images a step\n")
    print(table(measured))


if __name__ == "__main__":
    main()
