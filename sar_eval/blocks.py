"""How a run's draws are cut into blocks: the same cut for any number of workers and any resume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sar_eval.errors import BadInput
from sar_eval.pool import Place
from sar_eval.spec import RunSpec, cores
from sar_eval.types import Draw, Prompt, make_draw


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a stage, for whoever shows progress.

    Attributes:
        stage: "generate" or "judge".
        done, total: images, those of an earlier start included.
        failed: images of this stage without a result so far.
        worker: who finished them; None when the stage starts.
        added: images that this step finished.
        note: something worth telling (a damaged part, a block given up).
    """

    stage: str
    done: int
    total: int
    failed: int = 0
    worker: int | None = None
    added: int = 0
    note: str = ""


Watch = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A watch that shows nothing."""


def make_blocks(prompts: Sequence[Prompt], spec: RunSpec) -> list[list[Draw]]:
    """All draws, prompt by prompt, in blocks of `batch_size`."""
    draws = [
        make_draw(prompt, index, spec.seed) for prompt in prompts for index in range(spec.images_per_prompt)
    ]
    return [draws[i : i + spec.batch_size] for i in range(0, len(draws), spec.batch_size)]


def make_places(
    workers: int | None, devices: Sequence[str], threads: int = 1, gpus: int = 1
) -> list[Place]:
    """One worker for each `gpus` GPUs, or on the CPU one a core (or `workers`), each with its own threads.

    On the CPU the number of threads does not follow from the number of workers: the same threads
    give the same sums, so 1, 2 and 4 workers draw the same pictures.

    Raises:
        BadInput: there are fewer GPUs than one worker needs.
    """
    if not devices:
        return [Place(i, "cpu", threads) for i in range(workers or max(1, cores() // threads))]
    if len(devices) < gpus:
        raise BadInput(
            f"the engine takes {gpus} GPUs (tensor_parallel_size), {len(devices)} are to be used"
        )
    teams = [",".join(devices[i : i + gpus]) for i in range(0, len(devices) - gpus + 1, gpus)]
    return [
        Place(i, "cuda", threads, {"CUDA_VISIBLE_DEVICES": teams[i % len(teams)]})
        for i in range(workers or len(teams))
    ]
