"""Which pictures a large run's report has, and what it does with those that cannot be read."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sar_eval.report.data import FAIL, NONE, PASS, SCORED, RunRows
from sar_eval.report.pictures import ALL_UP_TO, SAMPLE, PictureFiles, choose_pictures, embed, remove_stale


def make_rows(number: int, tasks: int, states: list[int], stored: float = 1.0) -> RunRows:
    """Rows of one image a prompt; the states take turns, and so do the tasks, more slowly."""
    codes = (np.arange(number) // len(states) % tasks + 1).astype(np.uint16)
    ids, names = [f"p{n}" for n in range(number)], [f"t{n}" for n in range(tasks)]
    rows = RunRows(ids, ids, names, [], codes, np.zeros(number, np.uint16), {}, 1)
    rows.states[:] = np.resize(states, number)
    rows.scores[:] = np.arange(number) / number
    rows.stored[:] = np.arange(number) < stored * number
    return rows


def test_a_run_of_some_thousands_has_all_pictures() -> None:
    rows = make_rows(ALL_UP_TO, 3, [PASS, FAIL])
    assert len(choose_pictures(rows, None, [])) == ALL_UP_TO
    assert len(choose_pictures(make_rows(ALL_UP_TO + 1, 3, [PASS, FAIL]), None, [])) == SAMPLE


@pytest.mark.parametrize("limit", [60, 300, 1000])
def test_a_sample_is_of_every_task_and_state(limit: int) -> None:
    rows = make_rows(9000, 5, [PASS, PASS, PASS, PASS, FAIL, NONE])
    chosen = choose_pictures(rows, limit, [])
    assert len(chosen) == limit == len(set(chosen.tolist()))
    kinds = Counter((int(rows.task_codes[n]), int(rows.states[n])) for n in chosen)
    assert len(kinds) == 15
    assert min(kinds.values()) >= limit // 15 - 8


def test_failed_ones_come_first() -> None:
    rows = make_rows(9000, 3, [PASS] * 5 + [FAIL, NONE])
    assert {int(rows.states[n]) for n in choose_pictures(rows, 3, [])} >= {NONE}
    states = Counter(int(rows.states[n]) for n in choose_pictures(rows, 1000, []))
    assert (states[NONE], states[FAIL]) == (pytest.approx(330, abs=10), pytest.approx(330, abs=10))


def test_of_scores_the_lower_half_and_the_upper() -> None:
    rows = make_rows(9000, 2, [SCORED])
    chosen = choose_pictures(rows, 400, [])
    low = sum(rows.scores[n] < 0.5 for n in chosen)
    assert 170 <= low <= 230


def test_rows_without_an_image_are_never_chosen() -> None:
    rows = make_rows(9000, 2, [FAIL], stored=0.5)
    assert choose_pictures(rows, 100, [8999]).max() < 4500
    assert len(choose_pictures(make_rows(10, 1, [FAIL], stored=0), None, [])) == 0


@pytest.mark.parametrize("limit", [0, 1, 100])
def test_those_asked_for_come_on_top(limit: int) -> None:
    rows = make_rows(9000, 2, [PASS])
    chosen = choose_pictures(rows, limit, [8998, 8999, 8999])
    assert chosen[-2:].tolist() == [8998, 8999]
    assert len(chosen) == limit + 2


def test_more_tasks_than_pictures() -> None:
    assert len(choose_pictures(make_rows(9000, 900, [PASS, FAIL]), 100, [])) == 100


def encoded(side: int = 300, kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(sink, kind)
    return sink.getvalue()


BROKEN = [None, b"", b"no image", encoded(8, "BMP"), encoded()[:20], b"\x89PNG\r\n\x1a\n" + b"\0" * 40]


@pytest.mark.parametrize("data", BROKEN)
def test_what_cannot_be_shown_has_a_problem(tmp_path: Path, data: bytes | None) -> None:
    for picture in (embed(data), PictureFiles(tmp_path).add("a/0", data)):
        assert picture.problem in ("no image stored", "unreadable image")
        assert picture.card == ""
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_picture_has_no_thumbnail(tmp_path: Path) -> None:
    picture = PictureFiles(tmp_path).add("a/0", encoded()[:9000])
    assert picture.card == picture.full == f"{tmp_path.name}/a_0.png"


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_files_are_called_by_their_contents(tmp_path: Path, kind: str, suffix: str) -> None:
    picture = PictureFiles(tmp_path).add("a.b-c/12", encoded(kind=kind))
    assert {path.name for path in tmp_path.iterdir()} == {f"a.b-c_12.{suffix}", "a.b-c_12.thumb.webp"}
    assert picture.size == (300, 300)


def test_only_our_own_files_are_ever_removed(tmp_path: Path) -> None:
    rows = make_rows(9, 13, [PASS])
    prompt = rows.ids[2]
    data = ["rows-000001.js", "details-1000000.js", "index.js"]
    ours = [f"{prompt}_0.png", f"{prompt}_0.thumb.webp", f"{prompt}_0.jpg", *data]
    ours += [f"{name}.4711.tmp" for name in data]
    others = [
        "a.png",
        "photo.jpg",
        "IMG_1234.jpg",
        f"{prompt}_00.png",
        f"{prompt}_99.png",
        "rows-1.js",
        "main.js",
        "notes.txt",
        ".hidden_0.png",
        "a_0.png.tmp",
        "a_0.gif",
    ]
    for name in ours + others:
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    remove_stale(tmp_path, {"index.js"}, rows)
    assert {path.name for path in tmp_path.iterdir()} == {*others, "index.js", "folder"}
    remove_stale(tmp_path / "none", set(), rows)
