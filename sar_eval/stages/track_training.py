"""Show a training in experiment trackers while it goes on, step by step."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Self

from sar_eval import discover
from sar_eval.errors import BadInput, SarEvalError, TrackerFailed
from sar_eval.protocols import Tracker
from sar_eval.stages.track import as_key, nobody_to_ask, without_secrets
from sar_eval.tracked_runs import StepLog, TrackedTraining


class TrainingTrackers:
    """Trackers that follow a training: a context manager, left when the training ends.

    One that fails before the first step ends the command. One that fails later gets nothing more, and the
    command ends with its failure after the training, which is worth more than its curves elsewhere.
    """

    def __init__(
        self, trackers: Mapping[str, Tracker], training: TrackedTraining, tell: Callable[[str], None]
    ) -> None:
        """Nothing is written yet.

        Args:
            trackers: by name, made by `make_trackers`.
            training: what they follow.
            tell: takes a sentence for the user.

        Raises:
            BadInput: one of them shows finished runs alone.
        """
        self._follow: dict[str, Callable[[TrackedTraining], AbstractContextManager[StepLog]]] = {}
        for name, tracker in trackers.items():
            follow = getattr(tracker, "follow", None)
            if not callable(follow):
                raise BadInput(f"tracker {name!r} cannot follow a training: it has no method `follow`")
            self._follow[name] = follow
        self._training, self._tell = training, tell
        self._open: list[tuple[str, AbstractContextManager[StepLog]]] = []
        self._logs: dict[str, Callable[[int, Mapping[str, float]], None]] = {}
        self._failures: list[TrackerFailed] = []

    def __enter__(self) -> Self:
        """Begin a run in each tracker, or go on with it.

        Raises:
            TrackerFailed: one of them raised anything.
        """
        try:
            for name, follow in self._follow.items():
                with _failing(name):
                    following = follow(self._training)
                    opened = following.__enter__()
                self._open.append((name, following))
                self._logs[name] = opened.log
                self._tell(f"{name}: {opened.where}")
        except SarEvalError:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __call__(self, step: int, figures: Mapping[str, float]) -> None:
        """Send figures of a step everywhere, but those that are no number: not every tracker takes them."""
        finite = {as_key(name): value for name, value in figures.items() if math.isfinite(value)}
        for name, log in list(self._logs.items()):
            with self._noting(name), _failing(name):
                log(step, finite)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run in each tracker.

        Raises:
            TrackerFailed: the first failure of all, unless the training itself failed.
        """
        while self._open:
            name, following = self._open.pop()
            with self._noting(name), _failing(name):
                following.__exit__(kind, error, trace)
        if self._failures and error is None:
            raise self._failures[0]

    @contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        try:
            yield
        except TrackerFailed as error:
            self._logs.pop(name, None)
            self._failures.append(error)
            self._tell(f"warning: {error}")


@contextmanager
def _failing(name: str) -> Iterator[None]:
    """What a tracker raises, without keys, as `TrackerFailed`."""
    try:
        with discover.guarded(f"tracker {name!r} failed"), nobody_to_ask():
            yield
    except BadInput as error:
        raise TrackerFailed(
            f"{without_secrets(str(error))}; the training's own journal has all figures"
        ) from error
