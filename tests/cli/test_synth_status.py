"""`synth status` from the command line, on small sets."""

import json
import threading
import time
from pathlib import Path

import pytest
from command_line import Run, refused

from sar_eval.storage.image_set import ImageSet
from sar_eval.storage.objects import open_store
from tests.small_sets import commit_block, data_row, make_set, spec_of


def test_a_complete_set(in_this_process: Run, tmp_path: Path) -> None:
    make_set(tmp_path / "set", blocks=3)
    done = in_this_process(["synth", "status", "set"])
    assert done.returncode == 0, done.stderr
    assert "blocks   3 of 3 (100.0 %)" in done.stdout
    assert "kept     8, 42.1 % (" in done.stdout


def test_the_funnel_is_explained(in_this_process: Run, tmp_path: Path) -> None:
    make_set(tmp_path / "set", blocks=3)
    lines = in_this_process(["synth", "status", "set", "--explain"]).stdout.splitlines()
    (clause,) = [line for line in lines if "hps > 0.2" in line]
    assert "8" in clause
    assert "42.11 %" in clause


def test_an_incomplete_set_ends_in_3(in_this_process: Run, tmp_path: Path) -> None:
    """Also for a script, that would wait for it."""
    image_set = ImageSet(open_store(tmp_path / "set"))
    image_set.begin(spec_of(blocks=3).to_json())
    commit_block(image_set, 1, [data_row(4)])
    done = in_this_process(["synth", "status", "set", "--json", "--shares", "3"])
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    assert found["blocks"] == {"total": 3, "committed": 1, "left": 2}
    assert found["incomplete_shares"] == {"1": 1, "3": 1}
    assert [step["draws"] for step in found["funnel"]][-1] == found["kept"]["draws"] == 1


@pytest.mark.parametrize("as_json", [False, True])
def test_watching_ends_when_the_set_is_complete(
    in_this_process: Run, tmp_path: Path, as_json: bool
) -> None:
    image_set = ImageSet(open_store(tmp_path / "set"))
    image_set.begin(spec_of(blocks=2).to_json())
    commit_block(image_set, 0, [data_row(0)])

    def finish() -> None:
        time.sleep(0.5)
        commit_block(image_set, 1, [data_row(4)])

    other = threading.Thread(target=finish)
    other.start()
    words = ["synth", "status", "set", "--watch", "--every", "0.1", *(["--json"] if as_json else [])]
    done = in_this_process(words)
    other.join()
    assert done.returncode == 0
    looks = done.stdout.splitlines()
    assert len(looks) > 1  # one at the beginning, one at the end, and as many as there was time for
    first, last = (json.loads(looks[n])["complete"] if as_json else looks[n][:10] for n in (0, -1))
    assert (first, last) == ((False, True) if as_json else ("1/2 blocks", "2/2 blocks"))


@pytest.mark.parametrize("words", [["nothing"], [""]])
def test_what_is_no_set_is_refused(in_this_process: Run, words: list[str]) -> None:
    refused(in_this_process(["synth", "status", *words]), "set")


def test_nothing_is_written(in_this_process: Run, tmp_path: Path) -> None:
    make_set(tmp_path / "set")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*")}
    in_this_process(["synth", "status", "set", "--explain"])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*")} == before
