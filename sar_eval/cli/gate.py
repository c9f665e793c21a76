"""`gate`: an exit code for CI; and how the commands that end in a gate begin."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sar_eval.cli.compare import allowed, read_run
from sar_eval.cli.gate_options import HowToGate, WhatMayDiffer, WhereCiLooks, parse_fail_if, parse_floors
from sar_eval.cli.gate_result import exit_if_failed, gate_json, print_gate, tell, write_checked
from sar_eval.cli.options import AsJson, FoldOf, RunPath, with_options
from sar_eval.errors import BadInput

if TYPE_CHECKING:
    from sar_eval.comparisons import GateResult
    from sar_eval.spec import RunSpec
    from sar_eval.stages.compare import Allowed
    from sar_eval.stages.gate import Asked
    from sar_eval.stages.measure import ScoredRun
    from sar_eval.storage.run_folder import RunFolder

UNANSWERED = "The gate has no answer: its command has not come to its end. Its log says why."


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a run will be held against, read and checked before the run begins.

    `result` is the answer if it is known already, from the rounds of a sequential run.
    """

    asked: Asked
    allowed: Allowed
    baseline: ScoredRun | None
    files: WhereCiLooks
    result: GateResult | None = None

    def check(self, spec: RunSpec, folder: RunFolder) -> None:
        """Refuse a baseline that the run could not be held against (see `stages.gate.check_fit`)."""
        from sar_eval.stages.gate import check_fit
        from sar_eval.stages.inventory import Inventory
        from sar_eval.stages.measure import facts_of

        if not spec.fold:
            raise BadInput(f"{folder.path} has no benchmark, so it has no scores to hold against anything")
        if self.baseline is not None:
            facts = facts_of(Inventory(spec, folder), failed=0)
            check_fit(facts, folder.path, self.baseline, self.asked, self.allowed)

    def answer(self, run: ScoredRun) -> GateResult:
        """Ask the questions of a finished run."""
        from sar_eval.stages.gate import gate as gate_stage

        return gate_stage(run, self.baseline, self.asked, self.allowed)

    def answer_of(self, spec: RunSpec, folder: RunFolder) -> GateResult:
        """The same of a run folder."""
        from sar_eval.stages.measure import score_run

        return self.result or self.answer(score_run(spec, folder))


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(gate)


@with_options()
def gate(
    run_folder: RunPath,
    gating: HowToGate,
    differing: WhatMayDiffer,
    files: WhereCiLooks,
    benchmark: FoldOf = None,
    as_json: AsJson = False,
) -> None:
    """Hold a finished run against a baseline; exit code 0 if it passes, 1 if not.

    By default it passes if it is shown, with 95 % confidence, to be at most --tolerance worse. With
    --fail-if worse it fails only if it is shown to be more than that worse. An incomplete run is exit code
    3, other bad input 2.
    """
    prepared = open_gate(gating, differing, files, benchmark)
    if prepared is None:
        raise BadInput("nothing to hold the run against: give --baseline, or --floor NAME=VALUE")
    result = prepared.answer(read_run(str(run_folder), benchmark))
    if as_json:
        typer.echo(json.dumps(gate_json(result), indent=2))
    else:
        print_gate(result)
    tell(result, files)
    exit_if_failed(result)


def open_gate(
    gating: HowToGate,
    differing: WhatMayDiffer,
    files: WhereCiLooks,
    benchmark: str | None = None,
    shard: str | None = None,
) -> Gate | None:
    """Say in the gate's files that there is no answer yet, then read and check what it needs.

    Commands begin with this, so that nothing that they refuse leaves an older answer behind.

    Args:
        gating, differing, files: as asked for.
        benchmark: whose fold to take for a baseline that is a run folder.
        shard: the run's `--shard`.

    Returns:
        None if no gate is asked for.

    Raises:
        BadInput: a value is wrong, the baseline cannot be read, or a file cannot be written.
    """
    from sar_eval.stages.gate import Asked

    if not gating.is_asked:
        _refuse_without_gate(gating, files)
        return None
    _claim(files, gating.baseline)
    if shard is not None:
        raise BadInput(f"shard {shard} of a run has no score of its own: `sar-eval join`, then gate that")
    return Gate(
        asked=Asked(
            tolerance=gating.tolerance,
            fail_if=parse_fail_if(gating.fail_if),
            measures=tuple(gating.measure or ()),
            floors=parse_floors(gating.floor),
        ),
        allowed=allowed(differing),
        baseline=None if gating.baseline is None else read_run(str(gating.baseline), benchmark),
        files=files,
    )


def _refuse_without_gate(gating: HowToGate, files: WhereCiLooks) -> None:
    """Options of a gate without one: forgetting the baseline must not look like passing."""
    parse_fail_if(gating.fail_if)
    given = {
        "--tolerance": gating.tolerance is not None,
        "--fail-if": gating.fail_if == "worse",
        "--measure": bool(gating.measure),
        "--junit": files.junit is not None,
        "--markdown": files.markdown is not None,
    }
    if flag := next((flag for flag, is_given in given.items() if is_given), None):
        raise BadInput(f"{flag} is an option of a gate: give --baseline, or --floor NAME=VALUE, with it")


def _claim(files: WhereCiLooks, baseline: Path | None) -> None:
    """Write that there is no answer yet: nobody takes an older file for one, and a bad path shows now."""
    from sar_eval.report.junit import unanswered_as_junit
    from sar_eval.report.markdown import unanswered_as_markdown

    taken = [] if baseline is None else [baseline.resolve()]
    for flag, path, data in (
        ("--junit", files.junit, unanswered_as_junit(UNANSWERED)),
        ("--markdown", files.markdown, unanswered_as_markdown(UNANSWERED).encode()),
    ):
        if path is None:
            continue
        if path.resolve() in taken:
            raise BadInput(f"{flag} {path}: this file is asked for twice, or the baseline: another name")
        write_checked(flag, path, data)
        taken.append(path.resolve())
