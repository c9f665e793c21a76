"""Suites of many millions of prompts are never read as a whole; here five are many."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sar_eval.errors import BadInput
from sar_eval.runtime.blocks import Blocks
from sar_eval.runtime.progress import no_progress
from sar_eval.stages.generate import undrawn_blocks
from sar_eval.stages.resume import open_blocks, prepare
from sar_eval.stages.summarize import summarize
from sar_eval.storage.run_folder import RunFolder
from sar_eval.suites import prompts as prompts_module
from sar_eval.suites.prompts import load_suite
from sar_eval.suites.streamed import StreamedPrompts
from tests.stored_runs import make_spec, store_generations


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(prompts_module, "STREAMED_FROM", 4)
    path = tmp_path / "many.parquet"
    columns = {"Prompt": [f"a ring {i}" for i in range(23)], "Category": ["a", "b"] * 11 + ["a"]}
    pq.write_table(pa.table(columns | {"image": [b"x" * 1000] * 23}), path, row_group_size=5)
    return path


def test_they_are_those_of_a_suite_read_as_a_whole(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streamed = load_suite(many)
    assert isinstance(streamed.prompts, StreamedPrompts)
    assert "23 prompts are read when they are needed" in streamed.notes[0]
    monkeypatch.setattr(prompts_module, "STREAMED_FROM", 100)
    whole = load_suite(many).prompts
    assert list(streamed.prompts) == list(whole)
    assert len(streamed.prompts) == len(whole) == 23
    for start, stop in ((0, 1), (3, 12), (20, 99), (22, 23), (4, 5), (9, 9)):
        assert streamed.prompts[start:stop] == list(whole[start:stop])
    assert streamed.prompts[-1] == whole[-1]


def test_a_run_over_them_reads_the_file_and_keeps_to_it(many: Path, tmp_path: Path) -> None:
    suite = load_suite(many)
    spec = replace(make_spec([], batch_size=4, images_per_prompt=2, judge="", fold=""), suite=str(many))
    spec = replace(spec, suite_digest=suite.digest)
    folder = RunFolder(tmp_path / "run")
    prepare(spec, folder)
    assert not (folder.path / "prompts.parquet").exists()
    blocks = open_blocks(spec, folder)
    assert isinstance(blocks, Blocks)
    assert undrawn_blocks("generate", spec, folder, blocks, no_progress, "made") == list(range(12))
    images = {draw.key: draw.key.encode() for draws in blocks for draw in draws}
    store_generations(spec, folder, images)
    assert summarize(spec, folder).complete
    assert prepare(spec, folder) == spec
    many.write_bytes(many.read_bytes() + b"PAR1")
    with pytest.raises(BadInput, match=r"many\.parquet is not the prompt file that the run in"):
        summarize(spec, folder)


def test_a_bad_row_is_named_when_it_is_read(many: Path) -> None:
    texts = [f"a ring {i}" for i in range(23)]
    texts[17] = ""
    pq.write_table(pa.table({"text": texts}), many, row_group_size=5)
    prompts = load_suite(many).prompts
    assert prompts[16].text == "a ring 16"
    with pytest.raises(BadInput, match=r"many\.parquet:18: no prompt text"):
        prompts[15:20]
