"""A run's journal: an interrupted run that is resumed leaves the files of one without interruption."""

from __future__ import annotations

from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.storage.training_journal import HoldoutRow, read_head, read_holdout, read_steps, sample_steps
from sar_eval.train.journal import Journal, sample_row
from sar_eval.types import Generation, Prompt, make_draw

SETTINGS = {"grpo": {"steps": 6, "learning_rate": 2e-4}}
PNG = b"\x89PNG\r\n\x1a\n and so on"


def go(journal: Journal, steps: range) -> None:
    """Record steps as a training would: every value is a function of its step."""
    if steps.start == 1:
        look(journal, 0)
    for step in steps:
        late = {"kl": 0.01 * step} if step > 3 else {}
        journal.record(step, {"reward": step / 10, "reward/soft": 0.5, **late}, "NaN" if step == 5 else "")
        if step % 2 == 0:
            look(journal, step)


def look(journal: Journal, step: int) -> None:
    """A hold-out result and a picture."""
    journal.holdout([HoldoutRow(step=step, judge=name, value=0.5, n=8) for name in ("shapes", "vqa")])
    draw = make_draw(Prompt("p-1", "a red star"), 0, 7)
    made = Generation(draw.key, draw.seed, (1, step), PNG)
    journal.samples(step, [sample_row("watch", (draw, made), {"soft": 0.5}, 0.5)])


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder, by path in it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> dict[str, bytes]:
    """The files of a run of six steps that nothing interrupted."""
    folder = tmp_path_factory.mktemp("straight")
    journal = Journal(folder, SETTINGS)
    journal.resume(0)
    go(journal, range(1, 7))
    return files(folder)


@pytest.mark.parametrize(("saved", "died"), [(0, 1), (2, 2), (2, 5), (3, 4), (4, 6), (6, 6)])
def test_a_resumed_run_writes_the_same_files(tmp_path: Path, straight, saved: int, died: int) -> None:
    first = Journal(tmp_path, SETTINGS)
    first.resume(0)
    go(first, range(1, died + 1))
    second = Journal(tmp_path, SETTINGS)
    second.resume(saved)
    if saved == 0:
        assert [row.step for row in read_holdout(tmp_path)] == [0, 0]
    go(second, range(saved + 1, 7))
    assert files(tmp_path) == straight


def test_resume_drops_everything_after_the_step(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SETTINGS)
    go(journal, range(1, 7))
    journal.halt(6, "hold-out judge vqa fell")
    journal.resume(6)
    assert read_head(tmp_path).halt is not None
    journal.resume(3)
    assert [row.step for row in journal.rows()] == [1, 2, 3]
    assert read_steps(tmp_path) == journal.rows()
    assert {row.step for row in read_holdout(tmp_path)} == {0, 2}
    assert sample_steps(tmp_path) == [0, 2]
    assert read_head(tmp_path).halt is None


def test_a_journal_has_no_future(tmp_path: Path) -> None:
    go(Journal(tmp_path, SETTINGS), range(1, 7))
    anew = Journal(tmp_path, SETTINGS, ["placebo"])
    go(anew, range(1, 3))
    assert [row.step for row in read_steps(tmp_path)] == [1, 2]
    assert {row.step for row in read_holdout(tmp_path)} == {0, 2}
    assert sample_steps(tmp_path) == [0, 2]


def test_a_damaged_file_stops_the_resume(tmp_path: Path) -> None:
    go(Journal(tmp_path, SETTINGS), range(1, 3))
    (tmp_path / "holdout.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadInput, match="holdout"):
        Journal(tmp_path, SETTINGS)


def test_a_listener_hears_everything_once(tmp_path: Path) -> None:
    heard = []
    journal = Journal(
        tmp_path, SETTINGS, listener=lambda step, figures: heard.append((step, dict(figures)))
    )
    journal.resume(0)
    journal.record(1, {"reward": 0.5})
    first = HoldoutRow(step=0, judge="shapes", value=0.25, low=0.2, high=0.3, n=8)
    journal.holdout([first])
    journal.holdout([first, HoldoutRow(step=1, judge="shapes", value=None, n=0)])
    assert heard == [
        (1, {"train/reward": 0.5}),
        (0, {"holdout/shapes": 0.25, "holdout/shapes_low": 0.2, "holdout/shapes_high": 0.3}),
        (1, {}),
    ]
    heard.clear()
    again = Journal(tmp_path, SETTINGS, listener=lambda step, figures: heard.append(step))
    again.resume(0)
    again.holdout([first])
    assert heard == []


def test_notes_are_added_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {}, ["Placebo."])
    journal.note(["3 pictures have no score.", "Placebo.", "3 pictures have no score."])
    assert read_head(tmp_path).notes == ("Placebo.", "3 pictures have no score.")
