"""Trackio: a local SQLite file, or a Space of the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sar_eval.discover import need
from sar_eval.images.files import decode_image
from sar_eval.trackers._artifacts import report_artifact

if TYPE_CHECKING:
    from sar_eval.tracked_runs import TrackedRun


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
        there = self.trackio.init(
            project=run.project,
            name=run.name,
            config={run.benchmark: dict(run.config)},
            resume="allow",
            embed=False,
            auto_log_gpu=False,  # the machine's load says nothing of the checkpoint
            auto_log_cpu=False,
            **self.options,
        )
        try:
            there.log({**run.figures, f"{run.benchmark}/pictures": self._table(run)}, step=run.step)
            if run.report:
                there.log_artifact(report_artifact(self.trackio.Artifact, run))
        finally:
            self.trackio.finish()  # not the run's: that would end once more, loudly, with the program
        return self.options["space_id"] or f'project {run.project} (trackio show --project "{run.project}")'

    def _table(self, run: TrackedRun) -> Any:
        rows = [
            picture.words() | {"image": self.trackio.Image(decode_image(picture.image))}
            for picture in run.pictures
        ]
        return self.trackio.Table(data=rows)


TRACKER = Trackio
