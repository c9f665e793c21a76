"""`prompts import` and `prompts fetch`, and the recipe that waits for what they write."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sar_eval.recipe import load_recipe
from sar_eval.suites.locate import missing_suite_hint, read_suite
from sar_eval.suites.prompts import load_suite

TABLE = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"
    "question_natural_language\n"
    'p1,"a red, round ball",,1,0,entity,whole,entity - whole (ball),Is there a ball?\n'
    'p1,"a red, round ball",,2,"1, 4",attribute,color,"attribute - color (ball, red)",Is the ball red?\n'
    "2,a star,,1,0,entity,whole,entity - whole (star),Is there a star?\n"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def official(tmp_path: Path) -> Path:
    (tmp_path / "dpg_bench").mkdir()
    (tmp_path / "dpg_bench" / "dpg_bench.csv").write_text(TABLE)
    return tmp_path / "dpg_bench"


@pytest.fixture
def mirror() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/TencentQQGYLab/ELLA/main/dpg_bench/dpg_bench.csv"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(TABLE)))
            self.end_headers()
            self.wfile.write(TABLE.encode())

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_import_writes_what_the_recipe_looks_for(sar_eval, cache: Path, official: Path) -> None:
    done = sar_eval("prompts", "import", "dpg", "--from", official)
    assert done.returncode == 0, done.stderr
    note, summary = done.stdout.splitlines()
    assert note.startswith(f"{official}/dpg_bench.csv:3: dependency 4 of p1 does not exist")
    suite = load_suite(cache / "dpg.jsonl")
    assert summary.startswith(f"2 prompts (DPG-Bench has 1,065) with 3 questions in {cache}/dpg.jsonl, ")
    assert summary.endswith(f"digest {suite.digest}; 1 notes")
    assert read_suite(load_recipe("dpg").suite) == suite
    checked = sar_eval("prompts", "check", cache / "dpg.jsonl").stdout
    assert checked.startswith("2 prompts")


def test_import_takes_the_table_alone_and_another_output_file(
    sar_eval, cache: Path, official: Path
) -> None:
    out = official / "mine.jsonl"
    done = sar_eval("prompts", "import", "dpg", "--from", official / "dpg_bench.csv", "--out", out)
    assert done.returncode == 0, done.stderr
    assert [prompt.id for prompt in load_suite(out).prompts] == ["p1", "2"]
    assert not cache.exists()


def test_fetch_downloads_and_imports(sar_eval, cache: Path, mirror: str) -> None:
    done = sar_eval("prompts", "fetch", "dpg", env=os.environ | {"SAR_EVAL_MIRROR": mirror})
    assert done.returncode == 0, done.stderr
    assert [prompt.id for prompt in load_suite(cache / "dpg.jsonl").prompts] == ["p1", "2"]
    assert (cache / "dpg_bench.csv").read_text() == TABLE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("import", "tifa", "--from", "."), "no importer for suite 'tifa': dpg"),
        (("fetch", "tifa"), "no importer for suite 'tifa': dpg"),
        (("import", "dpg", "--from", "nowhere"), "no nowhere: give ELLA's folder dpg_bench"),
        (("import", "dpg", "--from", ".", "--out", "x.csv"), "--out x.csv: the name must end in .jsonl"),
    ],
)
def test_bad_input_is_one_line(sar_eval, cache: Path, tmp_path: Path, words, message) -> None:
    done = sar_eval("prompts", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_suite_that_is_not_there_says_how_to_get_it(sar_eval, cache: Path, tmp_path: Path) -> None:
    hint = f"no {cache}/dpg.jsonl: `sar-eval prompts fetch dpg` downloads and imports it, or"
    assert missing_suite_hint(load_recipe("dpg").suite).startswith(hint)
    assert missing_suite_hint(load_recipe("geneval").suite) == ""
    done = sar_eval("run", "dpg", "--ckpt", "demo:sft", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert hint in done.stderr
    (tmp_path / "images").mkdir()
    done = sar_eval("score", "dpg", "--images", tmp_path / "images")
    assert done.returncode == 2
    assert hint in done.stderr


def test_doctor_and_list_do_without_it(sar_eval, cache: Path, tmp_path: Path) -> None:
    done = sar_eval("doctor", "--json", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    (finding,) = [f for f in json.loads(done.stdout) if f["name"] == "benchmark dpg"]
    assert finding["ok"] is None
    assert "prompts fetch dpg" in finding["detail"]
    assert "dpg" in json.loads(sar_eval("list", "--json").stdout)["benchmarks"]
