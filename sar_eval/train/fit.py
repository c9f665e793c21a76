"""Train a decoder on captioned visual tokens: what `train pretrain`, `train sft` and `train run` do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils.logging import disable_progress_bar

from sar_eval.documents import read_json, shorten
from sar_eval.errors import BadInput
from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.storage.token_shards import WeightedPlace
from sar_eval.train.batches import MicroBatches, text_ids
from sar_eval.train.checkpoint_writer import save_checkpoint
from sar_eval.train.curve import TrainingProgress
from sar_eval.train.model import attention_implementation, prepare
from sar_eval.train.start import Start
from sar_eval.train.state import check_state, make_folder
from sar_eval.train.token_stream import TokenStream
from sar_eval.train.trainer import DecoderTrainer, LossCurveCallback, training_arguments
from sar_eval.train.training_options import TrainingOptions
from sar_eval.types import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """One training, resolved.

    Attributes:
        start: what the decoder and its text tokenizer are at step 0.
        data: token shards and sets, with their weights in a mixture.
        visual_tokenizer: folder of the tokenizer that the shards were made with.
        out: the folder to write.
        options: how it is trained.
        callbacks: further ones of the trainer: evaluation, averaged weights, trackers.
        training: facts for the checkpoint's `sar_eval.json` and card: what made it.
    """

    start: Start
    data: Sequence[WeightedPlace]
    visual_tokenizer: Path
    out: Path
    options: TrainingOptions
    callbacks: Sequence[TrainerCallback] = ()
    training: Mapping[str, Json] = field(default_factory=dict)


def fit(job: TrainingJob, progress: TrainingProgress = lambda step, steps, loss: None) -> None:
    """Train, and write a checkpoint folder to `job.out`; resumes from `out/state` if it exists.

    Under `accelerate launch` or `torchrun` every process calls this; the first one writes.

    Raises:
        BadInput: the shards do not match each other or the tokenizer, `out` is a finished checkpoint, or
            its state was made with other options.
    """
    out, options = job.out, job.options
    resume = _can_resume(out, options)
    disable_progress_bar()  # transformers' own; `progress` replaces it
    stream = open_stream(job)
    torch.manual_seed(options.seed)
    model, tokenizer = job.start.load(
        attention_implementation("cuda" if torch.cuda.is_available() else "cpu")
    )
    check_codes(stream, job.visual_tokenizer, model.config.vocab_size - len(tokenizer))
    make_folder(out)
    ranks = PartialState(cpu=not torch.cuda.is_available())
    state = last_state(out / "state") if resume else None
    batches = MicroBatches(
        stream,
        text_ids(tokenizer),
        rank=ranks.process_index,
        ranks=ranks.num_processes,
        batch_size=options.batch_size,
        micro=options.micro_batch(ranks.num_processes),
        first_step=_step_of(state),
        steps=options.last_step,
        pack=options.pack,
        offset=len(tokenizer),
    )
    trainer = DecoderTrainer(
        batches,
        options,
        model=prepare(model, len(tokenizer), options.loss),
        args=training_arguments(out / "state", options, ranks.num_processes),
        callbacks=[LossCurveCallback(out / "loss.jsonl", progress), *job.callbacks],
    )
    if trainer.is_world_process_zero():
        _write_options(out / "state", options)
    trainer.train(resume_from_checkpoint=state)
    if trainer.is_world_process_zero():
        save_checkpoint(trainer.model, tokenizer, job.visual_tokenizer, stream.sizes, out, job.training)


def open_stream(job: TrainingJob) -> TokenStream:
    """The job's rows in their order.

    Raises:
        BadInput: there are none, they do not match each other or the visual tokenizer.
    """
    options = job.options
    stream = TokenStream(
        job.data, seed=options.seed, window=options.window, caption_dropout=options.caption_dropout
    )
    check_tokens(stream.metadata, job.visual_tokenizer)
    return stream


def check_tokens(metadata: Mapping[str, str], visual_tokenizer: Path) -> None:
    """Check that the shards were made with this visual tokenizer.

    Raises:
        BadInput: codebook sizes or encoders differ, or `visual_tokenizer` is not a tokenizer.
    """
    visual = VisualTokenizer(visual_tokenizer)
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


def check_codes(stream: TokenStream, visual_tokenizer: Path, in_model: int) -> None:
    """Raise BadInput unless the visual tokenizer and the model have every code that the shards have."""
    known = min(VisualTokenizer(visual_tokenizer).codebook_size, in_model)
    if stream.max_code is not None and stream.max_code >= known:
        raise BadInput(
            f"the shards have the code {stream.max_code}; {visual_tokenizer} and the model have 0 to "
            f"{known - 1}"
        )


def last_state(folder: Path) -> str | None:
    """The newest `checkpoint-<step>`, looked at; None if there is none.

    Raises:
        BadInput: it is damaged.
    """
    found: str | None = get_last_checkpoint(str(folder))
    if found is not None:
        check_state(Path(found))
    return found


def _step_of(state: str | None) -> int:
    return int(Path(state).name.rpartition("-")[2]) if state else 0


def _can_resume(out: Path, options: TrainingOptions) -> bool:
    """Whether `out` has a state to resume from.

    Raises:
        BadInput: `out` is a finished checkpoint, or its state was made with other options.
    """
    if (out / "sar_eval.json").exists():  # written last, see `save_checkpoint`
        raise BadInput(f"{out} is already a finished checkpoint: use another --out")
    if not any((out / "state").glob("checkpoint-*")):
        return False
    path = out / "state" / "options.json"
    if path.is_file() and (made_with := read_json(path)) != _recorded(options):
        raise BadInput(
            f"{path.parent} was made with other options ({shorten(made_with, 400)}): use them, or another "
            "--out"
        )
    return True


def _recorded(options: TrainingOptions) -> dict[str, Any]:
    return asdict(options)


def _write_options(state: Path, options: TrainingOptions) -> None:
    state.mkdir(parents=True, exist_ok=True)
    temporary = state / "options.tmp"  # renamed at the end: another process may be reading
    temporary.write_text(json.dumps(_recorded(options)))
    temporary.replace(state / "options.json")
