"""MLflow: a run of an experiment, in a local SQLite file or on a server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sar_eval.discover import need
from sar_eval.images.files import decode_image, encode_png
from sar_eval.tracked_runs import StepLog
from sar_eval.types import Json

if TYPE_CHECKING:
    from sar_eval.tracked_runs import TrackedRun, TrackedTraining

BATCH_METRICS, BATCH_PARAMS, MAX_PARAM = 1000, 100, 500  # what every server takes at once; characters


class Mlflow:
    """Logs through MLflow's client, which reads MLFLOW_TRACKING_URI and the variables of its servers."""

    def __init__(self, *, tracking_uri: str = "", run_id: str = "") -> None:
        """Where to log to.

        Args:
            tracking_uri: of the server or store; by default MLflow's own choice (sqlite:///mlflow.db).
            run_id: log to this run, say that of the training, instead of a new one.

        Raises:
            MissingExtra: MLflow is not installed.
        """
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing is sent without being asked
        self.mlflow = need("mlflow", extra="mlflow", what="tracker 'mlflow'")
        self.tracking_uri, self.run_id = tracking_uri, run_id

    def log(self, run: TrackedRun) -> str:
        """Log everything in a new run, or in that of `run_id`, which stays open."""
        client = self._client()
        run_id = self.run_id or _begin(client, run)
        self._log_figures(client, run_id, run.step or 0, run.figures)
        client.log_dict(run_id, dict(run.config), f"{run.place}/config.json")
        _log_pictures(client, run_id, run)
        for path in run.report:
            if path.is_dir():
                client.log_artifacts(run_id, str(path), f"{run.place}/{path.name}")
            else:
                client.log_artifact(run_id, str(path), run.place)
        if not self.run_id:
            client.set_terminated(run_id)
        return f"run {run_id} of experiment {run.project}"

    @contextmanager
    def follow(self, training: TrackedTraining) -> Iterator[StepLog]:
        """A point of each figure at its step; a training that goes on has a new run, unless `run_id`."""
        client = self._client()
        run_id = self.run_id or _begin(client, training)
        status = "FAILED"

        def log(step: int, figures: Mapping[str, float]) -> None:
            self._log_figures(client, run_id, step, figures)

        try:
            yield StepLog(f"run {run_id} of experiment {training.project}", log)
            status = "FINISHED"
        finally:
            if not self.run_id:
                client.set_terminated(run_id, status)

    def _client(self) -> Any:
        return self.mlflow.MlflowClient(tracking_uri=self.tracking_uri or None)

    def _log_figures(self, client: Any, run_id: str, step: int, figures: Mapping[str, float]) -> None:
        now, metric = int(time.time() * 1000), self.mlflow.entities.Metric
        metrics = [metric(name, value, now, step) for name, value in figures.items()]
        for start in range(0, len(metrics), BATCH_METRICS):
            client.log_batch(run_id, metrics=metrics[start : start + BATCH_METRICS])


def _begin(client: Any, run: TrackedRun | TrackedTraining) -> str:
    """A new run with the settings as parameters, which cannot change later: another run keeps its own."""
    from mlflow.entities import Param

    found = client.get_experiment_by_name(run.project)
    experiment = found.experiment_id if found else client.create_experiment(run.project)
    run_id = str(client.create_run(experiment, run_name=run.name).info.run_id)
    params = [Param(name, str(value)[:MAX_PARAM]) for name, value in _flat(run.config)]
    for start in range(0, len(params), BATCH_PARAMS):
        client.log_batch(run_id, params=params[start : start + BATCH_PARAMS])
    return run_id


def _flat(config: Mapping[str, Json], start: str = "") -> Iterator[tuple[str, Json]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{start}{name}.")
        else:
            yield f"{start}{name}", value


def _log_pictures(client: Any, run_id: str, run: TrackedRun) -> None:
    """PNG files, and beside them a JSON table of what they show."""
    place, table = f"{run.place}/pictures", []
    for picture in run.pictures:
        name = f"{picture.key.replace('/', '_')}.png"
        with TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(encode_png(decode_image(picture.image)))
            client.log_artifact(run_id, str(path), place)
        table.append({"file": name, **picture.words()})
    client.log_dict(run_id, {"pictures": table}, f"{place}/pictures.json")


TRACKER = Mlflow
