"""Who was trained on a test says so, through selection and fine-tuning."""

import json
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.families.simplear import Checkpoint
from sar_eval.train.start import CheckpointStart
from sar_eval.train.train_recipe import make_train_recipe
from sar_eval.train.train_run import DecoderRun


def _start(folder: Path, tested: int) -> CheckpointStart:
    folder.mkdir()
    (folder / "sar_eval.json").write_text(json.dumps({"training": {"test_prompts": tested}}))
    return CheckpointStart(Checkpoint("start", folder, folder))


def _selected(folder: Path, facts: object) -> Path:
    folder.mkdir()
    (folder / "selection.json").write_text(json.dumps(facts))
    return folder


def _run(start: CheckpointStart, *data: Path) -> DecoderRun:
    tables = {
        "data": {"places": [str(folder) for folder in data]},
        "start": {"ckpt": "start"},
        "training": {"steps": 1},
    }
    return DecoderRun(make_train_recipe(tables, {}), Path("out"), Path("tokenizer"), start)


@pytest.mark.parametrize(("start", "selected", "marked"), [(0, 0, 0), (0, 5, 5), (7, 0, 7), (7, 5, 7)])
def test_fine_tuning_keeps_the_mark(tmp_path: Path, start: int, selected: int, marked: int) -> None:
    data = _selected(tmp_path / "a", {"prompts_of_a_test": selected, "more": 1})
    assert _run(_start(tmp_path / "start", start), data, tmp_path).test_prompts == marked


def test_a_damaged_selection_is_named(tmp_path: Path) -> None:
    data = _selected(tmp_path / "a", {"prompts_of_a_test": "many"})
    with pytest.raises(BadInput, match=r"selection\.json.*prompts_of_a_test"):
        _ = _run(_start(tmp_path / "start", 0), data).test_prompts
