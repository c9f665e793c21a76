"""The errors of sar-eval, each with the exit code that the command line ends with.

0 ok, 1 gate failed, 2 bad input, 3 incomplete or interrupted, 70 a fault of sar-eval itself.
"""

from __future__ import annotations


class SarEvalError(Exception):
    """Base of every error that the command line prints as one message, without a traceback."""

    exit_code = 2


class BadInput(SarEvalError):
    """The user's input is wrong; the message says what, where and how to mend it."""


class MissingExtra(BadInput):
    """An optional package is not installed."""


class UnknownName(BadInput):
    """No benchmark, engine, judge or checkpoint has this name."""


class RunLocked(BadInput):
    """Another process works in this run folder."""


class SpecMismatch(BadInput):
    """The run folder belongs to another spec."""


class StorageFailed(SarEvalError):
    """A file could not be written (disk full, read-only, quota); what is stored stays valid."""

    exit_code = 3


class Incomplete(SarEvalError):
    """Some draws are missing, failed or unjudged."""

    exit_code = 3


class TrackerFailed(SarEvalError):
    """An experiment tracker did not take the results; the run and its score are stored."""

    exit_code = 3


class DeviceLost(SarEvalError):
    """A GPU or the engine on it failed; the worker must end, another one may find it well."""

    exit_code = 3


class GateFailed(SarEvalError):
    """A quality gate did not pass."""

    exit_code = 1


class Unforeseen(SarEvalError):
    """A fault of sar-eval itself, or of an addition, that nobody thought of."""

    exit_code = 70  # EX_SOFTWARE of sysexits.h
