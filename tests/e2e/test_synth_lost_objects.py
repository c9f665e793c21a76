"""What a start does when somebody has deleted or damaged what the set itself consists of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.runtime.local import LocalRuntime
from sar_eval.runtime.runtimes import BlockResult
from sar_eval.runtime.slots import WorkerSlot
from sar_eval.storage.image_set import ImageSet
from sar_eval.storage.objects import open_store
from sar_eval.synthesis.begin import begin_set
from sar_eval.synthesis.block import BlockTask
from sar_eval.synthesis.driver import Driver
from sar_eval.synthesis.verify import repair, verify
from tests.synth_sets import contents, request, synthesise, write_prompts


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a prompt file and the finished set of it; not to be changed."""
    folder = tmp_path_factory.mktemp("drawn")
    prompts = write_prompts(folder / "p.jsonl", [f"thing {number}" for number in range(6)])
    synthesise(request(prompts, str(folder / "set")))
    return folder


@pytest.fixture
def place(drawn: Path, tmp_path: Path) -> Path:
    shutil.copytree(drawn / "set", tmp_path / "set")
    return tmp_path / "set"


def test_a_deleted_spec_is_written_again(drawn: Path, place: Path) -> None:
    """But not under other settings, which would mix two sets."""
    (place / "spec.json").unlink()
    with pytest.raises(BadInput, match="drawn with other settings"):
        begin_set(request(drawn / "p.jsonl", str(place), seed=1))
    begin_set(request(drawn / "p.jsonl", str(place)))
    assert contents(place) == contents(drawn / "set")


@pytest.mark.parametrize("damage", [None, b"", b"\x00garbage"])
def test_a_lost_prompt_index_is_made_again(drawn: Path, place: Path, damage: bytes | None) -> None:
    index = place / "prompts.index"
    index.unlink()
    if damage is not None:
        index.write_bytes(damage)
        with pytest.raises(BadInput, match="verify SET --repair"):
            begin_set(request(drawn / "p.jsonl", str(place)))
        image_set = ImageSet(open_store(place))
        problems = verify(image_set, lambda done, total: None).problems
        assert [problem.name for problem in problems] == ["prompts.index"]
        repair(image_set, problems)
    begin_set(request(drawn / "p.jsonl", str(place)))
    assert contents(place) == contents(drawn / "set")


@pytest.mark.parametrize(
    "change", [{"draws": -5}, {"fates": {"kept": 1}}, {"fates": {"kept": 9, "failed": -1}}]
)
def test_a_record_that_does_not_add_up_is_broken(place: Path, change: dict[str, object]) -> None:
    record = place / "done/000000/000000000-0.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | change))
    (problem,) = verify(ImageSet(open_store(place)), lambda done, total: None).problems
    assert (problem.block, problem.why) == (0, "its fates do not add up to its draws")


def test_an_empty_record_says_how_to_mend_it(place: Path) -> None:
    """As one is after a crash on a file system without links."""
    shutil.rmtree(place / "ledger")
    (place / "done/000000/000000000-0.json").write_bytes(b"")
    with pytest.raises(BadInput, match="verify --repair"):
        list(ImageSet(open_store(place)).records())


def test_folders_of_others_are_left_alone(drawn: Path, place: Path) -> None:
    for name in ("\u0663" * 6, "1", "notes", "9" * 40):  # Arabic digits are digits to Python, too
        (place / "done" / name).mkdir()
    _, driver = synthesise(request(drawn / "p.jsonl", str(place)))
    assert (driver.done, driver.left) == (2, 0)
    assert not verify(ImageSet(open_store(place)), lambda done, total: None).problems


class Elsewhere:
    """Workers for whom the set's name is another folder, as on a machine that does not share it."""

    def __init__(self, uri: Path) -> None:
        self.uri = uri

    def run(self, task: BlockTask, blocks: Iterable[int]) -> Generator[BlockResult, None, None]:
        """See `Runtime.run`."""
        return LocalRuntime([WorkerSlot(0)]).run(replace(task, uri=str(self.uri)), blocks)


@pytest.mark.slow
def test_workers_without_the_same_folder_are_found_out(drawn: Path, tmp_path: Path) -> None:
    image_set, spec = begin_set(request(drawn / "p.jsonl", str(tmp_path / "here")))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    with pytest.raises(BadInput, match="a folder that all of them share"):
        Driver(image_set, spec, Elsewhere(tmp_path / "there"), "test").run()
