"""Stage: draw and judge in rounds, until the difference from a baseline is decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sar_eval.comparisons import RunFacts, Side
from sar_eval.errors import BadInput, Incomplete
from sar_eval.measures import Combine, Measure, Stratum
from sar_eval.runtime.blocks import Blocks
from sar_eval.runtime.drawing_order import round_ends
from sar_eval.runtime.progress import ProgressCallback, no_progress
from sar_eval.runtime.slots import WorkerSlot
from sar_eval.spec import RunSpec
from sar_eval.stages.alike import check_alike
from sar_eval.stages.generate import generate
from sar_eval.stages.inventory import Inventory
from sar_eval.stages.judge import judge
from sar_eval.stages.measure import ScoredRun, facts_of, fold_run
from sar_eval.stages.resume import open_blocks
from sar_eval.stats.pairing import join
from sar_eval.stats.sequential import Look, Rounds, looks
from sar_eval.stats.totals import are_shares, prompt_totals
from sar_eval.storage.manifest import Stop
from sar_eval.storage.run_folder import RunFolder
from sar_eval.suites.prompts import load_suite
from sar_eval.suites.streamed import StreamedPrompts
from sar_eval.types import DrawingOrder

WAY_ON = "draw the whole suite, without --sequential"


@dataclass(frozen=True, slots=True)
class Workers:
    """Where a round is drawn and judged, and who is told."""

    drawing: Sequence[WorkerSlot]
    judging: Sequence[WorkerSlot]
    progress: ProgressCallback = no_progress


def drawing_order(spec: RunSpec, baseline: Measure) -> DrawingOrder:
    """The order in which a run draws that is compared with this figure of a baseline.

    Raises:
        BadInput: the suite, or the figure, is none for a sequential run.
    """
    suite = load_suite(Path(spec.suite))
    if isinstance(suite.prompts, StreamedPrompts):
        raise BadInput(
            f"{suite.prompts.path} has too many prompts for --sequential, which draws them in another order"
        )
    if not are_shares(baseline):
        raise BadInput(_unbounded(baseline, "the baseline"))
    if any(np.ptp(prompt_totals(s, baseline.combine).sizes) > 0 for s in baseline.strata if s.prompts):
        raise BadInput(
            f"--sequential: prompts do not weigh the same in {baseline.name} of the baseline: {WAY_ON}"
        )
    tasks = _tasks(baseline)
    if missing := [prompt.id for prompt in suite.prompts if prompt.id not in tasks]:
        raise BadInput(
            f"the baseline has no score of {len(missing)} of {len(suite.prompts)} prompts "
            f"({missing[0]}, ...): --sequential needs one that is whole"
        )
    by_tag = all(tasks[prompt.id] == prompt.tag for prompt in suite.prompts)
    return DrawingOrder(seed=spec.seed, by_tag=by_tag)


def check_baseline(spec: RunSpec, folder: RunFolder, baseline: ScoredRun, *, across_protocol: bool) -> None:
    """Refuse a baseline that a run (`prepare`d) cannot be compared with, before anything is drawn.

    Raises:
        BadInput: it has other prompts, another judge, protocol or number of images, or has holes.
    """
    facts = facts_of(Inventory(spec, folder), 0)
    check_alike(
        _side("A", baseline.path, baseline.facts),
        _side("B", folder.path, facts),
        across_protocol=across_protocol,
    )
    if baseline.facts.failed:
        raise BadInput(
            f"{baseline.path} lacks {baseline.facts.failed} of {baseline.facts.expected} images: "
            "--sequential needs a whole baseline"
        )
    if baseline.facts.images_per_prompt != spec.images_per_prompt:
        raise BadInput(
            f"{baseline.path} has {baseline.facts.images_per_prompt} images of each prompt, and this run "
            f"{spec.images_per_prompt}: --sequential needs as many"
        )


def _side(letter: str, path: Path, facts: RunFacts) -> Side:
    return Side(letter=letter, label="", path=str(path), is_baseline=False, facts=facts, figures={})


def run_in_rounds(
    spec: RunSpec,
    folder: RunFolder,
    baseline: Measure,
    tolerance: float,
    workers: Workers,
) -> Iterator[Look]:
    """Draw and judge until it is shown that the loss is within the tolerance, or that it is not.

    Gives what is known after each round; if the last one is undecided, the whole suite is drawn. What is
    stored is not drawn again, so a run that was broken off comes to the same decision.

    Args:
        spec: of the run.
        folder: of the run (lock held, `prepare`d with a `drawing_order`).
        baseline: its headline figure, with every prompt of the suite.
        tolerance: a loss that does not matter, as a share of a perfect score.
        workers: that draw and judge.

    Raises:
        BadInput: scores are not between 0 and 1.
        Incomplete: a draw of a finished round has no result.
    """
    blocks = open_blocks(spec, folder)
    ids = _ids_in_order(blocks)
    tasks = _tasks(baseline)
    rounds = _rounds([tasks[prompt_id] for prompt_id in ids])
    for end in rounds.ends.tolist():
        _finish(spec, folder, workers, blocks.blocks_of(end))
        gains = _gains(spec, folder, baseline, ids[:end])
        look = looks(gains, rounds, tolerance)[-1]
        yield look
        if look.decision != "open":
            return
    _finish(spec, folder, workers, len(blocks))


def _unbounded(measure: Measure, whose: str) -> str:
    return (
        f"--sequential: {measure.name} of {whose} has scores outside 0 and 1, and without bounds no error "
        f"can be guaranteed: {WAY_ON}"
    )


def remember(spec: RunSpec, folder: RunFolder, prompts: int, statement: str) -> None:
    """Note in `run.json` that the run stopped on purpose after so many prompts (lock held)."""
    blocks = open_blocks(spec, folder)
    number = blocks.blocks_of(prompts)
    stop = Stop(blocks=number, statement=statement) if number < len(blocks) else None
    folder.write_manifest(replace(folder.read_manifest(), stop=stop))


def _finish(spec: RunSpec, folder: RunFolder, workers: Workers, stop: int) -> None:
    """Draw and judge what is missing of the blocks before `stop`."""
    generate(spec, folder, workers.drawing, workers.progress, stop)
    judge(spec, folder, workers.judging, workers.progress)


def _ids_in_order(blocks: Blocks) -> list[str]:
    """Ids of the prompts in the order of drawing."""
    ids = [prompt.id for prompt in blocks.prompts]
    return ids if blocks.order is None else [ids[position] for position in blocks.order]


def _tasks(measure: Measure) -> dict[str, str]:
    """The task of each prompt that has a score."""
    return {prompt_id: stratum.task for stratum in measure.strata for prompt_id in stratum.prompts}


def _rounds(tasks: Sequence[str]) -> Rounds:
    """The rounds of prompts of these tasks, in the order of drawing."""
    numbers = {task: number for number, task in enumerate(dict.fromkeys(tasks))}
    smallest = min(Counter(tasks).values())
    return Rounds.of([numbers[task] for task in tasks], round_ends(len(tasks), smallest))


def _gains(spec: RunSpec, folder: RunFolder, baseline: Measure, ids: Sequence[str]) -> NDArray[np.float64]:
    """The run's mean score less the baseline's of these prompts.

    Raises:
        BadInput: scores of the run are not between 0 and 1.
        Incomplete: one of their draws has no result.
    """
    inventory = Inventory(spec, folder)
    wanted = inventory.blocks.blocks_of(len(ids))
    problems = {key: why for block in range(wanted) for key, why in inventory.state(block).problems.items()}
    if problems:
        key, why = next(iter(problems.items()))
        raise Incomplete(
            f"{len(problems)} images of this round have no result ({key}: {why}), and none may be left out "
            "of a sequential test: run the same command again to go on"
        )
    measure = fold_run(inventory)[0]
    if not are_shares(measure):
        raise BadInput(_unbounded(measure, "this run"))
    gains = dict[str, float]()
    others = {stratum.task: stratum for stratum in measure.strata}
    for stratum in baseline.strata:
        if stratum.task in others:
            gains |= _gains_of(*join(stratum, others[stratum.task]), baseline.combine)
    return np.array([gains[prompt_id] for prompt_id in ids])


def _gains_of(first: Stratum, second: Stratum, combine: Combine) -> dict[str, float]:
    """Second less first of the mean score of each prompt; both have the same rows."""
    before, after = prompt_totals(first, combine), prompt_totals(second, combine)
    gains = after.sums / after.sizes - before.sums / before.sizes
    return dict(zip(first.prompts, gains.tolist(), strict=True))
