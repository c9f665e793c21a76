"""`doctor`: whether everything works here, and how to mend what does not."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli.terminal import say
from sar_eval.errors import BadInput, GateFailed, Incomplete

if TYPE_CHECKING:
    from sar_eval.stages.check_scorers import Comparison
    from sar_eval.stages.doctor import Finding

MARKS = {True: "ok", False: "FAIL", None: "-"}


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(doctor)


def doctor(
    what: Annotated[
        str, typer.Argument(metavar="[WHAT]", help="Check the judge of dpg, or the scorers, instead.")
    ] = "",
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="With scorers: which, as hps or clip:hessel; else all."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Folder of the judge's original files, if not the fetched ones.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines of the original's answers: image, question, answer; with scorers, of scores "
            "in place of the published ones: scorer, image, prompt, score, tolerance."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where networks answer and score.")] = "cpu",
    folder: Annotated[Path, typer.Option("--out", help="Where runs would go.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Check packages, devices, disk, checkpoints and suites, and say how to mend what is wrong.

    With dpg: whether the weights of DPG-Bench's judge are what its architecture says, and whether it
    answers as the original did. With scorers: whether their weights are here, and whether they give
    published pictures, which are downloaded, the published scores; exit code 1 if not, 3 if something
    is missing.
    """
    if not what and (weights or reference):
        raise BadInput("--weights and --reference are for a benchmark's judge: sar-eval doctor dpg ...")
    if what != "scorers" and names:
        raise BadInput(f"only `doctor scorers` takes names: leave out {', '.join(names)}")
    if what == "scorers":
        if weights:
            raise BadInput("--weights is for dpg: scorers are checked with their fetched weights")
        _doctor_scorers(names or [], reference, device, as_json)
        return
    _doctor(what, weights, reference, device, folder, as_json)


def _doctor(
    benchmark: str, weights: Path | None, reference: Path | None, device: str, folder: Path, as_json: bool
) -> None:
    from sar_eval.stages.doctor import examine, examine_judge

    judge = (benchmark, weights, reference, device)
    findings = list(examine_judge(*judge) if benchmark else examine(folder))
    if as_json:
        _print_json(findings)
    else:
        for finding in findings:
            say(f"{MARKS[finding.ok]:<5} {finding.name:<24} {finding.detail}")
    wrong = [finding.name for finding in findings if finding.ok is False]
    if wrong:
        raise BadInput(f"failed checks: {', '.join(wrong)}")


def _doctor_scorers(names: list[str], reference: Path | None, device: str, as_json: bool) -> None:
    from sar_eval.stages.anchors import ANCHORS, read_anchors
    from sar_eval.stages.check_scorers import check_scorers

    anchors = read_anchors(reference) if reference else ANCHORS
    found = check_scorers(names, anchors, device)
    comparisons = list(found if as_json else _told(found))
    if as_json:
        _print_json(comparisons)
    if wrong := [f"{one.scorer} {one.picture}" for one in comparisons if one.ok is False]:
        raise GateFailed(f"failed checks: {', '.join(wrong)}")
    if missing := dict.fromkeys(one.scorer for one in comparisons if one.ok is None):
        raise Incomplete(f"not checked, as something is missing: {', '.join(missing)}")


def _told(comparisons: Iterable[Comparison]) -> Iterator[Comparison]:
    """Each line when it is known: a network of gigabytes takes a while."""
    for one in comparisons:
        say(f"{MARKS[one.ok]:<5} {one.scorer:<20} {one.picture:<16} {one.detail}")
        yield one


def _print_json(rows: Iterable[Finding] | Iterable[Comparison]) -> None:
    typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
