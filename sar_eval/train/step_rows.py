"""A gradient that is no number: the step is not taken, and the rows that it came from are named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from sar_eval.errors import Incomplete
from sar_eval.storage.files import write_json
from sar_eval.train.launcher import is_first
from sar_eval.train.ranks import on_every_rank

FILE = "diverged.json"
SHOWN = 5  # keys in the message; the file has all of them


class StepRows:
    """The rows of the optimiser step at hand on this rank, with the loss of each forward pass."""

    def __init__(self, out: Path) -> None:
        """Begin with none.

        Args:
            out: folder of the training, for the report of a step that failed.
        """
        self._path = out / FILE
        self._passes: list[tuple[Sequence[str], Tensor]] = []

    @property
    def begun(self) -> bool:
        """Whether the step at hand has had a forward pass."""
        return bool(self._passes)

    def add(self, keys: Sequence[str], loss: Tensor) -> None:
        """Remember a forward pass; its loss, the mean of its tokens, stays on the device."""
        self._passes.append((keys, loss.detach()))

    def check(self, step: int, norm: float, saved: int) -> None:
        """Forget the step's rows if its gradient is a number; every rank calls this, before it is taken.

        Args:
            step: to be taken, from 1 on.
            norm: of the gradient of all ranks, so that all of them see the same.
            saved: the step of the last state; 0 for none.

        Raises:
            Incomplete: naming the step, the rows, and what to go on from.
        """
        passes, self._passes = self._passes, []
        if math.isfinite(norm):
            return
        own = [{"loss": loss.item(), "keys": list(keys)} for keys, loss in passes]
        found = [
            one | {"rank": rank} for rank, each in enumerate(on_every_rank(lambda: own)) for one in each
        ]
        if is_first():
            write_json(self._path, {"step": step, "grad_norm": str(norm), "passes": _plain(found)})
        raise Incomplete(self._words(step, norm, _suspects(found), saved))

    def _words(self, step: int, norm: float, keys: Sequence[str], saved: int) -> str:
        more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
        kept = f"the state of step {saved} stays" if saved else "no state was saved yet"
        return (
            f"step {step}: the loss or its gradient is no number (gradient's norm {norm}), so the step was "
            f"not taken; {kept}. Its rows: {', '.join(keys[:SHOWN])}{more}, all in {self._path}. See "
            "whether they are damaged; else lower the learning rate or raise the warm-up, in another --out"
        )


def _suspects(passes: Sequence[dict[str, Any]]) -> list[str]:
    """Keys of the passes whose loss is no number, or of all where only the gradient is none."""
    bad = [one for one in passes if not math.isfinite(one["loss"])]
    return [key for one in bad or passes for key in one["keys"]]


def _plain(passes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one | {"loss": str(one["loss"])} for one in passes]  # JSON has no nan
