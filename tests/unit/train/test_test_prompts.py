"""Who was trained on a test says so, through selection and fine-tuning."""

import json
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.families.simplear import Checkpoint
from sar_eval.train.start import CheckpointStart
from sar_eval.train.train_recipe import DataTable, TrainRecipe
from sar_eval.train.train_run import DecoderRun
from sar_eval.train.training_options import TrainingOptions


def _start(folder: Path, tested: int) -> CheckpointStart:
    folder.mkdir()
    (folder / "sar_eval.json").write_text(json.dumps({"training": {"test_prompts": tested}}))
    return CheckpointStart(Checkpoint("start", folder, folder))


def _selected(folder: Path, facts: object) -> Path:
    folder.mkdir()
    (folder / "selection.json").write_text(json.dumps(facts))
    return folder


def _run(root: Path, start: int, data: list[Path]) -> DecoderRun:
    places = DataTable(places=tuple(map(str, data)))
    recipe = TrainRecipe(training=TrainingOptions(steps=1), data=places)
    return DecoderRun(recipe, root / "out", root / "visual", _start(root / "start", start))


@pytest.mark.parametrize(("start", "selected", "marked"), [(0, 0, 0), (0, 5, 5), (7, 0, 7), (7, 5, 7)])
def test_fine_tuning_keeps_the_mark(tmp_path: Path, start: int, selected: int, marked: int) -> None:
    data = [_selected(tmp_path / "a", {"prompts_of_a_test": selected, "more": 1}), tmp_path]
    run = _run(tmp_path, start, data)
    assert run.test_prompts == marked


def test_a_damaged_selection_is_named(tmp_path: Path) -> None:
    data = [_selected(tmp_path / "a", {"prompts_of_a_test": "many"})]
    with pytest.raises(BadInput, match=r"selection\.json.*prompts_of_a_test"):
        _ = _run(tmp_path, 0, data).test_prompts
