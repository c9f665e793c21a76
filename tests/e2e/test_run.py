"""The main job from the command line, on the demo checkpoint: whole, broken off, and in pieces."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest

from sar_eval.storage.schemas import GENERATIONS, VERDICTS
from tests.small_suite import write_small_suite
from tests.warm_command import WarmCommand


def _words(suite: Path, out: Path, *more: object) -> list[str]:
    words = [
        "run",
        "shapes",
        "--ckpt",
        "demo:sft",
        "--suite",
        suite,
        "--out",
        out,
        "--batch-size",
        8,
        "--scorers",
        "colourfulness",
        *more,
    ]
    return [str(word) for word in words]


def _contents(run: Path) -> tuple[list[dict], ...]:
    """Everything that must not depend on how the run went, in the order of the keys."""
    drawn = pq.read_table(run / "generations").drop_columns("elapsed_s").sort_by("key").to_pylist()
    judged = pq.read_table(run / "verdicts" / "shapes").sort_by("key").to_pylist()
    (beside,) = (run / "verdicts").glob("score-*")
    scored = pq.read_table(beside).sort_by("key").to_pylist()
    for rows in (drawn, judged, scored):
        assert len({row["key"] for row in rows}) == len(rows)
    return drawn, judged, scored


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, warm: WarmCommand) -> tuple[Path, Path, dict]:
    """A suite of 12 prompts, a whole run of it with two workers, and what that printed."""
    root = tmp_path_factory.mktemp("whole")
    suite = write_small_suite(root / "small.jsonl")
    done = warm.completed(_words(suite, root / "run", "--workers", 2, "--json"), 240)
    assert done.returncode == 0, done.stderr
    return suite, root / "run", json.loads(done.stdout)


def test_a_run_is_complete_and_reported(undisturbed: tuple[Path, Path, dict]) -> None:
    _, run, summary = undisturbed
    counts = [summary[name] for name in ("expected", "generated", "judged", "failed")]
    assert counts == [48, 48, 48, 0]
    assert summary["complete"] is True
    assert summary["metrics"][0]["name"] == "overall"
    low, value, high = (summary["metrics"][0][name] for name in ("low", "value", "high"))
    assert 0.6 < value <= 1, "the demo checkpoint draws better than this"
    assert low <= value <= high
    assert json.loads((run / "summary.json").read_text())["metrics"] == summary["metrics"]
    assert Path(summary["report"]).read_text().startswith("<!doctype html>")
    assert not list(run.rglob("*.tmp"))


def test_pandas_arrow_and_duckdb_read_the_run(undisturbed: tuple[Path, Path, dict]) -> None:
    _, run, _ = undisturbed
    for table, schema in (("generations", GENERATIONS), ("verdicts/shapes", VERDICTS)):
        part = next((run / table).glob("part-*.parquet"))
        assert pq.read_schema(part).remove_metadata() == schema
    frame = pd.read_parquet(run / "generations")
    assert frame["image"][0]["bytes"].startswith(b"\x89PNG")
    parts = f"'{run}/generations/part-*.parquet'"
    query = f"select count(*), count(distinct key) from {parts} where len(tokens) = 64"
    assert duckdb.sql(query).fetchall() == [(48, 48)]


@pytest.mark.slow
def test_hugging_face_datasets_shows_the_images(
    undisturbed: tuple[Path, Path, dict], tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets", reason="the package `datasets` is not installed")
    files = sorted(map(str, (undisturbed[1] / "generations").glob("part-*.parquet")))
    table = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    image = table.cast_column("image", datasets.Image())[0]["image"]
    assert image.size == (64, 64)


def test_the_same_command_again_does_nothing_new(undisturbed, sar_eval) -> None:
    suite, run, summary = undisturbed
    before = {path: path.stat().st_mtime_ns for path in run.rglob("part-*.parquet")}
    again = sar_eval(*_words(suite, run, "--json"))
    assert again.returncode == 0
    assert json.loads(again.stdout)["metrics"] == summary["metrics"]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("part-*.parquet")} == before


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_the_number_of_workers_changes_nothing(undisturbed, sar_eval, tmp_path: Path, workers: int) -> None:
    suite, run, summary = undisturbed
    done = sar_eval(*_words(suite, tmp_path / "run", "--workers", workers, "--json"))
    assert done.returncode == 0, done.stderr
    assert _contents(tmp_path / "run") == _contents(run)
    assert json.loads(done.stdout)["metrics"] == summary["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kill_minus_nine_loses_nothing(undisturbed, sar_eval, tmp_path: Path, seed: int) -> None:
    suite, run, _ = undisturbed
    rng = random.Random(seed)
    words = _words(suite, tmp_path / "run", "--workers", 2)
    drawn, judged = tmp_path / "run" / "generations", tmp_path / "run" / "verdicts" / "shapes"
    # Once before anything is stored, twice while drawing, once while judging.
    for folder, parts in (
        (tmp_path, 0),
        (drawn, rng.randint(1, 2)),
        (drawn, rng.randint(3, 5)),
        (judged, 1),
    ):
        _kill_after(words, folder, parts, rng.uniform(0, 0.3))
    done = sar_eval(*words)
    assert done.returncode == 0, done.stderr
    assert _contents(tmp_path / "run") == _contents(run)
    assert not list((tmp_path / "run").rglob("*.tmp"))


def _kill_after(words: list[str], folder: Path, parts: int, delay: float) -> None:
    """Start the command, wait until a folder has so many parts, then kill its process group."""
    command = [sys.executable, "-m", "sar_eval", *words]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, start_new_session=True, **quiet)
    if parts:
        _wait_for(folder, parts)
    else:
        time.sleep(2)
    time.sleep(delay)
    assert process.poll() is None, "it was to be killed while it works"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_damaged_parts_are_named_and_redone(undisturbed, sar_eval, tmp_path: Path) -> None:
    suite, run, _ = undisturbed
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    drawn = sorted((copy / "generations").glob("part-*"))[2]
    judged = sorted((copy / "verdicts" / "shapes").glob("part-*"))[4]
    drawn.write_bytes(drawn.read_bytes()[:-50])
    flipped = bytearray(judged.read_bytes())
    flipped[100] ^= 1
    judged.write_bytes(flipped)
    done = sar_eval(*_words(suite, copy, "--json"))
    assert done.returncode == 0, done.stderr
    done = sar_eval("judge", copy)
    assert done.returncode == 0, done.stderr
    assert _contents(copy) == _contents(run)


@pytest.mark.slow
def test_damage_is_reported_by_name(undisturbed, sar_eval, tmp_path: Path) -> None:
    suite, run, _ = undisturbed
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    drawn = sorted((copy / "generations").glob("part-*"))[2]
    drawn.write_bytes(drawn.read_bytes()[:-50])
    done = sar_eval(*_words(suite, copy))
    assert f"damaged part {drawn.name} will be made again" in done.stderr
    assert done.returncode == 0


@pytest.mark.slow
def test_ctrl_c_stops_and_says_how_to_go_on(undisturbed, sar_eval, tmp_path: Path) -> None:
    suite, _run, _ = undisturbed
    words = _words(suite, tmp_path / "run", "--workers", 2, "--images-per-prompt", 40)
    command = [sys.executable, "-m", "sar_eval", *words]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    _wait_for(tmp_path / "run" / "generations", 1)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=30)  # a guard against hanging, not a measurement
    assert process.returncode == 3
    assert "run the same command again to go on" in error
    assert "Traceback" not in error


def _wait_for(folder: Path, parts: int) -> None:
    for _ in range(6000):
        if len(list(folder.glob("part-*.parquet"))) >= parts:
            return
        time.sleep(0.01)
    raise AssertionError(f"no {parts} parts in {folder}")


@pytest.mark.slow
def test_another_process_on_the_run_is_refused(undisturbed, sar_eval, tmp_path: Path) -> None:
    suite, _, _ = undisturbed
    words = _words(suite, tmp_path / "run", "--images-per-prompt", 400)
    process = subprocess.Popen(
        [sys.executable, "-m", "sar_eval", *words], start_new_session=True, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(tmp_path / "run" / "generations", 1)
        other = sar_eval(*words)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert other.returncode == 2
    assert "another process works in" in other.stderr


def test_a_resume_under_another_spec_is_refused(undisturbed, sar_eval) -> None:
    suite, run, _ = undisturbed
    done = sar_eval(*_words(suite, run, "--guidance", 7))
    assert done.returncode == 2
    assert "another spec" in done.stderr
    assert "guidance" in done.stderr


@pytest.mark.slow
def test_stages_one_by_one_give_the_same(undisturbed, sar_eval, tmp_path: Path) -> None:
    suite, _run, summary = undisturbed
    reported_protocol = [summary["protocol"][name] for name in ("guidance", "temperature")]
    protocol = [
        "--guidance",
        reported_protocol[0],
        "--temperature",
        reported_protocol[1],
        "--batch-size",
        8,
        "-n",
        4,
    ]
    drawn = sar_eval("generate", suite, "--ckpt", "demo:sft", "--out", tmp_path / "run", *protocol)
    assert drawn.returncode == 0, drawn.stderr
    judged = sar_eval("judge", tmp_path / "run", "--benchmark", "shapes", "--scorers", "colourfulness")
    assert judged.returncode == 0, judged.stderr
    folded = sar_eval("summarize", tmp_path / "run", "--json")
    assert json.loads(folded.stdout)["metrics"] == summary["metrics"]
    assert sar_eval("report", tmp_path / "run").returncode == 0
    assert sar_eval(
        "export", tmp_path / "run", "--layout", "geneval", "--out", tmp_path / "x"
    ).stdout.startswith("48 ")


def test_a_run_over_stored_images_gone_missing_is_incomplete(undisturbed, sar_eval, tmp_path: Path) -> None:
    _, run, _ = undisturbed
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    min((copy / "generations").glob("part-*")).unlink()
    sorted((copy / "verdicts" / "shapes").glob("part-*"))[3].unlink()
    done = sar_eval("summarize", copy)
    assert done.returncode == 3
    assert "not generated" in done.stdout
    assert "INCOMPLETE" in done.stdout
    assert "\x1b" not in done.stdout
