"""The device and dtype of an engine that computes here, checked."""

from __future__ import annotations

import re

from sar_eval.errors import BadInput

DTYPES = ("float32", "bfloat16", "float16")


def check_device(device: str, dtype: str) -> None:
    """Check the words; whether there is such a card shows in `check_card`.

    Raises:
        BadInput: `device` or `dtype` is unknown.
    """
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", device):
        raise BadInput(f"unknown device {device!r}: cpu, cuda, or cuda:NUMBER")
    if dtype not in DTYPES:
        raise BadInput(f"unknown dtype {dtype!r}: {', '.join(DTYPES)}")


def check_card(device: str) -> None:
    """Check that torch finds the card that is named by its number.

    Raises:
        BadInput: it does not.
    """
    import torch

    number = device.partition(":")[2]
    if number and int(number) >= torch.cuda.device_count():
        raise BadInput(f"device {device}: torch finds {torch.cuda.device_count()} GPUs here")
