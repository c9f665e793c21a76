"""The last handler: every exception becomes one line and an exit code, and never 1, a failed gate's."""

from __future__ import annotations

import errno
import os
import platform
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from sar_eval import __version__
from sar_eval.cli.github import annotate
from sar_eval.cli.terminal import printable
from sar_eval.errors import GateFailed, Incomplete, SarEvalError, Unforeseen
from sar_eval.runtime.interrupts import interruptible
from sar_eval.runtime.streams import SafeOutput, lost_output, safe_streams
from sar_eval.train.launcher import may_tell

DEBUG = "SAR_EVAL_DEBUG"
# Of the machine, not of the program or its input: the same command may do better later.
MACHINE_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.EAGAIN, errno.ENOLCK, errno.ESTALE, errno.ETIMEDOUT, errno.ENOSYS),
)
MAX_SHOWN = 4000  # characters of any error
LONGEST = 500  # characters of a foreign exception's message
GO_ON = "what is stored stays: run the same command again to go on"


def run(app: Callable[[], object]) -> int:
    """Run the command line and return its exit code; whatever it raises is told in one line."""
    with safe_streams() as out, interruptible():
        try:
            code = _exit_code(app)
        except BaseException as error:  # noqa: BLE001 - this is where they end
            code = _tell(error)
        return _check_output(code, out)


def _exit_code(app: Callable[[], object]) -> int:
    try:
        app()
    except SystemExit as ended:
        if hidden := _hidden(ended):
            raise hidden from None
        return ended.code if isinstance(ended.code, int) else 2 * bool(ended.code)
    return 0


def _hidden(ended: SystemExit) -> BaseException | None:
    """The exception that Typer turned into an exit code: 130 for Ctrl-C, or 1, which is a failed gate's."""
    error = ended.__context__ if ended.code in (1, 130) else None
    while error is not None and not isinstance(error, (KeyboardInterrupt, EOFError, OSError)):
        error = error.__cause__ or error.__context__
    return error


def _tell(error: BaseException) -> int:
    if os.environ.get(DEBUG, "0") not in ("", "0"):
        traceback.print_exception(error)
    known = explain(error)
    if not may_tell():
        return known.exit_code
    if not isinstance(known, GateFailed):  # which says more of each question itself
        annotate("error", "sar-eval", _shown(known))
    if sys.stderr is not None:
        sys.stderr.write(f"error: {_shown(known)}\n")
    return known.exit_code


def _shown(error: SarEvalError) -> str:
    """The message for a terminal: what it quotes of a file may be long, or hold escape sequences."""
    text = printable(error)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _check_output(code: int, out: SafeOutput) -> int:
    """Exit code 3 for a result that could not be printed."""
    if (why := lost_output(out)) and code == 0:
        return _tell(Incomplete(f"standard output could not be written ({why}); {GO_ON}"))
    return code


def explain(error: BaseException) -> SarEvalError:
    """The error to tell: itself if it is one of ours, else one that says what happened and what to do."""
    if isinstance(error, SarEvalError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Incomplete(f"interrupted; {GO_ON}")
    if isinstance(error, MemoryError):
        return Incomplete(
            f"out of memory{_message(error)}: fewer --workers or a smaller suite need less; {GO_ON}"
        )
    if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
        return Incomplete(f"{error.strerror}{_of_file(error)}; {GO_ON}")
    return Unforeseen(
        f"unforeseen {type(error).__name__}{_message(error)} (at {_place(error)}). Please report this line "
        f"and the command, with what it read if you can: sar-eval {__version__}, Python "
        f"{platform.python_version()}. {DEBUG}=1 shows the traceback"
    )


def _message(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f": {text[:LONGEST]}" if text else ""


def _of_file(error: OSError) -> str:
    return f" ({error.filename})" if error.filename else ""


def _place(error: BaseException) -> str:
    """The innermost line that is ours, else the innermost of all."""
    package = Path(__file__).parents[1]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(package)]
    for frame in (ours or frames)[-1:]:
        path = Path(frame.filename)
        return f"{path.relative_to(package.parent) if ours else path}:{frame.lineno}"
    return "an unknown place"
