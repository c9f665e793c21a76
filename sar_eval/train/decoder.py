"""Fit a decoder on captioned visual tokens with transformers' Trainer (pretraining and SFT alike)."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from sar_eval.errors import BadInput
from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.storage.shards import TOKEN_SCHEMA, read_metadata, read_shards
from sar_eval.train.curve import trim_curve

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class DecoderOptions:
    """How a decoder is fitted.

    Attributes:
        steps: optimiser steps in all, also when resumed.
        batch_size: sequences a step and device.
        learning_rate: peak, after a linear warm-up of `warmup` steps, then a cosine to zero.
        stop_at: end after this step although the schedule goes on (0: at its end). A base for
            fine-tuning need not be annealed.
        caption_dropout: share of images trained without their caption, for guidance.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    warmup: int = 200
    weight_decay: float = 0.05
    caption_dropout: float = 0.1
    seed: int = 0
    save_every: int = 500
    stop_at: int = 0


class TokenDataset(Dataset[dict[str, Tensor]]):
    """Rows `<|t2i|> caption <|soi|> visual tokens`, with labels on the visual tokens only."""

    def __init__(self, data: Sequence[Path], tokenizer: Any, options: DecoderOptions) -> None:
        """Read all shards into memory.

        Raises:
            BadInput: no shards, or rows of several lengths.
        """
        tokens: list[Any] = []
        captions: list[str] = []
        for table in read_shards(data, TOKEN_SCHEMA):
            tokens += table["tokens"].to_pylist()
            captions += table["caption"].to_pylist()
        if len({len(row) for row in tokens}) != 1:
            raise BadInput(f"rows of several lengths in {', '.join(map(str, data))}")
        self.tokens = np.array(tokens, np.int32) + len(tokenizer)
        self.captions = tokenizer(captions, add_special_tokens=False)["input_ids"]
        self.begin, self.image = tokenizer.convert_tokens_to_ids(["<|t2i|>", "<|soi|>"])
        self.dropped = np.random.default_rng(options.seed).random(len(tokens)) < options.caption_dropout

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        caption = [] if self.dropped[index] else self.captions[index]
        text = [self.begin, *caption, self.image]
        visual = torch.from_numpy(self.tokens[index]).long()
        return {
            "input_ids": torch.cat([torch.tensor(text), visual]),
            "labels": torch.cat([torch.full((len(text),), -100), visual]),
        }


def collate(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Pad to the right; causal attention never looks there, so no mask is needed."""
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad([r["input_ids"] for r in rows], batch_first=True, padding_value=0),
        "labels": pad([r["labels"] for r in rows], batch_first=True, padding_value=-100),
    }


class _Curve(TrainerCallback):
    """Writes `loss.jsonl` and reports progress."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self.path, self.progress = path, progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:  # noqa: ARG002
        """Drop what an interrupted start wrote after the state that this one goes on from."""
        if state.is_world_process_zero:
            trim_curve(self.path, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:  # noqa: ARG002
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        line = {"step": state.global_step, "loss": logs["loss"], "lr": logs["learning_rate"]}
        with self.path.open("a") as curve:
            curve.write(json.dumps(line) + "\n")
        self.progress(state.global_step, state.max_steps, float(logs["loss"]))


class _Trainer(Trainer):
    """A trainer that may stop before its learning-rate schedule is over."""

    def __init__(self, schedule_steps: int, **rest: Any) -> None:
        super().__init__(**rest)
        self.schedule_steps = schedule_steps

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:  # noqa: ARG002
        return super().create_scheduler(self.schedule_steps, optimizer)


def check_tokens(data: Sequence[Path], visual_tokenizer: Path) -> None:
    """Refuse shards that another visual tokenizer made.

    Raises:
        BadInput: codebook sizes or encoders differ, or `visual_tokenizer` is none.
    """
    made_with, visual = read_metadata(data), VisualTokenizer(visual_tokenizer)
    codes, encoder = made_with.get("codebook_size"), made_with.get("encoder")
    if codes is not None and int(codes) != visual.codebook_size:
        raise BadInput(
            f"the shards use {codes} codes, the tokenizer in {visual_tokenizer} has {visual.codebook_size}"
        )
    if encoder is not None and encoder != visual.encoder_digest:
        raise BadInput(
            f"the shards were made with encoder {encoder}, the one in {visual_tokenizer} is "
            f"{visual.encoder_digest}: name their tokenizer, or tokenize the images again"
        )


def fit(
    model: Any,
    tokenizer: Any,
    data: Sequence[Path],
    visual_tokenizer: Path,
    out: Path,
    options: DecoderOptions,
    progress: Progress = lambda step, steps, loss: None,
) -> None:
    """Train `model` and write a checkpoint folder to `out`; resumes from `out/state` by itself.

    Under `accelerate launch` or `torchrun` every process calls this; the first one writes.

    Raises:
        BadInput: shards that do not fit together or to the tokenizer, `out` is finished, or its state
            was made with other options.
    """
    resumes = _resumes(out, options)
    check_tokens(data, visual_tokenizer)
    disable_progress_bar()  # transformers' own, beside ours
    out.mkdir(parents=True, exist_ok=True)
    dataset = TokenDataset(data, tokenizer, options)
    trainer = _Trainer(
        options.steps,
        model=model,
        args=_arguments(out / "state", options),
        train_dataset=dataset,
        data_collator=collate,
        callbacks=[_Curve(out / "loss.jsonl", progress)],
    )
    trainer.remove_callback(PrinterCallback)  # the curve's progress is what is shown
    if trainer.is_world_process_zero():
        _note(out / "state", options)
    trainer.train(resume_from_checkpoint=resumes)
    if trainer.is_world_process_zero():
        side = math.isqrt(dataset.tokens.shape[1])
        save(trainer.model, tokenizer, visual_tokenizer, side, out)


def _resumes(out: Path, options: DecoderOptions) -> bool:
    """Whether `out` holds a state to go on from, after checking that it may be written at all."""
    if (out / "sar_eval.json").exists():  # written last, see `save`
        raise BadInput(f"{out} already holds a finished checkpoint: use another --out")
    if not any((out / "state").glob("checkpoint-*")):
        return False
    noted = out / "state" / "options.json"
    if noted.is_file() and json.loads(noted.read_text()) != asdict(options):
        raise BadInput(
            f"{noted.parent} was made with other options ({noted.read_text()}): use them, or another --out"
        )
    return True


def _note(state: Path, options: DecoderOptions) -> None:
    state.mkdir(parents=True, exist_ok=True)
    partial = state / "options.tmp"  # by rename: another process may be reading
    partial.write_text(json.dumps(asdict(options)))
    partial.replace(state / "options.json")


def _arguments(state: Path, options: DecoderOptions) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(state),
        max_steps=options.stop_at or options.steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup_steps=options.warmup,
        lr_scheduler_type="cosine",
        weight_decay=options.weight_decay,
        adam_beta2=0.95,
        bf16=True,
        seed=options.seed,
        logging_steps=20,
        save_steps=options.save_every,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
    )


def attention() -> str:
    """How the decoder attends in training: fused on a GPU, plain on the CPU.

    On the CPU the backward pass of the fused kernel takes half of a bfloat16 step at this size.
    """
    return "sdpa" if torch.cuda.is_available() else "eager"


def save(model: Any, tokenizer: Any, visual_tokenizer: Path, side: int, out: Path) -> None:
    """Write the decoder in bfloat16 safetensors, its tokenizer, and where the visual tokenizer is.

    `side` is the number of visual tokens along one side of a training image.
    """
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    config = json.loads((out / "config.json").read_text())
    config["architectures"] = ["SimpARForCausalLM"]
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    resolution = side * VisualTokenizer(visual_tokenizer).downsample
    place = {"visual_tokenizer": os.path.relpath(visual_tokenizer, out), "resolution": resolution}
    (out / "sar_eval.json").write_text(json.dumps(place, indent=2) + "\n")
    shutil.rmtree(out / "state", ignore_errors=True)
