"""Train a decoder on captioned visual tokens with transformers' Trainer (for pretraining and SFT)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils.logging import disable_progress_bar

from sar_eval.documents import read_json, shorten
from sar_eval.errors import BadInput
from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.storage.shards import TOKEN_SCHEMA, Place, read_metadata, read_shards
from sar_eval.train.checkpoint_writer import save_checkpoint
from sar_eval.train.curve import trim_curve
from sar_eval.train.state import check_state, make_folder
from sar_eval.types import Json

TrainingProgress = Callable[[int, int, float], None]  # called with step, steps and loss


@dataclass(frozen=True, slots=True)
class DecoderOptions:
    """Training options.

    Attributes:
        steps: total optimiser steps of the schedule, including those before a resume.
        batch_size: sequences per step and device.
        learning_rate: peak, after a linear warm-up of `warmup` steps, then a cosine to zero.
        caption_dropout: share of images trained without their caption, for guidance.
        stop_at: stop after this step of the schedule (0: at its end). A base for fine-tuning need not
            be annealed.
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

    def __post_init__(self) -> None:
        """Refuse what no training can do.

        Raises:
            BadInput: the end lies after the schedule's, where the rate is 0.
        """
        if self.stop_at > self.steps:
            raise BadInput(
                f"--stop-at is {self.stop_at}, after the end of the schedule, --steps {self.steps}"
            )


class TokenDataset(Dataset[dict[str, Tensor]]):
    """Sequences `<|t2i|> caption <|soi|> visual tokens`, with labels on the visual tokens only."""

    def __init__(self, data: Sequence[Place], tokenizer: Any, options: DecoderOptions) -> None:
        """Read all shards into memory.

        Raises:
            BadInput: there are no shards, their rows differ in length or are no square of tokens, or the
                text tokenizer lacks the control tokens.
        """
        tokens: list[Any] = []
        captions: list[str] = []
        for table in read_shards(data, TOKEN_SCHEMA):
            tokens += table["tokens"].to_pylist()
            captions += table["caption"].to_pylist()
        if len({len(row) for row in tokens}) != 1:
            raise BadInput(f"rows of several lengths in {', '.join(map(str, data))}")
        if not (length := len(tokens[0])) or math.isqrt(length) ** 2 != length:
            raise BadInput(
                f"rows of {length} tokens in {', '.join(map(str, data))}: no square image has so many"
            )
        self.tokens = np.array(tokens, np.int32) + len(tokenizer)
        self.captions = tokenizer(captions, add_special_tokens=False)["input_ids"]
        self.t2i_id, self.soi_id = _control_ids(tokenizer)
        self.dropped = np.random.default_rng(options.seed).random(len(tokens)) < options.caption_dropout

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        caption = [] if self.dropped[index] else self.captions[index]
        text = [self.t2i_id, *caption, self.soi_id]
        visual = torch.from_numpy(self.tokens[index]).long()
        return {
            "input_ids": torch.cat([torch.tensor(text), visual]),
            "labels": torch.cat([torch.full((len(text),), -100), visual]),
        }


def _control_ids(tokenizer: Any) -> list[int]:
    """Ids of `<|t2i|>` and `<|soi|>`."""
    names = ["<|t2i|>", "<|soi|>"]
    known = tokenizer.get_vocab()
    if missing := [name for name in names if name not in known]:
        raise BadInput(
            f"the text tokenizer lacks {', '.join(missing)}: it is not one of a model of this kind"
        )
    return [int(known[name]) for name in names]


def collate(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Pad on the right, where causal attention needs no mask."""
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad([r["input_ids"] for r in rows], batch_first=True, padding_value=0),
        "labels": pad([r["labels"] for r in rows], batch_first=True, padding_value=-100),
    }


class LossCurveCallback(TrainerCallback):
    """Write `loss.jsonl` and report progress."""

    def __init__(self, path: Path, progress: TrainingProgress) -> None:
        self.path, self.progress = path, progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Drop the lines that an interrupted run wrote after the checkpoint that this one resumes from."""
        if state.is_world_process_zero:
            trim_curve(self.path, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Append the loss to the curve."""
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        line = {"step": state.global_step, "loss": logs["loss"], "lr": logs["learning_rate"]}
        with self.path.open("a") as curve:
            curve.write(json.dumps(line) + "\n")
        self.progress(state.global_step, state.max_steps, float(logs["loss"]))


class _Trainer(Trainer):
    """A trainer whose learning-rate schedule may be longer than the training."""

    def __init__(self, schedule_steps: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.schedule_steps = schedule_steps

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:  # noqa: ARG002
        return super().create_scheduler(self.schedule_steps, optimizer)


def check_tokens(data: Sequence[Place], visual_tokenizer: Path) -> None:
    """Check that the shards were made with this visual tokenizer.

    Raises:
        BadInput: codebook sizes or encoders differ, or `visual_tokenizer` is not a tokenizer.
    """
    metadata, visual = read_metadata(data), VisualTokenizer(visual_tokenizer)
    codes, encoder = metadata.get("codebook_size"), metadata.get("encoder")
    if codes is not None and codes != str(visual.codebook_size):
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
    data: Sequence[Place],
    visual_tokenizer: Path,
    out: Path,
    options: DecoderOptions,
    progress: TrainingProgress = lambda step, steps, loss: None,
    training: Mapping[str, Json] | None = None,
) -> None:
    """Train `model` and write a checkpoint folder to `out`; resumes from `out/state` if it exists.

    Under `accelerate launch` or `torchrun` every process calls this; the first one writes. `training` goes
    to `save_checkpoint`.

    Raises:
        BadInput: the shards do not match each other or the tokenizer, `out` is a finished checkpoint, or
            its state was made with other options.
    """
    resume = _can_resume(out, options)
    check_tokens(data, visual_tokenizer)
    disable_progress_bar()  # transformers' own; `progress` replaces it
    dataset = TokenDataset(data, tokenizer, options)
    _check_range(
        dataset.tokens - len(tokenizer), visual_tokenizer, model.config.vocab_size - len(tokenizer)
    )
    make_folder(out)
    trainer = _Trainer(
        options.steps,
        model=model,
        args=_arguments(out / "state", options),
        train_dataset=dataset,
        data_collator=collate,
        callbacks=[LossCurveCallback(out / "loss.jsonl", progress)],
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.is_world_process_zero():
        _write_options(out / "state", options)
    trainer.train(resume_from_checkpoint=_last_state(out / "state") if resume else None)
    if trainer.is_world_process_zero():
        side = math.isqrt(dataset.tokens.shape[1])
        save_checkpoint(trainer.model, tokenizer, visual_tokenizer, {(side, side)}, out, training)


def _check_range(codes: NDArray[np.int32], visual_tokenizer: Path, in_model: int) -> None:
    """Raise BadInput unless the visual tokenizer and the model have every code."""
    known = min(VisualTokenizer(visual_tokenizer).codebook_size, in_model)
    if (low := int(codes.min())) < 0 or (high := int(codes.max())) >= known:
        found = f"{low}" if low < 0 else f"{high}"
        raise BadInput(
            f"the shards have the code {found}; {visual_tokenizer} and the model have 0 to {known - 1}"
        )


def _last_state(folder: Path) -> str | None:
    """The newest `checkpoint-<step>`, looked at; None if there is none.

    Raises:
        BadInput: it is damaged.
    """
    found: str | None = get_last_checkpoint(str(folder))
    if found is not None:
        check_state(Path(found))
    return found


def _can_resume(out: Path, options: DecoderOptions) -> bool:
    """Whether `out` has a state to resume from.

    Raises:
        BadInput: `out` is a finished checkpoint, or its state was made with other options.
    """
    if (out / "sar_eval.json").exists():  # written last, see `save_checkpoint`
        raise BadInput(f"{out} is already a finished checkpoint: use another --out")
    if not any((out / "state").glob("checkpoint-*")):
        return False
    path = out / "state" / "options.json"
    if path.is_file() and (made_with := read_json(path)) != asdict(options):
        raise BadInput(
            f"{path.parent} was made with other options ({shorten(made_with, 400)}): use them, or another "
            "--out"
        )
    return True


def _write_options(state: Path, options: DecoderOptions) -> None:
    state.mkdir(parents=True, exist_ok=True)
    temporary = state / "options.tmp"  # renamed at the end: another process may be reading
    temporary.write_text(json.dumps(asdict(options)))
    temporary.replace(state / "options.json")


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


def attention_implementation() -> str:
    """The decoder's `attn_implementation` in training: "sdpa" on a GPU, "eager" on the CPU.

    On the CPU the backward pass of SDPA takes half of a bfloat16 step at this size.
    """
    return "sdpa" if torch.cuda.is_available() else "eager"
