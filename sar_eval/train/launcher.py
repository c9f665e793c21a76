"""The processes of one training, as torchrun or `accelerate launch` starts them: one speaks for all."""

from __future__ import annotations

import os
from datetime import timedelta

from sar_eval.errors import BadInput

WAIT = timedelta(seconds=5)  # for the launcher's store, which answers in milliseconds if it is there


def is_first() -> bool:
    """Whether this process is the one that writes and prints: the first rank, or the only process."""
    return os.environ.get("RANK", "0") == "0"


def _launched() -> int:
    """How many processes the launcher says that it has started."""
    words = os.environ.get("WORLD_SIZE", "1")
    return int(words) if words.isdecimal() else 1


def check_sharding() -> None:
    """Refuse what `accelerate launch` can be told and training here knows nothing of.

    Raises:
        BadInput: DeepSpeed, or the first version of FSDP.
    """
    uses_fsdp = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        what = "DeepSpeed"
    elif uses_fsdp and os.environ.get("FSDP_VERSION", "1") != "2":
        what = "the first version of FSDP"
    else:
        return
    raise BadInput(
        f"accelerate's configuration asks for {what}, which is not supported: take DDP or FSDP2, as "
        "benchmarks/train/accelerate-fsdp2.yaml does"
    )


def may_tell() -> bool:
    """Whether an error of this process is the one to print: that of the rank which failed first.

    A rank that fails breaks the collectives of the others, whose errors say less than its own, and all of
    them fail alike where the input is wrong. They meet in the launcher's key-value store; without one, the
    first rank speaks.
    """
    if _launched() == 1 or not {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return True
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    this = os.environ["RANK"]
    key = f"sar_eval/told/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    try:
        store = TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timeout=WAIT, wait_for_workers=False
        )
        first: bytes = store.compare_set(key, "", this)
    except (RuntimeError, ValueError):  # of torch's store, whose errors are all of this kind
        return is_first()
    return first.decode() == this
