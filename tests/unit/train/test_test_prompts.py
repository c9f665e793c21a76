"""Who was trained on a test says so, through selection and fine-tuning."""

import json
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.families.simplear import Checkpoint
from sar_eval.train.sft import _test_prompts


def _start(folder: Path, tested: int) -> Checkpoint:
    folder.mkdir()
    (folder / "sar_eval.json").write_text(json.dumps({"training": {"test_prompts": tested}}))
    return Checkpoint("start", folder, folder)


def _selected(folder: Path, facts: object) -> Path:
    folder.mkdir()
    (folder / "selection.json").write_text(json.dumps(facts))
    return folder


@pytest.mark.parametrize(("start", "selected", "marked"), [(0, 0, 0), (0, 5, 5), (7, 0, 7), (7, 5, 7)])
def test_fine_tuning_keeps_the_mark(tmp_path: Path, start: int, selected: int, marked: int) -> None:
    data = [_selected(tmp_path / "a", {"prompts_of_a_test": selected, "more": 1}), tmp_path]
    assert _test_prompts(_start(tmp_path / "start", start), data) == marked


def test_a_damaged_selection_is_named(tmp_path: Path) -> None:
    data = [_selected(tmp_path / "a", {"prompts_of_a_test": "many"})]
    with pytest.raises(BadInput, match=r"selection\.json.*prompts_of_a_test"):
        _test_prompts(_start(tmp_path / "start", 0), data)
