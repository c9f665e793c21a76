"""How far a training command is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sar_eval.cli.terminal import console
from sar_eval.errors import Incomplete

Show = Callable[[int, int | None, float | str], None]  # step, steps, and the loss or other words


@contextmanager
def showing(what: str, out: Path | str) -> Iterator[Show]:
    """A live bar on a terminal, a line now and then elsewhere; Ctrl-C says how to go on."""
    from rich.progress import Progress

    screen = console(stderr=True)
    try:
        if screen.is_terminal:
            with Progress(console=screen) as progress:
                yield _bar(progress, what)
        else:
            yield _lines(screen, what)
    except KeyboardInterrupt as error:
        raise Incomplete(f"interrupted; run the same command again to finish {out}") from error


def _bar(progress: Any, what: str) -> Show:
    bar = progress.add_task(what, total=None)

    def show(step: int, steps: int | None, value: float | str) -> None:
        label = f"{what}  {_words(value)}" if value else what
        progress.update(bar, completed=step, total=steps, description=label)

    return show


def _lines(screen: Any, what: str) -> Show:
    last = 0.0

    def show(step: int, steps: int | None, value: float | str) -> None:
        nonlocal last
        if time.monotonic() - last > 20 or step == steps:
            last = time.monotonic()
            total = f"/{steps}" if steps else ""
            tail = f"  {_words(value)}" if value else ""
            screen.print(f"{what}: {step}{total}{tail}", soft_wrap=True)

    return show


def _words(value: float | str) -> str:
    return value if isinstance(value, str) else f"loss {value:.4f}"
