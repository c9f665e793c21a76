"""What the tracker mlflow stores in SQLite, read by MLflow's own client."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.trackers.conftest import FIGURES, HOSTILE, shade

pytestmark = [
    pytest.mark.skipif(find_spec("mlflow") is None, reason="needs the extra mlflow"),
    pytest.mark.slow,  # a new database
    # MLflow's own use of SQLAlchemy 2.1.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    """A new store, which takes ten seconds to be made."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def client(tmp_path, monkeypatch, uri):
    """A client of the store; artifacts go into the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def test_everything_is_read_back_from_a_new_run_and_from_one_that_is_there(client, uri, tracked) -> None:
    from sar_eval.trackers.mlflow import Mlflow

    pictures = list(tracked.pictures)
    where = Mlflow(tracking_uri=uri).log(replace(tracked, pictures=iter(pictures)))
    run_id = where.split()[1]
    run = client.get_run(run_id)
    assert where == f"run {run_id} of experiment my project"
    assert run.info.run_name == "sft"
    assert run.info.status == "FINISHED"
    assert run.data.metrics == FIGURES
    assert run.data.params == {
        "checkpoint": "step-2000",
        "protocol.guidance": "2.0",
        "protocol.prefix": "",
    }
    [point] = client.get_metric_history(run_id, "shapes/overall")
    assert point.step == 2000

    place = Path(client.download_artifacts(run_id, "shapes-step-2000"))
    assert json.loads((place / "config.json").read_text()) == tracked.config
    assert (place / "report.html").read_text() == "<p>the report</p>"
    assert (place / "report_assets" / "index.js").is_file()
    assert np.array_equal(np.array(Image.open(place / "pictures" / "b-2_1.png")), shade(200))
    [first, second] = json.loads((place / "pictures" / "pictures.json").read_text())["pictures"]
    assert (first["prompt"], first["verdict"], first["reason"]) == (HOSTILE, "failed", "one is missing")
    assert second["verdict"] == "0.25"

    later = replace(tracked, step=3000, config={"checkpoint": "step-3000"}, pictures=iter(pictures))
    assert Mlflow(tracking_uri=uri, run_id=run_id).log(later) == where
    assert [p.step for p in client.get_metric_history(run_id, "shapes/overall")] == [2000, 3000]
    assert client.get_run(run_id).data.params == run.data.params


def test_a_training_is_a_curve_and_ends_as_it_ended(client, uri, followed) -> None:
    from sar_eval.trackers.mlflow import Mlflow

    tracker = Mlflow(tracking_uri=uri)
    with tracker.follow(followed) as following:
        for step in (3, 4):
            following.log(step, {"train/reward": step / 8, "train/reward/shapes": 0.5})
    run_id = following.where.split()[1]
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("grpo", "FINISHED")
    assert run.data.params["grpo.steps"] == "4"
    points = client.get_metric_history(run_id, "train/reward")
    assert sorted((point.step, point.value) for point in points) == [(3, 0.375), (4, 0.5)]

    with pytest.raises(ZeroDivisionError), tracker.follow(followed) as failing:
        raise ZeroDivisionError
    assert client.get_run(failing.where.split()[1]).info.status == "FAILED"
