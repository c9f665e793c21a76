"""Pictures that are no squares from prompt to report: drawn, resumed, judged, shown in their shape."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from sar_eval.storage.run_folder import RunFolder

TALL = ("--width", 64, "--height", 96)
PROMPTS = ("a photo of a red star", "a photo of a blue ring")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [{"id": f"p{n}", "text": text} for n, text in enumerate(PROMPTS)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def _pictures(run: Path) -> dict[str, bytes]:
    return {row["key"]: row["image"]["bytes"] for row in RunFolder(run).generations.rows()}


def _sizes(run: Path) -> set[tuple[int, int]]:
    return {Image.open(io.BytesIO(data)).size for data in _pictures(run).values()}


@pytest.mark.slow
def test_the_demo_draws_and_resumes_rectangles(sar_eval, prompts: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("generate", prompts, "--ckpt", "demo:sft", *TALL, "--guidance", 2, "--batch-size", 1)
    words = (*words, "--out", run, "--workers", 1)
    done = sar_eval(*words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("64x96 pixels (width x height) are drawn as asked") == 1
    assert _sizes(run) == {(64, 96)}
    before = _pictures(run)
    next((run / "generations").glob("part-000001-*")).unlink()
    again = sar_eval(*words)
    assert again.returncode == 0, again.stderr
    assert "1 of 2 images are there already" in again.stderr
    assert _pictures(run) == before
    other = sar_eval(*words, "--width", 96, "--height", 64)
    assert other.returncode == 2
    assert _pictures(run) == before


@pytest.mark.slow
def test_geneval_judges_rectangles(
    sar_eval, tiny_clip, tiny_detector, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    lines = (Path(__file__).parents[2] / "prompts" / "geneval.jsonl").read_text().splitlines()
    suite = tmp_path / "few.jsonl"
    suite.write_text("\n".join(line for line in lines if json.loads(line)["id"] in ("00000", "00180")))
    options = {
        "weights": tiny_detector,
        "clip": tiny_clip["config"],
        "clip_weights": tiny_clip["weights"],
        "threshold": 0.05,
        "counting_threshold": 0.05,
    }
    judge = [word for name, value in options.items() for word in ("--judge-option", f"{name}={value}")]
    words = ["run", "geneval", "--ckpt", tiny_checkpoint, "--suite", suite, "-n", 1, "--workers", 1, *judge]
    runs = {"wide": ("--width", 48, "--height", 32), "square": ("--resolution", 32)}
    for name, size in runs.items():
        done = sar_eval(*words, *size, "--truncate", "--out", tmp_path / name, "--json")
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        assert [summary[n] for n in ("expected", "judged", "failed")] == [2, 2, 0]
    assert _sizes(tmp_path / "wide") == {(48, 32)}
    verdicts = pd.read_parquet(tmp_path / "wide" / "verdicts" / "geneval")
    boxes = [box for evidence in verdicts["evidence"] for box in json.loads(evidence)["boxes"]]
    assert boxes
    assert all(box["mask"]["size"] == [32, 48] for box in boxes)  # height, width
    pair = (tmp_path / "wide", tmp_path / "square")
    assert sar_eval("compare", *pair, "--out", tmp_path / "page").returncode == 2
    found = sar_eval("compare", *pair, "--across", "protocol", "--json", "--out", tmp_path / "page")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["pairs"][0]["shares_noise"] is False


@pytest.mark.slow
def test_a_report_shows_the_shape(sar_eval, prompts: Path, tiny_checkpoint: Path, tmp_path: Path, watched):
    words = ("generate", prompts, "--ckpt", tiny_checkpoint, "--width", 48, "--height", 32, "--workers", 1)
    assert sar_eval(*words, "--out", tmp_path / "run").returncode == 0
    page = watched.open(tmp_path / "run" / "report.html")
    page.locator(".card").first.click()
    page.wait_for_selector("#view-image[src]")
    frame = page.locator("#frame").bounding_box()
    assert frame["width"] / frame["height"] == pytest.approx(48 / 32, rel=0.02)
    shown = page.locator(".card img").first.evaluate("image => getComputedStyle(image).objectFit")
    assert shown == "contain"  # within the square of its card
    assert watched.complaints == []
