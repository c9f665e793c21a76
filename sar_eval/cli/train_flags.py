"""The flags of `train pretrain`, `train sft` and `train run`: each is a value of a recipe."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from sar_eval.cli.recipe_changes import changed_tables
from sar_eval.options import asked, option
from sar_eval.train.training_options import MAX_BATCH, MAX_SEED
from sar_eval.types import Json

START, TRAINING, SPEED, WATCH = "Start", "Training", "Memory and speed", "Evaluation"  # panels of --help


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatToTrain:
    """Data, start and result."""

    out: Path = option("The folder to write.", "run", default=MISSING)
    data: list[str] | None = option(
        "Folder of token shards, or a set's folder or URI; again for more, each with a weight or none.",
        "run",
        metavar="PLACE[:WEIGHT]",
    )
    tokenizer: str | None = option(
        "What made the tokens: a folder, of the hub, or demo:NAME; else the checkpoint's.",
        "run",
        is_name=True,
    )
    init: str | None = option(
        "Begin with this language model, a folder or of the hub, as Qwen/Qwen2.5-0.5B.",
        "run",
        panel=START,
        is_name=True,
    )
    shape: str | None = option(
        "Begin with random weights: demo, 0.5b, 1.5b or a config.json.", "run", panel=START, is_name=True
    )
    ckpt: str | None = option(
        "Begin with this checkpoint: a folder, demo:NAME, or of the hub.", "run", panel=START, is_name=True
    )
    text_tokenizer: str | None = option(
        "Text tokenizer of --shape: a folder, or of the hub.", "run", panel=START, is_name=True
    )
    tie: bool | None = option(
        "Whether head and embedding are one matrix.", "run", "--tie/--untie", panel=START
    )

    def tables(self) -> dict[str, Json]:
        """`[data]` and `[start]` as far as they are asked for."""
        data = {"places": self.data, "visual_tokenizer": self.tokenizer}
        start = {name: getattr(self, name) for name in ("init", "shape", "ckpt", "text_tokenizer", "tie")}
        return {"data": _given(data), "start": _given(start)}


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToTrain:
    """`[training]`."""

    steps: int | None = option("Optimiser steps of the whole schedule.", "run", panel=TRAINING, low=1)
    batch_size: int | None = option(
        "Pictures of a step, over all devices; 64 by default.", "run", panel=TRAINING, low=1, high=MAX_BATCH
    )
    learning_rate: float | None = option(
        "Peak rate; by default 2e-3 for --shape demo, 5e-4 for --ckpt, else 1e-4.",
        "run",
        panel=TRAINING,
        above=0,
    )
    warmup: int | None = option(
        "Steps of the rate's linear warm-up; 200 by default.", "run", panel=TRAINING, low=0
    )
    schedule: str | None = option(
        "What follows: a cosine to zero (the default), or the peak to the end.",
        "run",
        panel=TRAINING,
        metavar="cosine|constant",
    )
    weight_decay: float | None = option("AdamW's; 0.05 by default.", "run", panel=TRAINING, low=0)
    caption_dropout: float | None = option(
        "Share of pictures that are trained without caption, for guidance; 0.1 by default.",
        "run",
        panel=TRAINING,
        low=0,
        high=1,
    )
    seed: int | None = option(
        "Seed of new weights, order and dropped captions; 0 by default.",
        "run",
        panel=TRAINING,
        low=0,
        high=MAX_SEED,
    )
    stop_at: int | None = option(
        "End after this step of the schedule; 0, the default, is at its end.", "run", panel=TRAINING, low=0
    )
    loss: str | None = option(
        "Softmax over the visual codes alone (the default), or over the whole vocabulary.",
        "run",
        panel=TRAINING,
        metavar="visual|full",
    )
    lora: int | None = option(
        "Train low-rank adapters of this rank in place of the weights.", "run", panel=TRAINING, low=0
    )
    ema: float | None = option(
        "Decay of averaged weights, as 0.9999; 0, the default, keeps none.",
        "run",
        panel=TRAINING,
        low=0,
        high=1,
    )
    micro: int | None = option(
        "Pictures of one forward pass on a device; by default all of its share.", "run", panel=SPEED, low=0
    )
    precision: str | None = option(
        "Of the forward pass; weights and optimiser are float32. By default bfloat16 where the device "
        "computes in it, else float32.",
        "run",
        panel=SPEED,
        metavar="auto|bfloat16|float32",
    )
    pack: bool | None = option(
        "Put the pictures of a forward pass into one row: no padding, but attention over all of it. Pays "
        "for pictures of very different sizes.",
        "run",
        "--pack/--no-pack",
        panel=SPEED,
    )
    gradient_checkpointing: bool | None = option(
        "Compute activations again instead of keeping them.",
        "run",
        "--gradient-checkpointing/--no-gradient-checkpointing",
        panel=SPEED,
    )
    compile: bool | None = option(
        "Compile the decoder's layers.", "run", "--compile/--no-compile", panel=SPEED
    )
    workers: int | None = option(
        "Processes that read data, beside each that trains; each of them reads and holds every window.",
        "run",
        panel=SPEED,
        low=0,
        high=1024,
    )
    save_every: int | None = option(
        "Steps between resumable states; 500 by default.", "run", panel=SPEED, low=1
    )
    log_every: int | None = option(
        "Steps between points of the curve; 20 by default.", "run", panel=SPEED, low=1
    )
    set: list[str] | None = option(
        "Another value of the recipe, as training.beta2=0.99; may be repeated.",
        "run",
        metavar="TABLE.KEY=VALUE",
    )

    def tables(self) -> dict[str, Json]:
        """`[training]` as far as it is asked for."""
        given = asked(self)
        given.pop("set", None)
        return {"training": given}


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToWatch:
    """`[evaluation]`."""

    benchmark: str | None = option(
        "Draw and judge this benchmark's prompts while training; see `sar-eval list`.",
        "run",
        "--eval",
        panel=WATCH,
        metavar="BENCHMARK",
        is_name=True,
    )
    every: int | None = option(
        "Steps between evaluations; 500 by default.", "run", "--eval-every", panel=WATCH, low=1
    )
    prompts: int | None = option(
        "How many are drawn, evenly from its tasks; 0, the default, is all.",
        "run",
        "--eval-prompts",
        panel=WATCH,
        low=0,
    )
    images_per_prompt: int | None = option(
        "Images of each; 1 by default.", "run", "--eval-images", panel=WATCH, low=1, high=100_000
    )
    device: str | None = option(
        "Device of the judge: cpu (the default), or cuda.", "run", "--eval-device", panel=WATCH
    )

    def tables(self) -> dict[str, Json]:
        """`[evaluation]` as far as it is asked for."""
        return {"evaluation": asked(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class WhereToPush:
    """A repository of the hub, and whether the hub is asked at all."""

    push: str = option(
        "Upload the finished checkpoint to this model of the hub.", "run", default="", metavar="ORG/NAME"
    )
    private: bool = option("Make a new repository of --push private.", "run", "--private", default=False)
    local_only: bool = option("Never ask the hub: folders and its cache.", "run", default=False)


def recipe_changes(what: WhatToTrain, how: HowToTrain, watch: HowToWatch) -> dict[str, Json]:
    """Tables of a recipe with the values that the command line asks for; flags win over `--set`.

    Raises:
        BadInput: a word of `--set` has another form.
    """
    changes = changed_tables(how.set, "training.beta2=0.99")
    for tables in (what.tables(), how.tables(), watch.tables()):
        for name, values in tables.items():
            if values:
                changes[name] = {**_table(changes.get(name)), **values}
    return changes


def _table(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _given(values: dict[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in values.items() if value is not None}
