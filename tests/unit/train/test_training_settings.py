"""A training goes on with what it began with, or begins anew and takes nothing over."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sar_eval.errors import BadInput
from sar_eval.train.token_stream import TokenStream, parse_place
from sar_eval.train.training_options import TrainingOptions
from sar_eval.train.training_settings import keep_settings, training_settings
from tests.unit.train.test_token_stream import write

START = {"by": "shape", "digest": "a"}


def _keep(out: Path, *places: str, resumed: int = 4, start: Any = START, **options: Any) -> None:
    asked = TrainingOptions(**{"steps": 8, "learning_rate": 1e-3, "schedule": "constant", **options})
    data = [parse_place(place) for place in places]
    stream = TokenStream(data, seed=0, window=asked.window, caption_dropout=0.0)
    keep_settings(out, training_settings(asked, start, data, stream), asked, resumed)


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    (tmp_path / "out").mkdir()
    return [write(tmp_path / "a", 60), write(tmp_path / "b", 60, 100)]


@pytest.mark.parametrize("weights", [("", ""), (":1", ":1")])
def test_the_order_of_places_may_not_change(tmp_path: Path, places: list[str], weights: Any) -> None:
    out, asked = tmp_path / "out", [place + weight for place, weight in zip(places, weights, strict=True)]
    _keep(out, *asked, resumed=0)
    _keep(out, *asked)
    with pytest.raises(BadInput, match=r"data\.places\.0\.place = .*/a.*, asked for is .*/b"):
        _keep(out, *reversed(asked))


def test_a_place_that_is_named_twice_is_not_one(tmp_path: Path, places: list[str]) -> None:
    out = tmp_path / "out"
    _keep(out, places[0], resumed=0)
    with pytest.raises(BadInput, match=r"data\.places\.1\.place"):
        _keep(out, places[0], places[0])


@pytest.mark.parametrize(("rows", "per_shard"), [(80, 40), (60, 20)])
def test_shards_that_were_added_or_cut_anew_are_other_data(
    tmp_path: Path, places: list[str], rows: int, per_shard: int
) -> None:
    out = tmp_path / "out"
    _keep(out, *places, resumed=0)
    shutil.rmtree(tmp_path / "a")
    write(tmp_path / "a", rows, per_shard=per_shard)
    with pytest.raises(BadInput, match=r"data\.shards = .*120 rows in 4 row groups .*, asked for is"):
        _keep(out, *places)


def test_a_state_after_the_end_is_refused(tmp_path: Path, places: list[str]) -> None:
    out = tmp_path / "out"
    _keep(out, *places, resumed=0)
    for changes, named in (({"stop_at": 3}, "--stop-at 3"), ({"steps": 3}, "--steps 3")):
        with pytest.raises(BadInput, match=f"state of step 4, after {named}: .*another --out"):
            _keep(out, *places, **changes)
    _keep(out, *places, stop_at=4)


def _evaluated(out: Path) -> list[Path]:
    """What an evaluation before the first step leaves."""
    files = [out / name for name in ("holdout/step-000000.json", "best/sar_eval.json", "holdout.parquet")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("{}")
    return files


def test_another_training_takes_over_no_evaluation(tmp_path: Path, places: list[str]) -> None:
    """The one before died before its first state; here the writer of one was killed."""
    out = tmp_path / "out"
    (out / "state" / "checkpoint-2.77.tmp").mkdir(parents=True)
    _keep(out, *places, resumed=0)
    files = _evaluated(out)
    _keep(out, *places, resumed=0, workers=3)
    assert all(file.exists() for file in files)
    _keep(out, *places, resumed=0, start={"by": "ckpt", "digest": "b"})
    assert not any(file.exists() for file in files)
    assert json.loads((out / "settings.json").read_text())["start"]["digest"] == "b"


def test_the_report_of_a_step_that_failed_goes_when_a_training_goes_on(
    tmp_path: Path, places: list[str]
) -> None:
    (tmp_path / "out" / "diverged.json").write_text("{}")
    _keep(tmp_path / "out", *places, resumed=0)
    assert not (tmp_path / "out" / "diverged.json").exists()
