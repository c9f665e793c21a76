"""How far a training command is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sar_eval.cli.terminal import console, printable
from sar_eval.errors import Incomplete
from sar_eval.train.launcher import is_first

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY_S = 20.0
SPEED_OVER_S = 600.0  # that a bar takes the speed of: a training tells of itself every so many steps alone


class Show(Protocol):
    """Takes what a command tells of itself."""

    def __call__(self, step: int, steps: int | None, value: float | str, /) -> None:
        """Show step, steps, and the loss or other words."""
        ...

    def note(self, text: str) -> None:
        """Print a sentence that stays: the result of an evaluation, say."""
        ...


@contextmanager
def showing(what: str, out: Path | str) -> Iterator[Show]:
    """A live bar on a terminal, a line now and then elsewhere; Ctrl-C says how to go on.

    Of the processes that a launcher started the first one shows it.
    """
    from rich.progress import Progress

    screen = console(stderr=True)
    try:
        if not is_first():
            yield _Nothing()
        elif screen.is_terminal:
            with Progress(console=screen, speed_estimate_period=SPEED_OVER_S) as progress:
                yield _Bar(progress, what)
        else:
            yield _Lines(screen, what)
    except KeyboardInterrupt as error:
        raise Incomplete(f"interrupted; run the same command again to finish {out}") from error


class _Nothing:
    """Shows nothing."""

    def __call__(self, step: int, steps: int | None, value: float | str, /) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class _Bar:
    """With the time left, as rich estimates it."""

    def __init__(self, progress: Any, what: str) -> None:
        self._progress, self._what = progress, what
        self._bar = progress.add_task(what, total=None)
        self._begun = False

    def __call__(self, step: int, steps: int | None, value: float | str, /) -> None:
        label = f"{self._what}  {_words(value)}" if value else self._what
        if not self._begun:  # what an earlier call of the command did is no part of the speed
            self._progress.reset(self._bar, completed=step, total=steps)
            self._begun = True
        self._progress.update(self._bar, completed=step, total=steps, description=label)

    def note(self, text: str) -> None:
        _print(self._progress.console, text)


class _Lines:
    def __init__(self, screen: Console, what: str) -> None:
        self._screen, self._what, self._last = screen, what, 0.0
        self._left = TimeLeft()

    def __call__(self, step: int, steps: int | None, value: float | str, /) -> None:
        left = self._left(step, steps, time.monotonic())
        if time.monotonic() - self._last > LINE_EVERY_S or step == steps:
            self._last = time.monotonic()
            total = f"/{steps}" if steps else ""
            tail = f"  {_words(value)}" if value else ""
            _print(self._screen, f"{self._what}: {step}{total}{tail}{left}")

    def note(self, text: str) -> None:
        _print(self._screen, f"{self._what}: {text}")


class TimeLeft:
    """How long a command still takes, by its speed since its first sign of life."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def __call__(self, step: int, steps: int | None, now: float) -> str:
        """`  5 min 10 s left`; "" at the beginning, at the end, and where the end is not known.

        Args:
            step, steps: done, an earlier call's included, and in all.
            now: in seconds of a clock that goes forward.
        """
        from sar_eval.cli.synth_progress import duration

        first, began = self._first = self._first or (step, now)
        if not steps or step >= steps or step <= first:
            return ""
        return f"  {duration((now - began) * (steps - step) / (step - first))} left"


def _print(screen: Console, text: str) -> None:
    screen.print(printable(text), soft_wrap=True)


def _words(value: float | str) -> str:
    return value if isinstance(value, str) else f"loss {value:.4f}"
