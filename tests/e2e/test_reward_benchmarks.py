"""HPSv2's benchmark from the official files to a gate, with a scorer that needs no download."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sar_eval.suites.hpsv2.suite import STYLES

pytestmark = pytest.mark.slow
Command = Callable[..., "subprocess.CompletedProcess[str]"]
InProcess = Callable[..., tuple[int, str]]
EACH = 4  # prompts of a style


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sar_eval_here: InProcess) -> Path:
    """Official files imported, and pictures named as the official package names them."""
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path / "cache"))
    rng, official = np.random.default_rng(0), tmp_path / "benchmark"
    official.mkdir()
    for style in STYLES:
        (official / f"{style}.json").write_text(json.dumps([f"{style} number {n}" for n in range(EACH)]))
        (tmp_path / "images" / style).mkdir(parents=True)
        for number in range(EACH):
            pixels = rng.integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / style / f"{number:05d}.jpg")
    code, output = sar_eval_here("prompts", "import", "hpsv2", "--from", official)
    assert code == 0, output
    return tmp_path / "images"


def test_from_the_official_files_to_a_gate(
    images: Path, sar_eval: Command, sar_eval_here: InProcess, tmp_path: Path
) -> None:
    score = ("score", "hpsv2", "--images", images, "--scorers", "colourfulness", "--no-report")
    done = sar_eval(*score, "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    figures = {metric["name"]: metric for metric in json.loads(done.stdout)["metrics"]}
    assert (figures["overall"]["n"], figures["overall"]["bounds"]) == (EACH * len(STYLES), None)
    for style in STYLES:
        assert figures[f"reference/style/{style}"]["value"] == pytest.approx(
            figures[f"style/{style}"]["value"]
        )
    baseline = tmp_path / "base.parquet"
    assert sar_eval_here("baseline", "save", tmp_path / "run", baseline)[0] == 0
    code, output = sar_eval_here("gate", tmp_path / "run", "--baseline", baseline)
    assert code == 2
    assert "'overall' has scores of any size" in output
    code, output = sar_eval_here("gate", tmp_path / "run", "--baseline", baseline, "--tolerance", 50)
    assert code == 0, output


def test_a_missing_picture_is_named(images: Path, sar_eval_here: InProcess, tmp_path: Path) -> None:
    (images / "photo" / "00002.jpg").unlink()
    score = ("score", "hpsv2", "--images", images, "--scorers", "colourfulness", "--no-report")
    code, output = sar_eval_here(*score, "--out", tmp_path / "run")
    assert code == 3
    assert "photo-00002/0: missing" in output
