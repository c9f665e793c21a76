"""`sar-eval`, also as `python -m sar_eval`. A signal while modules are loaded ends without a traceback."""

import signal
import sys
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
came: list[int] = []


def main() -> None:
    """Load the command line and run it."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup does
            signal.signal(number, _interrupt)
    try:
        from sar_eval.cli import main as run

        _check()
        run()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted before anything was begun: run the same command again\n")
        exec("")  # noqa: S102 - else CPython ends by SIGINT if the interrupt left the exec of a string
        sys.exit(3)
    finally:
        _ignore()  # nothing is left to tidy up, and an exception at exit would be shown


def _interrupt(number: int, frame: FrameType | None) -> None:
    del frame
    _ignore()
    sys.unraisablehook = lambda lost: None  # should it be raised in a finalizer, `came` tells
    came.append(number)
    raise KeyboardInterrupt


def _check() -> None:
    if came:  # and some import dropped the exception
        raise KeyboardInterrupt


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
