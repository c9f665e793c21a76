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
EACH = 4  # prompts of a style


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sar_eval: Command) -> Path:
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
    done = sar_eval("prompts", "import", "hpsv2", "--from", official)
    assert done.returncode == 0, done.stderr
    return tmp_path / "images"


def test_from_the_official_files_to_a_gate(images: Path, sar_eval: Command, tmp_path: Path) -> None:
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
    assert sar_eval("baseline", "save", tmp_path / "run", baseline).returncode == 0
    refused = sar_eval("gate", tmp_path / "run", "--baseline", baseline)
    assert refused.returncode == 2
    assert "'overall' has scores of any size" in refused.stderr
    passed = sar_eval("gate", tmp_path / "run", "--baseline", baseline, "--tolerance", 50)
    assert passed.returncode == 0, passed.stderr


def test_a_missing_picture_is_named(images: Path, sar_eval: Command, tmp_path: Path) -> None:
    (images / "photo" / "00002.jpg").unlink()
    score = ("score", "hpsv2", "--images", images, "--scorers", "colourfulness", "--no-report")
    done = sar_eval(*score, "--out", tmp_path / "run")
    assert done.returncode == 3
    assert "photo-00002/0: missing" in done.stdout + done.stderr
