"""Stage: draw and judge in rounds, until the difference from a baseline is decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sar_eval.comparisons import GateResult, Question, Round
from sar_eval.errors import BadInput, Incomplete
from sar_eval.measures import Bounds, Combine, Measure, Stratum
from sar_eval.runtime.blocks import Blocks
from sar_eval.runtime.drawing_order import round_ends
from sar_eval.runtime.progress import ProgressCallback, no_progress
from sar_eval.runtime.runtimes import Runtime
from sar_eval.spec import RunSpec
from sar_eval.stages.compare import checkpoint_name
from sar_eval.stages.gate import Asked
from sar_eval.stages.generate import generate
from sar_eval.stages.inventory import Inventory
from sar_eval.stages.judge import judge
from sar_eval.stages.measure import ScoredRun, facts_of, fold_run
from sar_eval.stages.resume import open_blocks
from sar_eval.stats.pairing import join
from sar_eval.stats.sequential import Look, Rounds, looks
from sar_eval.stats.totals import bounds_of, prompt_totals, span_of
from sar_eval.storage.manifest import Stop
from sar_eval.storage.run_folder import RunFolder
from sar_eval.suites.prompts import load_suite
from sar_eval.suites.streamed import StreamedPrompts
from sar_eval.types import DrawingOrder

WAY_ON = "draw the whole suite, without --sequential"


@dataclass(frozen=True, slots=True)
class Workers:
    """Where a round is drawn and judged, and who is told."""

    drawing: Runtime
    judging: Runtime
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
    if bounds_of(baseline) is None:
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


def run_in_rounds(
    spec: RunSpec, folder: RunFolder, baseline: Measure, asked: Asked, workers: Workers
) -> Iterator[Round]:
    """Draw and judge until it is shown that the loss is within the tolerance, or that it is not.

    Gives what is known after each round; if the last one is undecided, the whole suite is drawn. What is
    stored is not drawn again, so a run that was broken off comes to the same decision.

    Args:
        spec: of the run.
        folder: of the run (lock held, `prepare`d with a `drawing_order`).
        baseline: its headline figure, with every prompt of the suite.
        asked: tolerance and question.
        workers: that draw and judge.

    Raises:
        BadInput: scores are not within their bounds, or all of them are within the tolerance.
        Incomplete: a draw of a finished round has no result.
    """
    limit, most = asked.limit(baseline), baseline.scale * (span_of(baseline) or 1)
    if limit >= most:
        raise BadInput(f"--tolerance is {limit:g}: no run loses more than {most:g}")
    blocks = open_blocks(spec, folder)
    ids, tasks = _ids_in_order(blocks), _tasks(baseline)
    rounds = _rounds(blocks, [tasks[prompt_id] for prompt_id in ids], baseline.shares)
    for end in rounds.ends.tolist():
        generate(spec, folder, workers.drawing, workers.progress, blocks.blocks_of(end))
        judge(spec, folder, workers.judging, workers.progress)
        look = looks(*_scores(spec, folder, baseline, ids[:end]), rounds, limit / most)[-1]
        yield _round(look, baseline, spec.images_per_prompt, blocks.draws)
        if look.decision != "open":
            return


def answer(
    spec: RunSpec, folder: RunFolder, baseline: ScoredRun, asked: Asked, rounds: Sequence[Round]
) -> GateResult:
    """What the rounds answer to the gate's question."""
    last = rounds[-1]
    wants_worse = asked.fail_if == "worse"
    yes, no = ("fail", "pass") if wants_worse else ("pass", "fail")
    question = Question(
        asked="worse" if wants_worse else "not-worse",
        measure=last.measure,
        scale=last.scale,
        limit=asked.limit(baseline.measures[0]),
        answer="yes" if last.decision == yes else "no" if last.decision == no else "undecided",
        passed=last.decision != "fail" if wants_worse else last.decision == "pass",
        figure=last.figure,
        baseline=last.baseline,
        value=last.value,
        lower=last.lower,
        upper=last.upper,
        prompts=last.prompts,
    )
    note = f"known after {last.drawn}, in round {len(rounds)}; each bound holds after all rounds at once"
    return GateResult(
        benchmark=spec.benchmark,
        run=checkpoint_name(facts_of(Inventory(spec, folder), failed=0)),
        run_path=str(folder.path),
        baseline=checkpoint_name(baseline.facts),
        baseline_path=str(baseline.path),
        questions=(question,),
        notes=(note,),
        rounds=tuple(rounds),
    )


def stop_here(spec: RunSpec, folder: RunFolder, last: Round, statement: str) -> None:
    """Note in `run.json` where and why the run stopped on purpose, if it did (lock held)."""
    blocks = open_blocks(spec, folder)
    number = blocks.blocks_of(last.prompts)
    stop = Stop(blocks=number, statement=statement) if number < len(blocks) else None
    manifest = folder.read_manifest()
    if stop != manifest.stop:
        folder.write_manifest(replace(manifest, stop=stop))


def _round(look: Look, measure: Measure, images: int, draws: int) -> Round:
    """A look in the measure's unit."""
    low, high = bounds_of(measure) or (0.0, 1.0)
    unit = measure.scale * (high - low)
    names = ("lower", "upper", "low", "high")
    return Round(
        measure=measure.name,
        scale=measure.scale,
        prompts=look.prompts,
        images=look.prompts * images,
        of=draws,
        figure=measure.scale * low + unit * look.second,
        baseline=measure.scale * low + unit * look.first,
        value=unit * (look.second - look.first),
        **{name: unit * getattr(look, name) for name in names},
        decision=look.decision,
    )


def _unbounded(measure: Measure, whose: str) -> str:
    ends = measure.bounds
    what = "of any size" if ends is None else f"outside {ends[0]:g} and {ends[1]:g}"
    return (
        f"--sequential: {measure.name} of {whose} has scores {what}, and without bounds no error can be "
        f"guaranteed: {WAY_ON}"
    )


def _ids_in_order(blocks: Blocks) -> list[str]:
    """Ids of the prompts in the order of drawing."""
    ids = [prompt.id for prompt in blocks.prompts]
    return ids if blocks.order is None else [ids[position] for position in blocks.order]


def _tasks(measure: Measure) -> dict[str, str]:
    """The task of each prompt that has a score."""
    return {prompt_id: stratum.task for stratum in measure.strata for prompt_id in stratum.prompts}


def _rounds(blocks: Blocks, tasks: Sequence[str], shares: Mapping[str, float]) -> Rounds:
    """The rounds of prompts of these tasks, in the order of drawing: whole blocks, as they are drawn."""
    numbers = {task: number for number, task in enumerate(dict.fromkeys(tasks))}
    smallest = min(Counter(tasks).values())
    ends = {blocks.prompts_in(blocks.blocks_of(end)) for end in round_ends(len(tasks), smallest)}
    weights = [shares.get(task, 1.0) for task in numbers]
    return Rounds.of([numbers[task] for task in tasks], sorted(ends), weights)


def _scores(
    spec: RunSpec, folder: RunFolder, baseline: Measure, ids: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean scores of these prompts in the baseline and in the run, from their bounds moved to 0 and 1.

    Raises:
        BadInput: scores of the run are not within their bounds.
        Incomplete: one of their draws has no result.
    """
    inventory = Inventory(spec, folder)
    wanted = range(inventory.blocks.blocks_of(len(ids)))
    problems = {key: why for block in wanted for key, why in inventory.state(block).problems.items()}
    if problems:
        key, why = next(iter(problems.items()))
        raise Incomplete(
            f"{len(problems)} images of this round have no result ({key}: {why}), and none may be left out "
            "of a sequential test: run the same command again to go on"
        )
    measure = fold_run(inventory)[0]
    bounds = bounds_of(measure)
    if bounds is None:
        raise BadInput(_unbounded(measure, "this run"))
    others = {stratum.task: stratum for stratum in measure.strata}
    pairs = [join(stratum, others[stratum.task]) for stratum in baseline.strata if stratum.task in others]
    first, second = (
        {
            prompt_id: mean
            for pair in pairs
            for prompt_id, mean in _means(pair[side], baseline.combine, bounds)
        }
        for side in (0, 1)
    )
    return np.array([first[name] for name in ids]), np.array([second[name] for name in ids])


def _means(stratum: Stratum, combine: Combine, bounds: Bounds) -> Iterator[tuple[str, float]]:
    """Id of each prompt, and its mean score moved from its bounds to 0 and 1."""
    totals = prompt_totals(stratum, combine).on_unit(bounds)
    return zip(stratum.prompts, (totals.sums / totals.sizes).tolist(), strict=True)
