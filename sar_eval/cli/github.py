"""What GitHub's runner reads of a step: annotations, which are lines of its log, and the job's summary."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from sar_eval.cli.terminal import command, in_github_actions, say

SUMMARY = "GITHUB_STEP_SUMMARY"  # the file that a step appends Markdown to


def annotate(kind: Literal["error", "notice"], title: str, message: str) -> None:
    """Mark the step with a message, if GitHub runs it."""
    if in_github_actions():
        command(kind, f"title={_property(title)}", _data(message))


def add_summary(markdown: str) -> None:
    """Append to the job's summary, if there is one; the result is elsewhere too, so failing is a note."""
    if not (path := os.environ.get(SUMMARY)):
        return
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{markdown}\n")
    except (OSError, ValueError) as error:
        say(f"note: ${SUMMARY} ({path}) cannot be written: {error}", err=True)


def _data(text: str) -> str:
    """A message as the runner unescapes it (actions/toolkit, command.ts)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
