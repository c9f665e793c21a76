"""What reaches the terminal: text of files, servers and names may hold escape sequences, and never acts.

Everything the command line prints passes `say`, `printable` or `plain`; JSON escapes them itself.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Control characters (C0, C1), marks and overrides of the writing direction, separators that terminals
# take for new lines, and halves of characters, which no encoding has.
_ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

# What GitHub's runner takes for a command in a line of a step's log, in its two forms.
_COMMAND = re.compile(r"(?<=:):|(?<=##)\[")


def printable(text: object) -> str:
    """The text with every character that a terminal acts on as an escape such as `\\x1b`.

    New lines and tabs stay. Where GitHub's runner reads along, its commands are escaped, too.
    """
    shown = _ACTIVE.sub(_escape, str(text))
    return _COMMAND.sub(lambda found: f"\\x{ord(found[0]):x}", shown) if in_github_actions() else shown


def in_github_actions() -> bool:
    """Whether a step of a GitHub workflow runs this."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def one_line(text: object) -> str:
    """The same, with new lines as escapes too: for a name within a line."""
    return printable(text).replace("\n", "\\n")


def say(text: object, err: bool = False) -> None:
    """Print text to standard output, or to standard error."""
    typer.echo(printable(text), err=err)


def command(name: str, properties: str, message: str) -> None:
    """Give GitHub's runner a command, on standard error: standard output may be JSON."""
    typer.echo(f"::{name} {printable(properties)}::{printable(message)}", err=True)


def plain(text: object, **style: Any) -> Text:
    """A text for a table or a bar: square brackets are no markup, colons no emoji."""
    from rich.text import Text

    return Text(one_line(text), **style)


def console(stderr: bool = False) -> Console:
    """A console that takes no markup from the text it prints."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def _escape(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]
