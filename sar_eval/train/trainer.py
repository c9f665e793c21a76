"""transformers' Trainer on our batches: which rows a step takes, how its loss is scaled, what is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

from sar_eval.errors import BadInput
from sar_eval.train.batches import IGNORED, MicroBatches, MicroBatchLoader
from sar_eval.train.curve import TrainingProgress, add_to_curve, trim_curve
from sar_eval.train.full_state import full_state, load_full_state
from sar_eval.train.launcher import is_first
from sar_eval.train.ranks import on_every_rank
from sar_eval.train.step_rows import StepRows
from sar_eval.train.training_clock import TrainingClock
from sar_eval.train.training_options import TrainingOptions
from sar_eval.train.training_states import SavesState, TrainingStates

FIGURES = ("loss", "learning_rate", "grad_norm")  # of a point of the curve, as the trainer logs them
SCHEDULERS = {"cosine": "cosine", "constant": "constant_with_warmup"}


class LossCurveCallback(TrainerCallback):
    """Writes `loss.jsonl` and reports progress; in the first process only."""

    def __init__(
        self,
        path: Path,
        progress: TrainingProgress,
        record: Callable[[int, Mapping[str, float]], None] = lambda step, figures: None,
        clock: TrainingClock | None = None,
        utilisation: Callable[[float], float | None] = lambda tokens_per_s: None,
    ) -> None:
        """Nothing is written yet.

        Args:
            path: of the curve.
            progress: is told step, steps and loss.
            record: is told a step and all its figures, by the names of the journal.
            clock: of the training, which stands still while it waits for something else.
            utilisation: the share of the devices' peak that visual tokens a second are, if that is known.
        """
        self.path, self.progress, self.record, self.utilisation = path, progress, record, utilisation
        self._clock, self._since, self._tokens = clock or TrainingClock(), 0.0, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Drop the lines that an interrupted run wrote after the state that this one resumes from."""
        self._since, self._tokens = self._clock.seconds, state.num_input_tokens_seen
        if state.is_world_process_zero:
            trim_curve(self.path, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """The last step has a point, too, whatever the distance between points."""
        if control.should_training_stop:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Append a point to the curve."""
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        figures = {name: float(logs[name]) for name in FIGURES if name in logs}
        rate = self._rate(state)
        figures["tokens_per_s"] = float(round(rate))
        if (share := self.utilisation(rate)) is not None:
            figures["mfu"] = round(share, 4)
        short = {"lr" if name == "learning_rate" else name: value for name, value in figures.items()}
        add_to_curve(self.path, {"step": state.global_step, **short})
        self.record(state.global_step, figures)
        self.progress(state.global_step, state.max_steps, float(logs["loss"]))

    def _rate(self, state: Any) -> float:
        """Visual tokens a second since the last point, of all devices."""
        seconds = self._clock.seconds - self._since
        tokens: int = state.num_input_tokens_seen - self._tokens
        self._since, self._tokens = self._clock.seconds, state.num_input_tokens_seen
        return tokens / seconds


class DecoderTrainer(Trainer):
    """A trainer of `TrainedDecoder` on micro-batches whose order depends on nothing but seed and step.

    The loss of a step is the mean over all visual tokens of all its pictures, whatever the number of
    devices and of forward passes that share them.

    Attributes:
        truncated: captions of this rank that were cut to fit into the context.
    """

    def __init__(
        self,
        batches: MicroBatches,
        options: TrainingOptions,
        states: TrainingStates,
        **kwargs: Any,
    ) -> None:
        """Set it up; nothing is computed yet.

        Args:
            batches: of this rank, from the step on that it resumes after.
            options: how it is trained.
            states: where it saves, and has the state to resume from.
            kwargs: `Trainer`'s own.
        """
        super().__init__(train_dataset=batches, **kwargs)
        if options.compile:
            compile_layers(self.model)
        self.batches, self.options, self.states = batches, options, states
        self.rows = StepRows(states.folder.parent)
        self.saved, self.truncated = batches.first_step, 0
        self.loss_is_scaled_for_ga = True  # see `compute_loss`
        self.remove_callback(PrinterCallback)

    def create_accelerator_and_postprocess(self) -> None:
        """Under FSDP2 gradients are summed, and the loss is returned, in float32.

        accelerate would do both in bfloat16: a sum over 8 ranks would then differ from the same sum on one.
        """
        super().create_accelerator_and_postprocess()
        if self.is_fsdp_enabled and self.args.bf16:
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32
            )

    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """This rank's micro-batches from the step on that it resumes at; accelerate shares nothing out."""
        workers, pinned = self.options.workers, torch.cuda.is_available()
        return MicroBatchLoader(self.batches, workers=workers, pin_memory=pinned)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """A forward and a backward pass, whose rows are named should the step fail."""
        if not self.rows.begun:
            torch.manual_seed(self._seed())
        keys, total = inputs["keys"], inputs["total"]
        own = (inputs["labels"] != IGNORED).sum()
        loss = super().training_step(model, inputs, num_items_in_batch)
        # Of a token of this pass, to be held against the curve's.
        self.rows.add(keys, loss * (total / self.args.world_size / own))
        return loss

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: ARG002
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Tensor:
        """This micro-batch's part of the step's mean; gradients are averaged over ranks later."""
        total = inputs.pop("total")
        self.truncated += inputs.pop("truncated")
        del inputs["keys"]
        loss: Tensor = model(**inputs) * (self.args.world_size / total)
        if self.accelerator.sync_gradients:  # the step's last
            self.state.num_input_tokens_seen += total
        return loss

    def _seed(self) -> int:
        """Of the step's dropout, if there is any: a function of seed, step and rank, so no state has it."""
        of = (self.options.seed, self.state.global_step, self.args.process_index)
        return int(np.random.SeedSequence(of).generate_state(1, np.uint64)[0])

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> float:
        """The norm of the step's gradient, which must be a number.

        Raises:
            Incomplete: it is none.
        """
        norm = float(super()._get_grad_norm(model, grad_norm))
        self.rows.check(self.state.global_step + 1, norm, self.saved)
        return norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:  # noqa: ARG002
        """Write a state in place of transformers' own, whose files a kill would leave half-written."""
        step = self.state.global_step
        if step == self.saved:
            return
        optimizer: Any = self.optimizer  # accelerate's, around AdamW
        scheduler: Any = self.lr_scheduler
        state = full_state(self.model_wrapped, optimizer.optimizer)
        state |= {"scheduler": scheduler.state_dict(), "tokens": self.state.num_input_tokens_seen}
        state |= {callback.state_name: callback.gathered_state() for callback in self._with_states()}
        on_every_rank(lambda: self.states.save(step, state) if is_first() else None)
        self.saved = step

    def _with_states(self) -> list[SavesState]:
        return [each for each in self.callback_handler.callbacks if isinstance(each, SavesState)]

    def _init_training_state(self, *args: Any) -> tuple[int, int]:
        """Begin after the step of the state."""
        epochs: tuple[int, int] = super()._init_training_state(*args)
        self.state.global_step = self.saved
        return epochs

    def _prepare_for_training(self, *args: Any) -> tuple[Any, Any]:
        """Once the model is distributed, give every rank its part of the state to resume from."""
        prepared: tuple[Any, Any] = super()._prepare_for_training(*args)
        if self.saved:
            self._load_state()
        return prepared

    def _load_state(self) -> None:
        """Load the state.

        Raises:
            BadInput: it is damaged or of another model.
        """
        optimizer: Any = self.optimizer  # accelerate's, around AdamW
        scheduler: Any = self.lr_scheduler
        state: dict[str, Any] = {}  # of the first rank
        on_every_rank(lambda: state.update(self.states.load(self.saved)) if is_first() else None)
        for callback in self._with_states():
            callback.resume_from(state.pop(callback.state_name, {}))
        try:
            load_full_state(self.model_wrapped, optimizer.optimizer, state)
            plain: Any = on_every_rank(lambda: {name: state.get(name) for name in ("scheduler", "tokens")})[
                0
            ]
            scheduler.load_state_dict(plain["scheduler"])
        except (RuntimeError, LookupError, TypeError, ValueError) as error:
            raise BadInput(self.states.is_another(self.saved, error)) from error
        self.state.num_input_tokens_seen = plain["tokens"]

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:  # noqa: ARG002
        """The schedule may be longer than the training."""
        return super().create_scheduler(self.options.steps, optimizer)


def compile_layers(model: Any) -> None:
    """Compile every layer by itself: they share one compilation, and parameters keep their names."""
    for module in model.modules():
        if isinstance(module, Qwen2DecoderLayer):
            module.compile()


def training_arguments(state: Path, options: TrainingOptions, ranks: int) -> TrainingArguments:
    """What transformers' Trainer is told; `state` is the folder of its states."""
    on_gpu = torch.cuda.is_available()
    made = TrainingArguments(
        output_dir=str(state),
        max_steps=options.last_step,
        per_device_train_batch_size=options.micro_batch(ranks),
        gradient_accumulation_steps=options.accumulation(ranks),
        learning_rate=options.learning_rate,
        warmup_steps=options.warmup,
        lr_scheduler_type=SCHEDULERS[options.schedule],
        weight_decay=options.weight_decay,
        adam_beta2=options.beta2,
        max_grad_norm=options.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=options.computed_in == "bfloat16",
        seed=options.seed,
        logging_steps=options.log_every,
        logging_nan_inf_filter=False,  # see `StepRows`
        save_steps=options.save_every,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        ignore_data_skip=True,  # the batches begin where the state ended
        ddp_find_unused_parameters=False,
        gradient_checkpointing=options.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        dataloader_pin_memory=on_gpu,
        use_cpu=not on_gpu,
    )
    # A process trains on one device. Where no launcher ran, transformers would put the model into
    # `nn.DataParallel`, which averages the losses of its replicas and has no autocast here.
    made._n_gpu = min(made.n_gpu, 1)
    return made
