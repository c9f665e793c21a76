"""Benchmarks judged by a chat model, from the official files to the figures, with a local server."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from fake_chat_server import serving as serving_answers
from PIL import Image
from rubric_server import serving

from sar_eval.recipe import load_recipe, recipe_names
from sar_eval.suites.longtext import source as longtext
from sar_eval.suites.tiif import source as tiif
from sar_eval.suites.tiif.scoring import TYPES
from tests.parity_data import ROOT

SYSTEM = "Be exact."  # in place of the official text, which is not ours to show


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _pictures(folder: Path, *names: str) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in names:
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


def _figures(run: Path) -> dict[str, float | None]:
    return {m["name"]: m["value"] for m in json.loads((run / "summary.json").read_text())["metrics"]}


def _judged_by(url: str) -> list[str]:
    options = (f"url={url}", "model=judge-7b", "concurrency=1")
    return [word for option in options for word in ("--judge-option", option)]


@pytest.mark.slow
def test_tiif_from_its_files_to_its_figures(sar_eval_here, tmp_path: Path) -> None:
    """Two of the 39 types; of their four pictures one is missing, and of one the judge says nothing."""
    official = tmp_path / "official"
    for kind in TYPES:
        for name, row in (
            (tiif.PROMPTS, {"short_description": "a cat", "long_description": "one cat"}),
            (tiif.QUESTIONS, {"yn_question_list": ["Is it?", "So? "], "yn_answer_list": ["yes", "no"]}),
        ):
            path = official / name.format(kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"type": kind, **row}) + "\n")
    code, output = sar_eval_here("prompts", "import", "tiif", "--from", official)
    assert (code, "with 156 questions" in output) == (0, True), output
    lines = (tmp_path / "cache" / "tiif.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["tag"] in ("style", "text")]
    suite = tmp_path / "two.jsonl"
    suite.write_text("".join(json.dumps(row) + "\n" for row in rows))
    images = _pictures(tmp_path / "images", *(row["id"] for row in rows[:3]))
    recipe, run = tmp_path / "tiif.toml", tmp_path / "run"
    shipped = (ROOT / "benchmarks" / "tiif.toml").read_text()
    ours = shipped.replace('system_file = "tiif/system"', f'system = "{SYSTEM}"')
    recipe.write_text(ours.replace('template_file = "tiif/user"', 'template = "Look at it.\\n{questions}"'))
    with serving() as server:
        server.replies = {"Look at it.": ["Yes.\nno", "1. no\n2. yes", "Hm."]}
        words = ("score", recipe, "--images", images, "--suite", suite, "--out", run, "--partial")
        code, output = sar_eval_here(*words, *_judged_by(server.url))
    assert (code, "INCOMPLETE (the scores are of what is there)" in output) == (0, True), output
    body = server.requests[0]
    assert body["messages"][0] == {"role": "system", "content": SYSTEM}
    text, image = body["messages"][1]["content"]
    assert text["text"] == "Look at it.\nIs it?\nSo?"
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert "max_tokens" not in body
    found = _figures(run)
    assert (found["overall"], found["reference/short"], found["reference/long"]) == (0.5, 1.0, None)
    assert (found["bounds/overall_at_least"], found["bounds/overall_at_most"]) == (0.25, 0.75)


@pytest.mark.slow
def test_longtext_reads_what_stands_in_the_picture(sar_eval_here, tmp_path: Path) -> None:
    rows = [
        {
            "prompt_id": 0,
            "category": "Sign",
            "length": "short",
            "prompt": "a sign",
            "text": ["Tea", "house"],
        },
        {"prompt_id": 1, "category": "Slide", "length": "long", "prompt": "a slide", "text": ["Open now"]},
    ]
    file = tmp_path / longtext.FILES["en"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert sar_eval_here("prompts", "import", "longtext", "--from", file)[0] == 0
    images, run = _pictures(tmp_path / "images", "0000", "0001"), tmp_path / "run"
    question = load_recipe("longtext").judge_options["template"]
    digest = "10c070ac876c07e1280492dae0c3dffa453bda1fcb9bb3e03f57e7c573fa3714"
    assert hashlib.sha256(question.encode()).hexdigest() == digest  # the official one
    with serving() as server:
        server.replies = {question: ["tea HOUSE sale", "No text recognized"]}
        words = ("score", "longtext", "--images", images, "-n", "1", "--out", run)
        code, output = sar_eval_here(*words, *_judged_by(server.url))
    assert code == 0, output
    assert server.requests[0]["max_tokens"] == 1024
    found = _figures(run)
    assert (found["overall"], found["category/Sign"], found["length/long"]) == (0.5, 1.0, 0.0)
    assert found["f1"] == pytest.approx(0.4)


@pytest.mark.slow
def test_oneig_asks_each_question_as_the_suite_has_it(sar_eval_here, tmp_path: Path) -> None:
    asked = [{"id": 1, "text": "red?. Say so."}, {"id": 2, "text": "blue?", "parents": [1]}]
    row = {"id": "object_000", "text": "a ball", "tag": "object", "checks": {"questions": asked}}
    suite, run = tmp_path / "suite.jsonl", tmp_path / "run"
    suite.write_text(json.dumps(row) + "\n")
    images = _pictures(tmp_path / "images", "object_000")
    with serving_answers() as server:
        words = ("score", "oneig", "--images", images, "--suite", suite, "-n", "1", "--out", run)
        code, output = sar_eval_here(*words, *_judged_by(server.url))
    assert code == 0, output
    texts = [body["messages"][0]["content"][1]["text"] for body in server.requests]
    assert texts == ["red?. Say so.", "blue?"]
    assert _figures(run)["reference/overall"] == 0  # the server's `**Yes**, I think.` is no `Yes`


@pytest.mark.parametrize("name", [n for n in recipe_names() if n.startswith(("tiif", "unigenbench"))])
def test_texts_that_were_not_fetched_are_told(name: str, sar_eval_here, tmp_path: Path) -> None:
    suite = tmp_path / "suite.jsonl"
    suite.write_text('{"text": "a cat"}\n')
    images = _pictures(tmp_path / "images", "00000")
    words = ("score", name, "--images", images, "--suite", suite, "-n", "1")
    code, output = sar_eval_here(*words, *_judged_by("http://x"))
    assert code == 2
    assert f"`sar-eval prompts fetch {name.replace('-', '_')}` downloads it with the suite" in output
