"""Ctrl-C in a training: all ranks finish the same step, save its state and stop."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import gather
from transformers import TrainerCallback

from sar_eval.train.stop_request import StopRequest


class StopAtSignal(TrainerCallback):
    """Ends the training after the first step by whose end any rank was asked to stop."""

    def __init__(self, request: StopRequest) -> None:
        self._request = request

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Ask all ranks; signals reach them at different steps, and one alone would wait for ever."""
        asked = gather(torch.tensor([self._request.requested], device=args.device))
        if asked.any():
            control.should_save = control.should_training_stop = True
