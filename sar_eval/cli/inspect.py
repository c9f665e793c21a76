"""`list`: what there is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli.terminal import say

if TYPE_CHECKING:
    from sar_eval.types import ScorerFacts


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("list")(list_all)


def list_all(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List benchmarks, checkpoints, engines, judges, scorers and so on by the name that flags take."""
    from sar_eval import discover
    from sar_eval.families.locate import demo_names
    from sar_eval.recipe import decoder_recipes, description, recipe_names, training_recipes

    found = {
        "benchmarks": recipe_names(),
        "checkpoints": dict.fromkeys(demo_names(), "ships with sar-eval"),
        "families": discover.names("families"),
        "engines": discover.names("engines"),
        "judges": discover.names("judges"),
        "answerers": discover.names("answerers"),
        "scorers": _scorers(),
        "folds": discover.names("benchmarks"),
        "trackers": discover.names("trackers"),
        "training recipes": {name: description(path) for name, path in training_recipes().items()},
        "recipes of train run": {name: description(path) for name, path in decoder_recipes().items()},
    }
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for kind, names in found.items():
        say(kind)
        width = max(16, *map(len, names))
        for name, text in names.items():
            say(f"  {name:<{width}} {text}")


def _scorers() -> dict[str, str]:
    """Scorers, and of those that ship with sar-eval what each form says of itself."""
    from sar_eval import discover
    from sar_eval.scoring import variants_of

    found: dict[str, str] = {}
    for name, text in discover.names("scorers").items():
        found[name] = text
        variants = {} if text.startswith("from ") else variants_of(name)
        for variant, facts in variants.items():
            found[f"  {name}:{variant}" if variant else f"  {name}"] = _describe(facts)
    return found


def _describe(facts: ScorerFacts) -> str:
    """Unit, range, prompt and licence in a line."""
    low, high = ("any" if end is None else f"{end:g}" for end in (facts.low, facts.high))
    values = "any number" if facts.low is None and facts.high is None else f"{low} to {high}"
    prompt = "needs a prompt" if facts.needs_prompt else "needs no prompt"
    return f"{facts.unit}, {values}; {prompt}; {facts.licence}"
