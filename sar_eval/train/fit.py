"""Train a decoder on captioned visual tokens: what `train pretrain`, `train sft` and `train run` do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.utils.logging import disable_progress_bar

from sar_eval.errors import BadInput, Incomplete
from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.families.simplear import Checkpoint, visual_setting
from sar_eval.storage.lock import training_lock
from sar_eval.train.batches import MicroBatches, TextIds
from sar_eval.train.checkpoint_writer import drawn_side, save_adapter, save_checkpoint
from sar_eval.train.cost_callback import CostCallback
from sar_eval.train.curve import TrainingProgress
from sar_eval.train.launcher import check_sharding, is_first
from sar_eval.train.live_weights import whole_adapters, whole_weights
from sar_eval.train.lora import adapter_base, add_adapters
from sar_eval.train.model import attention_implementation, prepare
from sar_eval.train.precision import usual_precision
from sar_eval.train.process_group import process_group, rank, ranks
from sar_eval.train.ranks import on_every_rank
from sar_eval.train.start import Loaded, Start
from sar_eval.train.state import make_folder
from sar_eval.train.stop_at_signal import StopAtSignal
from sar_eval.train.stop_request import StopRequest
from sar_eval.train.token_stream import TokenStream, WeightedPlace
from sar_eval.train.trainer import DecoderTrainer, LossCurveCallback, training_arguments
from sar_eval.train.training_advice import advice, enough_memory
from sar_eval.train.training_options import Precision, TrainingOptions
from sar_eval.train.training_settings import begun_precision, keep_settings, training_settings
from sar_eval.train.training_states import TrainingStates
from sar_eval.train.training_watch import TrainingWatch, Watching
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
        watching: how it is evaluated, and who is told how it goes.
        callbacks: further ones of the trainer.
        training: facts for the checkpoint's `sar_eval.json` and card: what made it.
    """

    start: Start
    data: Sequence[WeightedPlace]
    visual_tokenizer: Path
    out: Path
    options: TrainingOptions
    watching: Watching = field(default_factory=Watching)
    callbacks: Sequence[TrainerCallback] = ()
    training: Mapping[str, Json] = field(default_factory=dict)


def fit(job: TrainingJob, progress: TrainingProgress = lambda step, steps, loss: None) -> None:
    """Train, and write a checkpoint folder to `job.out`; resumes from `out/state` if it exists.

    Under `accelerate launch` or `torchrun` every process calls this; the first one writes.

    Raises:
        BadInput: the shards do not match each other or the tokenizer, `out` is a finished checkpoint, or
            its state was made with other options.
    """
    check_sharding()
    base = adapter_base(job.start, job.options.lora, job.options.ema)
    disable_progress_bar()  # transformers' own; `progress` replaces it
    with process_group(), ExitStack() as stack:
        job = _with_precision(job)
        stack.enter_context(enough_memory(job.options))
        stream = open_stream(job)  # before anything is written
        states = TrainingStates(job.out / "state")
        # Of the first rank, which alone reads and writes there.
        resumed = on_every_rank(lambda: _begin(job, stream, states, stack) if is_first() else 0)[0]
        stop = StopAtSignal(stack.enter_context(StopRequest()))
        watch = stack.enter_context(TrainingWatch(job.watching, job.out, ema=job.options.ema))
        on_every_rank(lambda: watch.prepare(job.visual_tokenizer, drawn_side(stream.sizes)))
        _advise(job)
        loaded = _load(job)
        check_codes(stream, loaded.model.config.vocab_size - len(loaded.tokenizer), "the model")
        write = partial(_write, job, stream, loaded)
        callbacks = [stop, *_told(job, watch, progress), *watch.callbacks(write)]
        trainer = _trainer(job, stream, loaded, states, resumed, callbacks)
        trainer.train()
        _tell_truncated(trainer, job.watching.tell)
        if (step := trainer.state.global_step) < job.options.last_step:
            raise Incomplete(
                f"interrupted; the state of step {step} is saved: run the same command again to finish "
                f"{job.out}"
            )
        trained: Any = trainer.model
        if base is None:
            weights = whole_weights(trained, watch.averages)
            on_every_rank(lambda: write(weights, job.out) if is_first() else None)
        else:
            adapters = whole_adapters(trained)
            on_every_rank(lambda: _write_adapter(job, stream, base, adapters) if is_first() else None)


def _with_precision(job: TrainingJob) -> TrainingJob:
    """The job with a precision in place of "auto", the first rank's on all."""
    if job.options.precision != "auto":
        return job
    chosen = on_every_rank(lambda: _chosen_precision(job.out) if is_first() else None)[0]
    if chosen is None:
        raise ValueError("the first rank chose no precision")
    return replace(
        job,
        options=replace(job.options, precision=chosen),
        watching=replace(job.watching, settings=_named(job.watching.settings, "training", chosen)),
        training=_named(job.training, "options", chosen),
    )


def _chosen_precision(out: Path) -> Precision:
    begun = begun_precision(out) if TrainingStates(out / "state").newest() else None
    return begun or usual_precision()


def _named(facts: Mapping[str, Json], table: str, precision: Precision) -> dict[str, Json]:
    """The facts with the precision in their table of options, where they have one."""
    options = facts.get(table)
    return {**facts, table: {**options, "precision": precision}} if isinstance(options, dict) else {**facts}


def _told(job: TrainingJob, watch: TrainingWatch, progress: TrainingProgress) -> list[TrainerCallback]:
    """What tells of cost, and of each point of the curve."""
    cost = CostCallback(job.options, job.watching.tell)
    path = job.out / "loss.jsonl"
    return [cost, LossCurveCallback(path, progress, watch.record, watch.clock, cost.utilisation)]


def _advise(job: TrainingJob) -> None:
    if is_first():
        for sentence in advice(job.options):
            job.watching.tell(sentence)


def _begin(job: TrainingJob, stream: TokenStream, states: TrainingStates, stack: ExitStack) -> int:
    """Take the folder for this training; the step to go on after. The first rank's work."""
    if (job.out / "sar_eval.json").exists():  # written last, see `save_checkpoint`
        raise BadInput(f"{job.out} is already a finished checkpoint: use another --out")
    make_folder(job.out)
    stack.enter_context(training_lock(job.out))
    resumed = states.newest()
    now = training_settings(job.options, job.start.facts, job.data, stream)
    keep_settings(job.out, now, job.options, resumed)
    return resumed


def _load(job: TrainingJob) -> Loaded:
    torch.manual_seed(job.options.seed)
    loaded = job.start.load(attention_implementation())
    if job.options.lora:
        add_adapters(loaded.model, job.options.lora, job.options.seed)
    return loaded


def _trainer(
    job: TrainingJob,
    stream: TokenStream,
    loaded: Loaded,
    states: TrainingStates,
    resumed: int,
    callbacks: Sequence[TrainerCallback],
) -> DecoderTrainer:
    """The trainer of this rank."""
    options, count = job.options, ranks()
    batches = MicroBatches(
        stream,
        TextIds(loaded.tokenizer),
        rank=rank(),
        ranks=count,
        batch_size=options.batch_size,
        micro=options.micro_batch(count),
        first_step=resumed,
        steps=options.last_step,
        pack=options.pack,
        context=loaded.model.config.max_position_embeddings,
    )
    return DecoderTrainer(
        batches,
        options,
        states,
        model=prepare(loaded.model, len(loaded.tokenizer), options.loss),
        args=training_arguments(states.folder, options, count),
        callbacks=[*callbacks, *job.callbacks],
    )


def _tell_truncated(trainer: DecoderTrainer, tell: Callable[[str], None]) -> None:
    """Say how many captions were not seen whole since the last resume."""
    if (cut := sum(on_every_rank(lambda: trainer.truncated))) and is_first():
        context = trainer.batches.context
        tell(f"captions cut at their end, to fit into the model's context of {context} tokens: {cut:,}")


def _write(
    job: TrainingJob,
    stream: TokenStream,
    loaded: Loaded,
    weights: Mapping[str, Tensor],
    folder: Path,
    step: int | None = None,
) -> None:
    """Write weights as a checkpoint, that of a step on the way if one is named; the first rank's work."""
    facts = job.training if step is None else {**job.training, "step": step}
    name = job.out.resolve().name  # not the folder's, which gets another one when it is whole
    save_checkpoint(
        loaded.model, loaded.tokenizer, job.visual_tokenizer, stream.sizes, folder, facts, weights, name
    )


def _write_adapter(
    job: TrainingJob, stream: TokenStream, base: Checkpoint, tensors: Mapping[str, Tensor]
) -> None:
    """Write what was trained as an adapter of its base; the first rank's work."""
    save_adapter(tensors, base, job.visual_tokenizer, stream.sizes, job.out, job.training)


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
    check_codes(stream, visual_setting(job.visual_tokenizer, "codebook_size"), str(job.visual_tokenizer))
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


def check_codes(stream: TokenStream, known: int, where: str) -> None:
    """Raise BadInput if the shards have a code that `where`, with `known` codes, does not have."""
    if stream.max_code is not None and stream.max_code >= known:
        raise BadInput(f"the shards have the code {stream.max_code}; {where} has 0 to {known - 1}")
