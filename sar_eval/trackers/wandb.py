"""Weights & Biases: figures over training steps, a table of pictures, the report as an artifact."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sar_eval.discover import need
from sar_eval.errors import BadInput
from sar_eval.images.files import decode_image
from sar_eval.tracked_runs import StepLog
from sar_eval.trackers._artifacts import report_artifact

if TYPE_CHECKING:
    from sar_eval.tracked_runs import TrackedRun, TrackedTraining
    from sar_eval.types import Json

MODES = ("", "online", "offline")
COLUMNS = ("key", "task", "verdict", "score", "reason", "prompt", "image")
STEP = "training_step"


class Wandb:
    """Logs through the package wandb, which reads WANDB_API_KEY and WANDB_MODE."""

    def __init__(
        self, *, entity: str = "", group: str = "", run_id: str = "", mode: str = "", folder: str = ""
    ) -> None:
        """Options of `wandb.init`; those left out are wandb's own choice.

        Args:
            entity: user or team.
            group: of runs.
            run_id: log to this run, say that of the training, and make it if it is not there.
            mode: online or offline.
            folder: where `wandb/` is made; by default in the current folder.

        Raises:
            MissingExtra: wandb is not installed.
            BadInput: another mode.
        """
        if mode not in MODES:
            raise BadInput(f"mode {mode!r} of tracker 'wandb': online or offline")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # no crash report without being asked
        self.wandb = need("wandb", extra="wandb", what="tracker 'wandb'")
        resume = {"id": run_id, "resume": "allow"} if run_id else {}
        asked = {"entity": entity, "group": group, "mode": mode, "dir": folder}
        self.options: dict[str, Any] = {name: value for name, value in asked.items() if value} | resume

    def log(self, run: TrackedRun) -> str:
        """Log everything in one run of wandb's, and finish it."""
        with self._begin(run, {run.benchmark: dict(run.config)}) as there:
            self._log(there, run)
            return _where(there)

    @contextmanager
    def follow(self, training: TrackedTraining) -> Iterator[StepLog]:
        """A row for each step; a training that goes on has a new run, unless `run_id` names one."""
        with self._begin(training, {"train": dict(training.config)}) as there:
            for family in ("train/*", "holdout/*"):  # wandb's own step only grows: see `_log`
                there.define_metric(family, step_metric=STEP)

            def log(step: int, figures: Mapping[str, float]) -> None:
                there.log({**figures, STEP: step})

            yield StepLog(_where(there), log)

    def _begin(self, shown: TrackedRun | TrackedTraining, config: Mapping[str, Json]) -> Any:
        settings = self.wandb.Settings(
            silent=True,  # nothing on the terminal, where the summary is
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,  # the machine's load and names say nothing of the checkpoint
            x_disable_machine_info=True,
        )
        names = {"project": shown.project, "name": shown.name}
        return self.wandb.init(**names, config=config, settings=settings, **self.options)

    def _log(self, there: Any, run: TrackedRun) -> None:
        step = {} if run.step is None else {STEP: run.step}
        if step:  # wandb's own step only grows: a training that is further on would hide this one
            there.define_metric(f"{run.benchmark}/*", step_metric=STEP)
        table = self.wandb.Table(columns=list(COLUMNS), allow_mixed_types=True)  # a reason may be None
        images = []  # a panel that steps through the training; the table is to filter and sort
        for picture in run.pictures:
            caption = f"{picture.verdict}: {picture.prompt}"
            images.append(self.wandb.Image(decode_image(picture.image), caption=caption))
            table.add_data(*picture.words().values(), images[-1])
        shown = {f"{run.benchmark}/pictures": images, f"{run.benchmark}/verdicts": table}
        there.log({**run.figures, **shown, **step})
        if run.report:
            there.log_artifact(report_artifact(self.wandb.Artifact, run))


def _where(there: Any) -> str:
    return str(there.settings.sync_dir if there.offline else there.url)


TRACKER = Wandb
