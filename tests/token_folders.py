"""Folders of token shards, made in this process: a worker of its own would load torch each time."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from sar_eval.families.fsq import FsqAutoencoder
from sar_eval.runtime.runtimes import BlockResult, Task
from sar_eval.runtime.slots import WorkerSlot
from sar_eval.tokenization.driver import Tokenized, TokenizeRequest
from sar_eval.tokenization.driver import tokenize as run
from sar_eval.tokenization.options import TokenizeOptions
from sar_eval.train.tokenizer import TokenizerOptions, export


class HereRuntime:
    """Runs blocks in this process, one after the other; errors are raised."""

    def __init__(self, blocks: int | None = None) -> None:
        self.blocks = blocks  # so many, as if it were killed after them

    def run(self, task: Task, blocks: Iterable[int]) -> Generator[BlockResult, None, None]:
        """See `Runtime`."""
        with task.open(WorkerSlot(0)) as run_block:
            for done, block in enumerate(blocks):
                if done == self.blocks:
                    raise KeyboardInterrupt
                result = run_block(block)
                yield BlockResult(block, 0, result.result() if isinstance(result, Future) else result)


def tokenize(
    places: Sequence[Path | str],
    tokenizer: Path,
    out: Path | str,
    *,
    batch_size: int = 8,
    runtime: HereRuntime | None = None,
    **options: Any,
) -> Tokenized:
    """`train tokenize` in this process."""
    request = TokenizeRequest(
        places=[str(place) for place in places],
        tokenizer=tokenizer,
        out=str(out),
        options=TokenizeOptions(**options),
        batch_size=batch_size,
    )
    return run(request, runtime or HereRuntime())


def small_tokenizer(folder: Path) -> Path:
    """A visual tokenizer with 64 codes and patches of 8x8 pixels, from random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    options = TokenizerOptions(levels=(4, 4, 4), width=16)
    export(FsqAutoencoder([4, 4, 4], 16).eval(), folder, options)
    return folder
