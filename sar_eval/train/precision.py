"""The precision that a training's forward pass has where none is asked for."""

from __future__ import annotations

import torch

from sar_eval.decoding.linear import multiplies_half
from sar_eval.train.training_options import Precision


def usual_precision() -> Precision:
    """bfloat16 where this machine's device computes in it, else float32.

    A processor without AVX-512, AMX or Arm's bfloat16 takes each number apart: a step took eleven to
    fourteen times as long as in float32 (on an AMD EPYC 7003, torch 2.14). Cards before Ampere emulate it.
    """
    if torch.cuda.is_available():
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bfloat16 = multiplies_half(torch.bfloat16)
    return "bfloat16" if has_bfloat16 else "float32"
