"""Trackio: a local SQLite file, or a Space of the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sar_eval.discover import need
from sar_eval.images.files import decode_image
from sar_eval.tracked_runs import StepLog
from sar_eval.trackers._artifacts import report_artifact

if TYPE_CHECKING:
    from sar_eval.tracked_runs import TrackedRun, TrackedTraining
    from sar_eval.types import Json


class Trackio:
    """Logs through the package trackio, which reads TRACKIO_DIR and, for a Space, HF_TOKEN."""

    def __init__(self, *, space_id: str = "", group: str = "") -> None:
        """Options of `trackio.init`.

        Args:
            space_id: ORG/NAME of the Space that shows the project; by default it stays on this machine.
            group: of runs.

        Raises:
            MissingExtra: trackio is not installed.
        """
        self.trackio = need("trackio", extra="trackio", what="tracker 'trackio'")
        self.options = {"space_id": space_id or None, "group": group or None}

    def log(self, run: TrackedRun) -> str:
        """Log everything in the run of this name, which is made if it is not there."""
        with self._begun(run, {run.benchmark: dict(run.config)}) as there:
            there.log({**run.figures, f"{run.benchmark}/pictures": self._table(run)}, step=run.step)
            if run.report:
                there.log_artifact(report_artifact(self.trackio.Artifact, run))
        return self._where(run)

    @contextmanager
    def follow(self, training: TrackedTraining) -> Iterator[StepLog]:
        """A row for each step, in the run of this name."""
        with self._begun(training, {"train": dict(training.config)}) as there:

            def log(step: int, figures: Mapping[str, float]) -> None:
                there.log(dict(figures), step=step)

            yield StepLog(self._where(training), log)

    @contextmanager
    def _begun(self, shown: TrackedRun | TrackedTraining, config: Mapping[str, Json]) -> Iterator[Any]:
        there = self.trackio.init(
            project=shown.project,
            name=shown.name,
            config=config,
            resume="allow",
            embed=False,
            auto_log_gpu=False,  # the machine's load says nothing of the checkpoint
            auto_log_cpu=False,
            **self.options,
        )
        try:
            yield there
        finally:
            self.trackio.finish()  # not the run's: that would end once more, loudly, with the program

    def _where(self, shown: TrackedRun | TrackedTraining) -> str:
        local = f'project {shown.project} (trackio show --project "{shown.project}")'
        return self.options["space_id"] or local

    def _table(self, run: TrackedRun) -> Any:
        rows = [
            picture.words() | {"image": self.trackio.Image(decode_image(picture.image))}
            for picture in run.pictures
        ]
        return self.trackio.Table(data=rows)


TRACKER = Trackio
