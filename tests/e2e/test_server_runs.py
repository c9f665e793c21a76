"""Runs of the engine `server` from the command line: failures, a kill, a server that stops, and the key."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sar_eval.engines.server import seed_sent
from sar_eval.images.files import decode_image
from sar_eval.types import Prompt, make_draw
from tests.fake_images_server import FakeImagesServer, picture, serving_images

KEY = "sk-Se&cret/a<b+c=="
SIDE = 64
FAULTS = ("", "[400:1]", "[refused:1]", "[small:1]", "[503:1]", "")


def suite_of(path: Path, *faults: str) -> Path:
    """A prompt of the shapes suite for each fault, which its text has at its end."""
    root = Path(__file__).parents[2]
    lines = (root / "prompts" / "shapes.jsonl").read_text().splitlines()[: len(faults)]
    rows = [json.loads(line) for line in lines]
    for row, fault in zip(rows, faults, strict=True):
        row["text"] = f"{row['text']} {fault}".strip()
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def words_of(server: FakeImagesServer, suite: Path, out: Path, **options: object) -> list[object]:
    known = {"base_url": server.url, "send_seed": "true", "retries": 2, **options}
    named = [word for name, value in known.items() for word in ("--engine-option", f"{name}={value}")]
    run = ["run", "shapes", "--ckpt", "painter", "--engine", "server", "--suite", suite, "--out", out]
    return [*run, "-n", 1, "--batch-size", 2, "--devices", "cpu", "--json", *named]


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    rows = [
        row
        for path in sorted((out / "generations").glob("part-*"))
        for row in pq.read_table(path).to_pylist()
    ]
    assert len({row["key"] for row in rows}) == len(rows)
    return {row["key"]: row for row in rows}


def check_pictures(out: Path, suite: Path) -> None:
    """Every stored picture is the server's, pixel by pixel."""
    rows = rows_of(out)
    prompts = [json.loads(line) for line in suite.read_text().splitlines()]
    assert len(rows) == len(prompts)
    for prompt in prompts:
        row = rows[f"{prompt['id']}/0"]
        draw = make_draw(Prompt(prompt["id"], prompt["text"]), 0, 0)
        assert row["seed"] == draw.seed
        expected = picture(prompt["text"], seed_sent(draw), SIDE, SIDE)
        assert (decode_image(row["image"]["bytes"]) == expected).all()


def test_a_run_with_failures_is_resumed_to_completion(sar_eval, tmp_path: Path) -> None:
    suite, out = suite_of(tmp_path / "suite.jsonl", *FAULTS), tmp_path / "run"
    with serving_images(usage={"total_tokens": 5}) as server:
        first = sar_eval(*words_of(server, suite, out, price=0.04))
        assert first.returncode == 3, first.stderr
        assert "Traceback" not in first.stderr
        summary = json.loads(first.stdout)
        assert (summary["expected"], summary["generated"], summary["failed"]) == (6, 3, 3)
        problems = "\n".join(summary["problems"])
        for why in (
            "refused for its content",
            "returned 400: failed with 400",
            "a picture of 64x32 pixels",
        ):
            assert why in problems
        again = sar_eval(*words_of(server, suite, out, price=0.05, concurrency=2))
        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["complete"]
        # What was there is not asked for again; 503 was retried within the first run.
        assert Counter(server.counts.values()) == {1: 2, 2: 4}
    check_pictures(out, suite)
    made = [json.loads(row["provenance"]) for row in rows_of(out).values()]
    assert sorted(row["cost"] for row in made) == [0.04] * 3 + [0.05] * 3
    assert {row["usage"]["total_tokens"] for row in made} == {5}
    assert max(row["spent"]["cost"] for row in made) == 0.16  # four came in the first run, one of no use
    spec = json.loads((out / "run.json").read_text())["spec"]
    assert (spec["checkpoint"], spec["engine"], spec["protocol"]["resolution"]) == ("painter", "server", 64)


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(sar_eval, tmp_path: Path) -> None:
    suite, out = suite_of(tmp_path / "suite.jsonl", *[""] * 12), tmp_path / "run"
    with serving_images(delay_s=0.3) as server:
        words = [*words_of(server, suite, out, concurrency=1), "-q"]
        command = [sys.executable, "-m", "sar_eval", *map(str, words)]
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        ends = time.monotonic() + 200
        while len(list((out / "generations").glob("part-*"))) < 2:
            assert time.monotonic() < ends
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        stored = set(rows_of(out))
        assert 4 <= len(stored) < 12
        time.sleep(1)  # the worker ends with its parent
        before = len(server.requests)
        done = sar_eval(*words)
        assert done.returncode == 0, done.stderr
        assert len(server.requests) - before == 12 - len(stored)
    check_pictures(out, suite)


@pytest.mark.slow
def test_a_server_that_stops_ends_the_run_and_keeps_its_pictures(sar_eval, tmp_path: Path) -> None:
    suite, out = suite_of(tmp_path / "suite.jsonl", *[""] * 6), tmp_path / "run"
    with serving_images(stops_after=3) as server:
        words = words_of(server, suite, out, concurrency=1, retries=0)
        done = sar_eval(*words)
        assert done.returncode == 3, done.stderr
        assert "stopped responding: no response" in done.stderr
        assert "run the same command again to continue" in done.stderr
        assert "Traceback" not in done.stderr
        assert sum(row["image"] is not None for row in rows_of(out).values()) == 3
        server.stops_after, server.key = 0, "needed-now"
        refused = sar_eval(*words)
        assert refused.returncode == 2, refused.stderr
        assert "returned 401" in refused.stderr
        assert "set api_key_env to its variable" in refused.stderr
        server.key = ""
        again = sar_eval(*words)
        assert again.returncode == 0, again.stderr
    check_pictures(out, suite)


@pytest.mark.slow
def test_the_key_is_in_no_file_and_not_on_the_terminal(sar_eval, tmp_path: Path) -> None:
    """The server quotes it in errors and in revised prompts."""
    suite = suite_of(tmp_path / "suite.jsonl", "", "[quote]", "[quote-prompt]", "[401]")
    out = tmp_path / "run"
    environment = {**os.environ, "IMAGES_KEY": KEY, "SAR_EVAL_DEBUG": "1"}
    with serving_images(key=KEY) as server:
        words = words_of(server, suite, out, api_key_env="IMAGES_KEY", concurrency=1)
        done = sar_eval(*words, env=environment)
        assert set(server.keys) == {f"Bearer {KEY}"}
    assert done.returncode == 2, done.stderr
    assert "returned 401: failed with 401 (is the key in IMAGES_KEY right?)" in done.stderr
    with serving_images(key="another") as other:
        wrong = sar_eval(*words_of(other, suite, out, api_key_env="IMAGES_KEY"), env=environment)
    assert wrong.returncode == 2
    assert "bad key Bearer [key]" in wrong.stderr
    with serving_images() as mistaken:
        known = words_of(mistaken, suite, out, api_key_env="IMAGES_KEY", extra=f'{{t = "{KEY}"}}')
        stored = sar_eval(*known, env=environment)
    assert stored.returncode == 2
    assert "holds the key itself" in stored.stderr
    texts = [text for run in (done, wrong, stored) for text in (run.stdout, run.stderr)]
    texts += [str(row) for row in rows_of(out).values()]
    texts += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert any("[key]" in text for text in texts)
    assert "IMAGES_KEY" in (out / "run.json").read_text()
    for spelling in (KEY, json.dumps(KEY)[1:-1], "cret/a<b", "sk-Se"):
        assert not [text[:200] for text in texts if spelling in text], spelling


def test_a_missing_server_is_an_error_before_anything_is_drawn(sar_eval_here, tmp_path: Path) -> None:
    suite, out = suite_of(tmp_path / "suite.jsonl", ""), tmp_path / "run"
    with serving_images() as server:
        pass
    code, said = sar_eval_here(*words_of(server, suite, out))
    assert code == 2
    assert "/v1/models: no response: ConnectionRefusedError" in said
    assert "Traceback" not in said
    assert not out.exists()
