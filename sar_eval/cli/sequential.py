"""`run --sequential`: a line for each round, and a statement of what is decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sar_eval.cli import session
from sar_eval.cli.compare import allowed, read_run
from sar_eval.cli.gate_options import PANEL, HowToGate, WhatMayDiffer
from sar_eval.cli.options import Output
from sar_eval.cli.terminal import say
from sar_eval.errors import BadInput, GateFailed
from sar_eval.options import HowToDraw, WhereToRun, option
from sar_eval.types import Metric

if TYPE_CHECKING:
    from sar_eval.spec import RunSpec
    from sar_eval.stats.sequential import Look

WORDS = {"pass": "pass", "fail": "fail", "open": "go on"}


@dataclass(frozen=True, slots=True, kw_only=True)
class InRounds:
    """Whether a run stops as soon as its comparison is decided."""

    sequential: bool = option(
        "Draw in rounds of a tenth, in random order, and stop as soon as it is shown whether the loss from "
        "the baseline is within --tolerance.",
        "run",
        default=False,
        panel=PANEL,
    )


def run_sequentially(
    spec: RunSpec,
    gate: HowToGate,
    differing: WhatMayDiffer,
    how: HowToDraw,
    where: WhereToRun,
    output: Output,
) -> None:
    """Draw and judge in rounds until the difference from the baseline is decided.

    Raises:
        BadInput: a baseline of another kind of run, or scores that no bet can be made on.
        GateFailed: the gate did not pass.
        Incomplete: draws of a round have no result.
    """
    from sar_eval.spec import run_folder
    from sar_eval.stages.resolve import gpus_of_a_worker
    from sar_eval.stages.sequential import Workers, check_baseline, drawing_order, remember, run_in_rounds
    from sar_eval.storage.run_folder import RunFolder

    baseline = read_run(str(gate.baseline))
    measure = baseline.measures[0]
    order = drawing_order(spec, measure)
    drawing, judging = session.worker_slots(where, gpus_of_a_worker(spec)), session.worker_slots(where)
    folder = RunFolder(where.out or run_folder(spec, session.RUNS, sequential=True))
    question = Question.of(
        gate, measure.name, measure.scale, spec.images_per_prompt, baseline.facts.prompts
    )
    with session.working(folder, output) as progress:
        spec = session.prepare(spec, folder, output, how.batch_size, order=order)
        check_baseline(spec, folder, baseline, across_protocol=allowed(differing).protocol)
        workers = Workers(drawing, judging, progress)
        found: list[Look] = []
        for look in run_in_rounds(spec, folder, measure, question.loss, workers):
            found.append(look)
            if not output.as_json:
                say(question.line(look))
        statement = question.statement(found[-1])
        if found[-1].decision != "open":
            remember(spec, folder, found[-1].prompts, statement)
        session.finish(spec, folder, output, more={"sequential": question.to_json(found)})
    if not question.passed(found[-1]):
        raise GateFailed(statement)
    if not output.as_json:
        say(f"passed: {statement}")


def check_sequential(gate: HowToGate, differing: WhatMayDiffer, where: WhereToRun) -> None:
    """Refuse options that do not go with `--sequential`, before anything is loaded.

    Raises:
        BadInput: naming the flag.
    """
    if gate.baseline is None:
        raise BadInput(
            "--sequential stops when the difference from a baseline is shown: name it by --baseline"
        )
    refused = {
        "--shard": (where.shard, "a round is drawn by one machine"),
        "--floor": (gate.floor, "use `sar-eval gate` on the finished run"),
        "--measure": (gate.measure, "it tests the headline figure alone"),
        "--allow-missing": (differing.allow_missing, "a sequential test may leave nothing out"),
    }
    for flag, (value, why) in refused.items():
        if value:
            raise BadInput(f"{flag} does not go with --sequential: {why}")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked after each round, and how its answers are put.

    Attributes:
        measure, scale: of the headline figure.
        tolerance: in its unit.
        fail_if: `not-shown` or `worse` (see `HowToGate`).
        images: of each prompt.
        prompts: of the suite.
    """

    measure: str
    scale: int
    tolerance: float
    fail_if: str
    images: int
    prompts: int

    @classmethod
    def of(cls, gate: HowToGate, measure: str, scale: int, images: int, prompts: int) -> Question:
        """The question that the flags ask.

        Raises:
            BadInput: the tolerance allows everything.
        """
        tolerance = 0.01 * scale if gate.tolerance is None else gate.tolerance
        if tolerance >= scale:
            raise BadInput(f"--tolerance is {tolerance:g}: nothing loses more than {scale}")
        return cls(measure, scale, tolerance, gate.fail_if, images, prompts)

    @property
    def loss(self) -> float:
        """The tolerance as a share of a perfect score."""
        return self.tolerance / self.scale

    def passed(self, look: Look) -> bool:
        """Whether the gate passes with what is known."""
        return look.decision == "pass" or (look.decision == "open" and self.fail_if == "worse")

    def line(self, look: Look) -> str:
        """What a round showed."""
        return f"{self._drawn(look)}: {self._difference(look)}: {WORDS[look.decision]}"

    def statement(self, look: Look) -> str:
        """What is decided, in a sentence."""
        loss = f"a loss of {self.tolerance:g}"
        known = f"{self._drawn(look)} ({self._difference(look)})"
        if look.decision == "pass":
            return f"{loss} or more from the baseline is excluded, after {known}"
        if look.decision == "fail":
            return f"a loss of more than {self.tolerance:g} from the baseline is shown, after {known}"
        asked = "to be excluded" if self.fail_if == "not-shown" else "to be shown"
        neither = f"{loss} from the baseline is neither shown nor excluded"
        return f"undecided after {known}: {neither}, and it had {asked}"

    def to_json(self, looks: Sequence[Look]) -> dict[str, Any]:
        """As `--json` prints it: differences and limits in the measure's unit."""
        rounds = []
        for look in looks:
            figures = {name: self.scale * getattr(look, name) for name in ("difference", "low", "high")}
            rounds.append(asdict(look) | {"images": look.prompts * self.images} | figures)
        asked = {name: getattr(self, name) for name in ("measure", "tolerance", "fail_if")}
        answer = {"decision": looks[-1].decision, "passed": self.passed(looks[-1])}
        return asked | answer | {"statement": self.statement(looks[-1]), "rounds": rounds}

    def _drawn(self, look: Look) -> str:
        return f"{look.prompts * self.images:,} of {self.prompts * self.images:,} images"

    def _difference(self, look: Look) -> str:
        value, low, high = (self._written(x) for x in (look.difference, look.low, look.high))
        return f"{self.measure} {value}, 95 % confidence sequence [{low}, {high}]"

    def _written(self, share: float) -> str:
        return Metric(self.measure, None, None, None, 0, self.scale).written(self.scale * share, "+")
