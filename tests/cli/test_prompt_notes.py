"""`prompts check` and `make`, the notes about suites, and files that nothing may replace."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from sar_eval.decoding.encode_images import encode
from sar_eval.stages.export import export
from sar_eval.suites.prompts import load_suite
from tests.stored_runs import begin_run, store_generations

CAT = {"tag": "t", "include": [{"class": "cats", "count": 1}], "prompt": "cats"}


def test_check_says_what_was_assumed_once(sar_eval, tmp_path: Path) -> None:
    path = tmp_path / "PartiPrompts.tsv"
    path.write_bytes("\ufeffPrompt\tCategory\na\tX\x1b[2J\nb\tY\nc\tY\n".encode())
    done = sar_eval("prompts", "check", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 prompts (1 X\\x1b[2J, 2 Y), digest ")
    assert done.stderr.count("note: ") == 1
    assert "prompts from 'Prompt', tags from 'Category'" in done.stderr


@pytest.mark.slow
def test_a_folder_of_texts_is_drawn(sar_eval_here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.b.txt").write_text("a ring\n")
    (tmp_path / "texts" / "c d.txt").write_text("a star\n")
    monkeypatch.chdir(tmp_path / "texts")
    code, output = sar_eval_here(
        "generate", ".", "--ckpt", "demo:sft", "--workers", 1, "--out", tmp_path / "run"
    )
    assert code == 0, output
    assert output.count("2 prompts, one in each .txt file") == 1
    assert output.count("1 ids were rewritten for file names") == 1
    stored = json.loads((tmp_path / "run" / "run.json").read_text())["spec"]
    assert stored["benchmark"] == "texts"


def test_check_lists_a_few_tags_of_many(sar_eval_here, tmp_path: Path) -> None:
    lines = [json.dumps({"text": "a", "tag": f"tag{i}"}) for i in range(60)]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    code, output = sar_eval_here("prompts", "check", tmp_path / "p.jsonl")
    assert code == 0
    assert "1 tag49 and 10 more tags), digest" in output
    assert "tag50" not in output


@pytest.mark.parametrize(
    "words", [("run", "shapes", "--ckpt", "demo:sft"), ("score", "shapes", "--images")]
)
def test_what_the_judge_cannot_know_is_refused_before_anything_is_drawn(
    sar_eval_here, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(CAT))
    if words[0] == "score":
        (tmp_path / "images").mkdir()
        pixels = np.zeros((8, 8, 3), np.uint8)
        (tmp_path / "images" / "00000_0.png").write_bytes(encode(pixels, "png"))
        words = (*words, str(tmp_path / "images"))
    out = tmp_path / "run"
    code, output = sar_eval_here(*words, "--suite", tmp_path / "p.jsonl", "-n", 1, "--out", out)
    assert code == 2
    assert "prompt 00000: judge 'shapes' knows no class 'cats' (known are circle, cross, diamond" in output
    assert not out.exists()


def test_a_run_without_that_judge_may_draw_them(sar_eval_here, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(CAT))
    code, output = sar_eval_here("prompts", "check", tmp_path / "p.jsonl")
    assert code == 0
    assert "note: classes that the judges geneval and shapes do not know: " in output
    assert "p.jsonl:1: 'cats' (did you mean 'cat'?)" in output
    prompts = load_suite(tmp_path / "p.jsonl").prompts
    spec, run = begin_run(tmp_path / "run", prompts, images_per_prompt=1, judge="", fold="")
    store_generations(spec, run, {})
    code, output = sar_eval_here("judge", tmp_path / "run", "--judge", "shapes")
    assert code == 2
    assert "knows no class 'cats'" in output


def test_make_follows_links(sar_eval_here, tmp_path: Path) -> None:
    (tmp_path / "real.jsonl").write_text("old")
    (tmp_path / "link.jsonl").symlink_to("real.jsonl")
    (tmp_path / "new.jsonl").symlink_to("made.jsonl")
    for name in ("link", "new"):
        out = tmp_path / f"{name}.jsonl"
        code, output = sar_eval_here("prompts", "make", "shapes", "--per-task", 1, "--out", out)
        assert code == 0, output
        assert out.is_symlink()
        assert len(load_suite(out).prompts) == 6
    assert len(load_suite(tmp_path / "made.jsonl").prompts) == 6


@pytest.mark.parametrize(
    "words", [("make", "shapes"), ("import", "dpg", "--from", "nowhere")], ids=["make", "import"]
)
def test_nothing_but_a_file_is_replaced(sar_eval_here, tmp_path: Path, words: tuple[str, ...]) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "null.jsonl").symlink_to("/dev/null")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    for name in ("pipe", "folder", "null", "loop", "x" * 300):
        out = tmp_path / f"{name}.jsonl"
        code, output = sar_eval_here("prompts", *words, "--out", out)
        assert code == 2, name
        assert f"--out {out}" in output
        assert "Traceback" not in output
    assert (tmp_path / "pipe.jsonl").is_fifo()
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("words", [("--seed", "-1"), ("--per-task", "9" * 30)])
def test_make_bounds_its_numbers(sar_eval_here, tmp_path: Path, words: tuple[str, ...]) -> None:
    code, output = sar_eval_here("prompts", "make", "geneval", "--out", tmp_path / "p.jsonl", *words)
    assert code == 2
    assert words[0] in output


def test_ids_with_dots_survive_export_and_score(sar_eval_here, tmp_path: Path) -> None:
    suite = tmp_path / "p.jsonl"
    ring = {"include": [{"class": "ring", "count": 1}]}
    rows = [{"id": name, "text": "a ring", "checks": ring} for name in ("v1.5_a", "2.0", "2.0_1")]
    suite.write_text("\n".join(map(json.dumps, rows)))
    prompts = load_suite(suite).prompts
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    images = {
        f"{p.id}/{i}": encode(pixels + 9 * n + i, "png") for n, p in enumerate(prompts) for i in (0, 1)
    }
    spec, run = begin_run(tmp_path / "run", prompts, images_per_prompt=2)
    store_generations(spec, run, images)
    assert export(run, "folder", tmp_path / "images") == 6
    (tmp_path / "images" / "manifest.jsonl").unlink()  # the names alone
    assert (tmp_path / "images" / "v1.5_a_0.png").is_file()
    words = ("--images", tmp_path / "images", "--suite", suite, "-n", 2, "--workers", 1, "--json")
    code, output = sar_eval_here("score", "shapes", *words, "--out", tmp_path / "scored")
    assert code == 0, output
    assert '"generated": 6' in output
