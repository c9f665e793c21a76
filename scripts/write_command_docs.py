"""Write docs/commands.md from the command line itself; a test fails when the file is stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from sar_eval.cli import app

HEAD = """# Commands

Written by `python scripts/write_command_docs.py`; `sar-eval COMMAND --help` says the same.
Exit codes: 0 ok, 1 gate failed, 2 bad input, 3 incomplete or interrupted, 70 a fault of sar-eval itself.
"""


def commands(group: Any, words: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    """Every command with its words, in the order of `--help`."""
    found: list[tuple[str, Any]] = []
    for name, command in group.commands.items():
        inner = hasattr(command, "commands")
        found += commands(command, (*words, name)) if inner else [(" ".join((*words, name)), command)]
    return found


def section(words: str, command: Any) -> str:
    """One command's part of the file."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join([words, *((p.metavar or p.name).upper() for p in arguments), "[OPTIONS]"])
    lines = [f"## `sar-eval {words}`", "", " ".join(command.help.split()), "", f"    sar-eval {usage}", ""]
    lines += [f"- `{(p.metavar or p.name).upper()}`: {p.help}" for p in arguments]
    lines += [
        f"- {', '.join(f'`{o}`' for o in (*p.opts, *p.secondary_opts))}: {_option_text(p)}" for p in options
    ]
    return "\n".join(lines) + "\n"


def _option_text(parameter: Any) -> str:
    extra = ""
    if parameter.required:
        extra = " (required)"
    elif parameter.default not in (None, False, True, []):
        extra = f" (default `{parameter.default}`)"
    return f"{parameter.help}{extra}"


def document() -> str:
    """The whole file."""
    return "\n".join(
        [HEAD, *(section(words, command) for words, command in commands(typer.main.get_command(app)))]
    )


if __name__ == "__main__":
    Path(__file__).parents[1].joinpath("docs", "commands.md").write_text(document())
