"""transformers' Trainer on our batches: which rows a step takes, how its loss is scaled, where it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from sar_eval.train.batches import MicroBatches
from sar_eval.train.curve import TrainingProgress, add_to_curve, trim_curve
from sar_eval.train.ema import AveragedWeights
from sar_eval.train.training_clock import TrainingClock
from sar_eval.train.training_options import TrainingOptions

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
    ) -> None:
        """Nothing is written yet.

        Args:
            path: of the curve.
            progress: is told step, steps and loss.
            record: is told a step and all its figures, by the names of the journal.
            clock: of the training, which stands still while it waits for something else.
        """
        self.path, self.progress, self.record = path, progress, record
        self._clock, self._since, self._tokens = clock or TrainingClock(), 0.0, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Drop the lines that an interrupted run wrote after the state that this one resumes from."""
        self._since, self._tokens = self._clock.seconds, state.num_input_tokens_seen
        if state.is_world_process_zero:
            trim_curve(self.path, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Append a point to the curve."""
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        figures = {name: float(logs[name]) for name in FIGURES if name in logs}
        figures["tokens_per_s"] = float(round(self._rate(state)))
        short = {"lr" if name == "learning_rate" else name: value for name, value in figures.items()}
        add_to_curve(self.path, {"step": state.global_step, **short})
        self.record(state.global_step, figures)
        self.progress(state.global_step, state.max_steps, float(logs["loss"]))

    def _rate(self, state: Any) -> float:
        """Visual tokens a second since the last point, of all devices."""
        seconds = self._clock.seconds - self._since
        tokens = state.num_input_tokens_seen - self._tokens
        self._since, self._tokens = self._clock.seconds, state.num_input_tokens_seen
        return tokens / seconds


class DecoderTrainer(Trainer):
    """A trainer of `TrainedDecoder` on micro-batches whose order depends on nothing but seed and step.

    The loss of a step is the mean over all visual tokens of all its pictures, whatever the number of
    devices and of forward passes that share them.
    """

    def __init__(self, batches: MicroBatches, options: TrainingOptions, **kwargs: Any) -> None:
        super().__init__(train_dataset=batches, **kwargs)
        self.batches, self.options = batches, options
        self.loss_is_scaled_for_ga = True  # see `compute_loss`
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """This rank's micro-batches from the step on that it resumes at; accelerate shares nothing out."""
        return DataLoader(
            self.batches,
            batch_size=None,
            num_workers=self.options.workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=False,
        )

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: ARG002
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Tensor:
        """This micro-batch's part of the step's mean; gradients are averaged over ranks later."""
        total = inputs.pop("total")
        inputs.pop("keys")
        loss: Tensor = model(**inputs) * (self.args.world_size / total)
        if self.accelerator.sync_gradients:  # the step's last
            self.state.num_input_tokens_seen += total
        return loss

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Averaged weights are part of a state."""
        super()._save_optimizer_and_scheduler(output_dir)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, AveragedWeights):
                callback.save_state(Path(output_dir), is_main=self.is_world_process_zero())

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:  # noqa: ARG002
        """The schedule may be longer than the training."""
        return super().create_scheduler(self.options.steps, optimizer)


def training_arguments(state: Path, options: TrainingOptions, ranks: int) -> TrainingArguments:
    """What transformers' Trainer is told; `state` is the folder of its states."""
    on_gpu = torch.cuda.is_available()
    return TrainingArguments(
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
        bf16=options.precision == "bfloat16",
        seed=options.seed,
        logging_steps=options.log_every,
        save_steps=options.save_every,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        ignore_data_skip=True,  # the batches begin where the state ended
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=on_gpu,
        use_cpu=not on_gpu,
    )
