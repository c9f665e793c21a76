"""What a resume keeps, refuses and says."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sar_eval.engines.native import NativeEngine
from sar_eval.errors import SpecMismatch
from sar_eval.runtime.blocks import Blocks
from sar_eval.runtime.progress import ProgressEvent
from sar_eval.spec import RunSpec
from sar_eval.stages.generate import BlockWriter, undrawn_blocks
from sar_eval.stages.resume import kept_settings, prepare
from sar_eval.storage.files import write_json
from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import Draw, Generation


@pytest.fixture
def folder(spec: RunSpec, tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    with run.lock():
        prepare(spec, run)
    return run


def test_another_batch_size_is_not_taken_and_that_is_said(spec: RunSpec, folder: RunFolder) -> None:
    kept = prepare(replace(spec, batch_size=3), folder)
    assert kept.batch_size == 8
    assert kept_settings(None, kept) == kept_settings(8, kept) == []
    [note] = kept_settings(3, kept)
    assert note.startswith("the batch size stays 8, with which this run was begun (3 was asked for)")


def test_options_about_speed_may_change(spec: RunSpec, folder: RunFolder) -> None:
    requested = replace(
        spec, engine_options={"speculate": True}, engine_speed_options=NativeEngine.speed_options
    )
    assert prepare(requested, folder).engine_options == {"speculate": True}
    with pytest.raises(SpecMismatch, match=r"engine_options: \{\} there, \{'quantization': 'fp8'\} asked"):
        prepare(replace(spec, engine_options={"quantization": "fp8"}), folder)


def test_a_run_of_an_earlier_version_with_the_same_spec_goes_on(spec: RunSpec, folder: RunFolder) -> None:
    """It left more options of other people's engines out of its digest."""
    manifest = json.loads((folder.path / "run.json").read_text())
    manifest["spec"]["engine_options"] = {"image_format": "webp"}
    requested = replace(spec, engine_options={"image_format": "webp"})
    write_json(folder.path / "run.json", manifest)
    with pytest.raises(SpecMismatch):  # made by this version: the digest decides
        prepare(requested, folder)
    for name in ("engine_speed_options", "judge_speed_options", "judge_path_options"):
        del manifest["spec"][name]
    manifest["spec"]["engine"] = "theirs.py:ENGINE"
    write_json(folder.path / "run.json", manifest)
    with pytest.raises(SpecMismatch, match="seed: 0 there, 1 asked"):
        prepare(replace(requested, engine="theirs.py:ENGINE", seed=1), folder)
    for _ in range(2):  # and again, with the run.json that this version wrote
        kept = prepare(replace(requested, engine="theirs.py:ENGINE"), folder)
        assert kept.engine_options == requested.engine_options


def test_blocks_that_are_left(spec: RunSpec, folder: RunFolder) -> None:
    blocks = Blocks.of(folder.prompts(), spec)
    _store(spec, folder, 0, blocks[0])
    _store(spec, folder, 1, blocks[1], error="broken")
    events: list[ProgressEvent] = []
    left = undrawn_blocks("generate", spec, folder, blocks, events.append, "made")
    assert (left, events) == ([1, 2], [ProgressEvent("generate", 8, 24)])


def test_a_damaged_part_is_said_and_left_to_do(spec: RunSpec, folder: RunFolder) -> None:
    blocks = Blocks.of(folder.prompts(), spec)
    path = _store(spec, folder, 0, blocks[0])
    path.write_bytes(path.read_bytes()[:-1])
    events: list[ProgressEvent] = []
    left = undrawn_blocks("generate", spec, folder, blocks, events.append, "made")
    assert left == [0, 1, 2]
    assert [event.note for event in events] == ["", f"damaged part {path.name} will be made again"]


def _store(spec: RunSpec, folder: RunFolder, block: int, draws: list[Draw], error: str = "") -> Path:
    image = None if error else b"png"
    generations = (Generation(d.key, d.seed, image=image, error=error or None) for d in draws)
    BlockWriter(spec, folder, block, draws).store(generations)
    return next(path for path in folder.generations.paths() if path.name.startswith(f"part-{block:06d}"))
