"""`run --sequential`: a line for each round, and the gate's answer as soon as it is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sar_eval.cli import session
from sar_eval.cli.gate import Gate
from sar_eval.cli.gate_options import PANEL, HowToGate, WhatMayDiffer
from sar_eval.cli.options import Output
from sar_eval.cli.terminal import say
from sar_eval.cli.track import Destinations
from sar_eval.errors import BadInput
from sar_eval.options import HowToDraw, HowToJudge, WhereToRun, option
from sar_eval.report.gate_words import answer_words, question_words, round_words

if TYPE_CHECKING:
    from sar_eval.comparisons import GateResult
    from sar_eval.spec import RunSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class InRounds:
    """Whether a run stops as soon as its comparison is decided."""

    sequential: bool = option(
        "Draw in rounds of a tenth, in random order, and stop as soon as it is shown whether the run is at "
        "most --tolerance worse than the baseline.",
        "run",
        default=False,
        panel=PANEL,
    )


def check_sequential(
    gating: HowToGate, differing: WhatMayDiffer, judging: HowToJudge, where: WhereToRun
) -> None:
    """Refuse options that do not go with `--sequential`, before anything is loaded.

    Raises:
        BadInput: naming the flag.
    """
    if gating.baseline is None:
        raise BadInput(
            "--sequential stops when the difference from a baseline is shown: name it by --baseline"
        )
    refused = {
        "--shard": (where.shard, "a round is drawn by one machine"),
        "--runtime slurm": (where.runtime == "slurm", "whether a round is drawn depends on the last one"),
        "--floor": (gating.floor, "use `sar-eval gate` on a whole run"),
        "--measure": (gating.measure, "it asks of the headline figure alone"),
        "--partial": (judging.partial, "a sequential test may leave nothing out"),
        "--scorers": (judging.scorers, "`sar-eval judge RUN --scorers NAMES` adds them afterwards"),
        "--allow-missing": (differing.allow_missing, "a sequential test may leave nothing out"),
    }
    for flag, (value, why) in refused.items():
        if value:
            raise BadInput(f"{flag} does not go with --sequential: {why}")


def run_sequentially(
    spec: RunSpec,
    gate: Gate,
    how: HowToDraw,
    where: WhereToRun,
    output: Output,
    destinations: Destinations,
) -> None:
    """Draw and judge in rounds until the gate's question is answered.

    Raises:
        BadInput: a baseline of another kind of run, or scores that no bet can be made on.
        GateFailed: the gate did not pass.
        Incomplete: draws of a round have no result.
    """
    from sar_eval.stages.sequential import Workers, answer, drawing_order, run_in_rounds, stop_here

    if gate.baseline is None:
        raise BadInput("--sequential needs a --baseline")
    headline = gate.baseline.measures[0]
    order = drawing_order(spec, headline)
    drawing, judging = session.drawing_runtime(spec, where), session.runtime(where)
    folder = session.new_folder(where.out, spec, sequential=True)
    with session.working(folder, output) as progress:
        spec = session.prepare(spec, folder, output, how.batch_size, order=order)
        gate.check(spec, folder)
        found = []
        workers = Workers(drawing, judging, progress)
        for known in run_in_rounds(spec, folder, headline, gate.asked, workers):
            found.append(known)
            if not output.as_json:
                say(round_words(known))
        result = answer(spec, folder, gate.baseline, gate.asked, found)
        stop_here(spec, folder, found[-1], _statement(result))
        answered = replace(gate, result=result)
        session.finish(spec, folder, output, destinations=destinations, gate=answered)


def _statement(result: GateResult) -> str:
    """Question and answer, and how many images they took."""
    question = result.questions[0]
    words = f"{question_words(question, result.run)} {answer_words(question)}"
    return f"{words} This took {result.rounds[-1].drawn}."
