"""`list` and `doctor`: what there is, and whether it works here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli.terminal import say
from sar_eval.errors import BadInput

if TYPE_CHECKING:
    from sar_eval.types import ScorerFacts


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("list")(list_all)
    app.command()(doctor)


def list_all(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List benchmarks, checkpoints, engines, judges, scorers and so on by the name that flags take."""
    from sar_eval import discover
    from sar_eval.families.locate import demo_names
    from sar_eval.recipe import recipe_names

    found = {
        "benchmarks": recipe_names(),
        "checkpoints": dict.fromkeys(demo_names(), "ships with sar-eval"),
        "engines": discover.names("engines"),
        "judges": discover.names("judges"),
        "answerers": discover.names("answerers"),
        "scorers": _scorers(),
        "folds": discover.names("benchmarks"),
        "trackers": discover.names("trackers"),
    }
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for kind, names in found.items():
        say(kind)
        for name, text in names.items():
            say(f"  {name:<16} {text}")


def _scorers() -> dict[str, str]:
    """Scorers, and of those that ship with sar-eval what each form says of itself."""
    from sar_eval import discover

    found: dict[str, str] = {}
    for name, text in discover.names("scorers").items():
        found[name] = text
        variants = {} if text.startswith("from ") else discover.load("scorers", name).variants
        for variant, facts in variants.items():
            found[f"  {name}:{variant}" if variant else f"  {name}"] = _describe(facts)
    return found


def _describe(facts: ScorerFacts) -> str:
    """Unit, range, prompt and licence in a line."""
    low, high = ("any" if end is None else f"{end:g}" for end in (facts.low, facts.high))
    prompt = "needs a prompt" if facts.needs_prompt else "needs no prompt"
    return f"{facts.unit}, {low} to {high}; {prompt}; {facts.licence}"


def doctor(
    benchmark: Annotated[str, typer.Argument(help="Check the judge of this benchmark instead: dpg.")] = "",
    weights: Annotated[
        Path | None, typer.Option(help="Folder of the judge's original files, if not the fetched ones.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="JSON lines of the original's answers: image, question, answer."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where the judge answers the reference's questions.")] = "cpu",
    folder: Annotated[Path, typer.Option("--out", help="Where runs would go.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Check packages, devices, disk, checkpoints and suites, and say how to mend what is wrong.

    With dpg: whether the weights of DPG-Bench's judge are what its architecture says, and whether it
    answers as the original did.
    """
    from dataclasses import asdict

    from sar_eval.stages.doctor import examine, examine_judge

    if not benchmark and (weights or reference):
        raise BadInput("--weights and --reference are for a benchmark's judge: sar-eval doctor dpg ...")
    judge = (benchmark, weights, reference, device)
    findings = list(examine_judge(*judge) if benchmark else examine(folder))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            mark = {True: "ok", False: "FAIL", None: "-"}[finding.ok]
            say(f"{mark:<5} {finding.name:<24} {finding.detail}")
    wrong = [finding.name for finding in findings if finding.ok is False]
    if wrong:
        raise BadInput(f"failed checks: {', '.join(wrong)}")
