"""A run in shares on several machines, joined to the same run that one machine would have made."""

import json
import os
import shutil
from pathlib import Path

import pytest

from sar_eval.errors import BadInput, SpecMismatch
from sar_eval.options import parse_shard
from sar_eval.runtime.blocks import Blocks
from sar_eval.stages.join import join
from sar_eval.stages.summarize import summarize
from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import Prompt, Shard
from tests.stored_runs import begin_run, make_spec, store_generations, store_verdicts

PROMPTS = [Prompt(f"p{i}", f"ring {i}", "colors") for i in range(10)]
IMAGES = {f"p{i}/{j}": f"{i} {j}".encode() for i in range(10) for j in range(2)}
SCORES = {key: float(n % 3 > 0) for n, key in enumerate(IMAGES)}
SETTINGS = {"images_per_prompt": 2, "batch_size": 3}


@pytest.mark.parametrize("of", [1, 2, 3, 7, 20])
def test_every_block_belongs_to_one_shard(of: int) -> None:
    spec = make_spec(PROMPTS, **SETTINGS)
    shards = [Blocks.of(PROMPTS, spec, Shard(i, of)) for i in range(1, of + 1)]
    assert sorted(number for blocks in shards for number in blocks.numbers) == list(range(7))
    assert sum(blocks.draws for blocks in shards) == 20


@pytest.mark.parametrize(
    "text", ["0/2", "3/2", "2", "a/b", "1/0", "-1/2", "1/2/3", "1 /2", "9" * 30 + "/9", "1/9999999"]
)
def test_shards_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--shard is"):
        parse_shard(text)


def _shard(path: Path, index: int, of: int, judged: bool = True, **changes) -> RunFolder:
    """The run folder of a finished shard."""
    spec, folder = begin_run(path / f"{index}-of-{of}", PROMPTS, **{**SETTINGS, **changes})
    mine = Blocks.of(PROMPTS, spec, Shard(index, of))
    store_generations(spec, folder, IMAGES)
    if judged:
        store_verdicts(spec, folder, SCORES)
    for table in (folder.generations, folder.verdicts("shapes")):
        for block, part in table.parts().items():
            if block not in mine.numbers:
                part.path.unlink()
    return folder


def test_joined_shards_are_the_run_of_one_machine(tmp_path: Path) -> None:
    spec, whole = begin_run(tmp_path / "whole", PROMPTS, **SETTINGS)
    store_generations(spec, whole, IMAGES)
    store_verdicts(spec, whole, SCORES)
    out = RunFolder(tmp_path / "out")
    first = join([_shard(tmp_path, 1, 3), _shard(tmp_path, 3, 3)], out)
    assert (first.drawn, first.judged, first.expected) == (14, 14, 20)
    assert not summarize(spec, out).complete
    second = join([_shard(tmp_path / "later", i, 3) for i in (1, 2, 3)], out)
    assert (second.drawn, second.judged) == (20, 20)
    found, expected = summarize(spec, out), summarize(spec, whole)
    assert (found.metrics, found.complete) == (expected.metrics, True)
    assert [p.name for p in out.generations.paths()] == [p.name for p in whole.generations.paths()]


def test_joining_copies_where_links_are_not_supported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    out = RunFolder(tmp_path / "out")
    assert join([_shard(tmp_path, i, 2) for i in (1, 2)], out).drawn == 20
    assert summarize(make_spec(PROMPTS, **SETTINGS), out).complete


@pytest.mark.parametrize("changes", [{"seed": 1}, {"checkpoint_digest": "1"}, {"batch_size": 4}])
def test_shards_of_other_runs_are_refused(tmp_path: Path, changes: dict) -> None:
    shards = [_shard(tmp_path, 1, 2), _shard(tmp_path, 2, 2, **changes)]
    with pytest.raises(SpecMismatch, match="is no shard of the run in"):
        join(shards, RunFolder(tmp_path / "out"))
    join(shards[:1], RunFolder(tmp_path / "out"))
    with pytest.raises(SpecMismatch, match="is no shard of the run in"):
        join(shards[1:], RunFolder(tmp_path / "out"))


def test_a_block_drawn_twice_counts_once_and_must_be_equal(tmp_path: Path) -> None:
    one, other = _shard(tmp_path, 1, 1), _shard(tmp_path / "again", 1, 1)
    assert join([one, other], RunFolder(tmp_path / "out")).drawn == 20
    rows = other.generations.read_block(2)
    rows[0]["image"]["bytes"] = b"drawn otherwise"
    other.write_generations(2, rows, make_spec(PROMPTS, **SETTINGS).digest)
    with pytest.raises(SpecMismatch, match="hold different images of block 2"):
        join([one, other], RunFolder(tmp_path / "out2"))


def test_a_failed_block_is_replaced_by_a_whole_one(tmp_path: Path) -> None:
    spec, failed = begin_run(tmp_path / "failed", PROMPTS, **SETTINGS)
    store_generations(spec, failed, IMAGES | {"p0/1": None})
    out = RunFolder(tmp_path / "out")
    assert join([failed], out).drawn == 19
    assert join([_shard(tmp_path, 1, 1)], out).drawn == 20
    assert join([failed], out).drawn == 20


@pytest.mark.slow
def test_two_shards_from_the_command_line(sar_eval, suite: Path, tmp_path: Path) -> None:
    """Drawn by real workers; the second is killed by nobody, but told to go on, as SLURM does."""
    words = ["run", "shapes", "--ckpt", "demo:sft", "--suite", suite, "-n", 2, "--batch-size", 5, "-q"]
    words += ["--workers", 1]
    whole = sar_eval(*words, "--out", tmp_path / "whole", "--json")
    assert whole.returncode == 0, whole.stderr
    for index in (1, 2, 2):
        done = sar_eval(*words, "--out", tmp_path / str(index), "--shard", f"{index}/2")
        assert done.returncode == 0, done.stderr
        assert f"shard {index}/2 of a run" in done.stdout
    refused = sar_eval(*words, "--out", tmp_path / "1", "--shard", "2/2")
    assert (refused.returncode, "holds shard 1/2, not shard 2/2" in refused.stderr) == (2, True)
    joined = sar_eval("join", tmp_path / "1", tmp_path / "2", "--out", tmp_path / "all")
    assert joined.returncode == 0, joined.stderr
    assert joined.stdout.startswith("24 of 24 images in")
    shutil.rmtree(tmp_path / "1")
    report = sar_eval("summarize", tmp_path / "all", "--json")
    assert json.loads(report.stdout)["metrics"] == json.loads(whole.stdout)["metrics"]
