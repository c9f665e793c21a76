"""What the tracker tensorboard writes, read by TensorBoard's own reader."""

import io
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from tests.unit.trackers.conftest import FIGURES, shade


@pytest.mark.slow  # torch's writer takes torch
@pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs the extra tensorboard")
def test_figures_pictures_and_report_are_read_back(tmp_path, tracked) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from sar_eval.trackers.tensorboard import TensorBoard

    where = TensorBoard(folder=str(tmp_path / "logs")).log(tracked)
    folder = tmp_path / "logs" / "my_project" / "sft"
    assert where == f"{folder} (tensorboard --logdir {tmp_path / 'logs'})"

    events = EventAccumulator(str(folder))
    events.Reload()
    read = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    assert {tag: round(point.value, 6) for tag, [point] in read.items()} == FIGURES
    assert {point.step for [point] in read.values()} == {2000}
    [image] = events.Images("shapes/pictures/b-2/1")
    assert np.array_equal(np.array(Image.open(io.BytesIO(image.encoded_image_string))), shade(200))
    [words] = events.Tensors("shapes/pictures/a-1/0/text_summary")
    text = words.tensor_proto.string_val[0].decode()
    assert text.splitlines()[-1] == "    failed: one is missing"
    assert all(line.startswith("    ") for line in text.splitlines())  # a code block: no Markdown in it
    assert (folder / "shapes-step-2000" / "report.html").read_text() == "<p>the report</p>"
    assert (folder / "shapes-step-2000" / "report_assets" / "index.js").is_file()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs the extra tensorboard")
def test_a_training_is_a_curve_also_after_it_went_on_from_an_earlier_step(tmp_path, followed) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from sar_eval.trackers.tensorboard import TensorBoard

    tracker = TensorBoard(folder=str(tmp_path))
    for begin, value in ((replace(followed, step=0), 0.25), (followed, 0.75)):
        with tracker.follow(begin) as following:
            for step in range(begin.step + 1, 5):
                following.log(step, {"train/reward": value, "train/kl": 0.5})
    folder = tmp_path / "my_project" / "grpo"
    assert following.where == f"{folder} (tensorboard --logdir {tmp_path})"
    events = EventAccumulator(str(folder))
    events.Reload()
    points = [(point.step, point.value) for point in events.Scalars("train/reward")]
    assert points == [(1, 0.25), (2, 0.25), (3, 0.75), (4, 0.75)]
    assert len(events.Scalars("train/kl")) == 4
