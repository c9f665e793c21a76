"""`track`: show a scored run in experiment trackers; and what `run`, `score` and `judge` do of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli import session
from sar_eval.cli.options import FoldOf, Results, RunPath, named_options, with_options
from sar_eval.cli.terminal import say
from sar_eval.errors import BadInput, SarEvalError
from sar_eval.options import HowToJudge

if TYPE_CHECKING:
    from sar_eval.protocols import Tracker
    from sar_eval.spec import RunSpec
    from sar_eval.storage.run_folder import RunFolder
    from sar_eval.train.journal import Listener
    from sar_eval.types import Json, Summary

# Options of `Results` for a command that logs to no tracker, and for one that writes nothing for the hub.
TRACKING = ("track", "project", "name", "step", "tracker_option")
FOR_THE_HUB = ("eval_results", "eval_dataset")


def follow_training(
    trackers: Mapping[str, Tracker], results: Results, out: Path, step: int, settings: Mapping[str, Json]
) -> AbstractContextManager[Listener]:
    """What tells trackers of every step of a training in `out`; of the first process alone.

    Raises:
        BadInput: one of them shows finished runs alone.
    """
    from sar_eval.stages.track_training import TrainingTrackers
    from sar_eval.tracked_runs import TrackedTraining
    from sar_eval.train.launcher import is_first

    if not is_first():
        return nullcontext(lambda step, figures: None)
    training = TrackedTraining(results.project, results.name or out.resolve().name, step, settings)
    return TrainingTrackers(trackers, training, lambda text: say(text, err=True))


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(track)


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where results go besides the run folder, checked before anything is drawn."""

    trackers: Mapping[str, Tracker]
    results: Results
    pictures: int | None = None

    @classmethod
    def of(cls, results: Results, pictures: int | None = None) -> Destinations:
        """What was asked for.

        Raises:
            BadInput: an unknown tracker, one whose package is missing, or an unusable option.
        """
        from sar_eval.stages.track import make_trackers

        if results.eval_dataset is not None:
            from sar_eval.stages.eval_results import check_dataset

            check_dataset(results.eval_dataset)
            if results.eval_results is None:
                raise BadInput("--eval-dataset is for --eval-results DIR, which is not given")
        options = named_options("--tracker-option", results.tracker_option)
        return cls(make_trackers(results.track or (), options), results, pictures)

    def send(self, spec: RunSpec, folder: RunFolder, summary: Summary) -> None:
        """Send the results everywhere, also where an earlier destination failed.

        Raises:
            SarEvalError: the first failure; others are printed.
        """
        if not summary.metrics:
            if self.trackers or self.results.eval_results:
                say("note: the run has no score yet: nothing is logged or written for the hub", err=True)
            return
        failures = [*self._log(spec, folder, summary), *self._write(spec, summary)]
        for failure in failures[1:]:
            say(f"error: {failure}", err=True)
        if failures:
            raise failures[0]

    def _log(self, spec: RunSpec, folder: RunFolder, summary: Summary) -> Iterator[SarEvalError]:
        from sar_eval.stages.track import PICTURES, HowToShow, track

        asked = self.results
        pictures = PICTURES if self.pictures is None else self.pictures
        how = HowToShow(asked.project, asked.name or "", asked.step, pictures)
        for name, tracker in self.trackers.items():
            try:
                say(f"{name}: {track(spec, folder, summary, (name, tracker), how)}", err=True)
            except SarEvalError as error:
                yield error

    def _write(self, spec: RunSpec, summary: Summary) -> Iterator[SarEvalError]:
        from sar_eval.stages.eval_results import write_eval_results

        asked = self.results
        if asked.eval_results is None:
            return
        try:
            written = write_eval_results(spec, summary, asked.eval_results, asked.eval_dataset or "")
            say(f"for the hub: {', '.join(map(str, written))}", err=True)
        except SarEvalError as error:
            yield error


@with_options(
    without=["judge", "judge_option", "detector", "scorers", "scorer_option", "track", *FOR_THE_HUB]
)
def track(
    run_folder: RunPath,
    to: Annotated[
        list[str],
        typer.Option("--to", metavar="TRACKER", help="The tracker; may be repeated. See `sar-eval list`."),
    ],
    judging: HowToJudge,
    results: Results,
    benchmark: FoldOf = None,
    images: Annotated[
        int, typer.Option("--images", min=0, max=1000, help="Pictures at most, passed and failed ones.")
    ] = 16,
) -> None:
    """Log a scored run to experiment trackers: figures, settings, a sample of pictures, the report.

    A tracker that fails ends the command with exit code 3; the run and its score stay as they are.
    """
    from sar_eval.stages.summarize import summarize as summarize_stage

    destinations = Destinations.of(replace(results, track=to), images)
    folder, spec = session.open_run(run_folder, named=benchmark is not None)
    spec = session.with_fold(spec, folder, benchmark)
    with folder.lock():
        summary = summarize_stage(spec, folder, partial=judging.partial)
        destinations.send(spec, folder, summary)
    session.exit_if_incomplete(summary)
