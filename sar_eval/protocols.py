"""The seams: what engines, judges, answerers and benchmarks must offer. Nothing inherits from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from sar_eval.types import Answer, Draw, Generation, Metric, Prompt, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Environment variable of a worker: how many workers share the memory of its device.
WORKERS_PER_DEVICE = "SAR_EVAL_WORKERS_PER_DEVICE"


class Resource(Protocol):
    """A context manager: `__enter__` loads weights onto a device, `__exit__` frees both."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Engine(Resource, Protocol):
    """Draws images.

    `version` changes whenever the same draw may come out another image.

    Two methods more are used where they are there: `begin(draws)` gives a future of the generations of
    one wave after the other and leaves the making of images to a thread (`decoding.token_engine`), so
    that the next block can be begun meanwhile; the static `gpus(options)` tells how many GPUs one worker
    takes.
    """

    version: str

    def generate(self, draws: Sequence[Draw]) -> Iterator[Generation]:
        """One generation for each draw, in any order. A draw's result depends on nothing else."""
        ...


class Judge(Resource, Protocol):
    """Gives each image a verdict.

    Made with `device` ("cpu" or "cuda") and the recipe's judge options as keyword arguments.

    `version` changes whenever the same image may get another verdict.
    """

    version: str

    def judge(self, items: Sequence[tuple[Prompt, Generation]]) -> Iterator[Verdict]:
        """One verdict for each item, in any order."""
        ...


class Answerer(Resource, Protocol):
    """Answers questions about images.

    Made with `device` ("cpu" or "cuda") and options as keyword arguments.

    `version` names the network and its weights; it changes whenever the same question about the same
    image may get another answer.
    """

    version: str

    def answer(
        self, images: Sequence[tuple[NDArray[np.uint8], Sequence[str]]]
    ) -> Iterator[Sequence[Answer]]:
        """One answer for each question of each image (RGB uint8 `[H, W, 3]`), in the same order.

        An image's answers depend on nothing but itself and its questions.
        """
        ...


class Benchmark(Protocol):
    """From verdicts to headline figures."""

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Metric, ...]:
        """Metrics over the judged draws, `overall` first; `verdicts` is by draw key."""
        ...
