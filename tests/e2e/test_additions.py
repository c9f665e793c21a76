"""One file adds a judge, an engine or a benchmark; a package does through its entry point."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PLUGIN = ROOT / "tests" / "example_plugin"


@pytest.mark.slow
def test_the_documented_examples_run(sar_eval, tmp_path: Path, suite: Path) -> None:
    words = (
        "run",
        "colourful.toml",
        "--ckpt",
        "demo:sft",
        "--suite",
        suite,
        "--out",
        tmp_path / "run",
        "--json",
    )
    done = sar_eval(*words, cwd=EXAMPLES, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    metrics = {m["name"]: m["value"] for m in json.loads(done.stdout)["metrics"]}
    assert 0 < metrics["worst_image"] <= metrics["overall"] < 1


def test_the_example_that_scores_pictures_runs(tmp_path: Path) -> None:
    paths = []
    for level in (0, 90):
        pixels = np.full((4, 4, 3), 100, np.uint8)
        pixels[:2, :, 0] += level
        paths.append(tmp_path / f"{level}.png")
        Image.fromarray(pixels).save(paths[-1])
    command = [sys.executable, EXAMPLES / "score_pictures.py", *paths]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    first, second = done.stdout.splitlines()
    assert first == f"{paths[0]} {{'colourfulness': 0.0}}"
    assert second.startswith(f"{paths[1]} {{'colourfulness': ")
    assert not second.endswith(" 0.0}")


@pytest.mark.slow
def test_an_installed_package_brings_a_judge(tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
    ]
    subprocess.run([*pip, "--target", site, PLUGIN], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    command = [sys.executable, "-m", "sar_eval", "list", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert json.loads(done.stdout)["judges"]["saturation"] == "from sar_eval_saturation:JUDGE"


def test_the_plugin_is_the_documented_example() -> None:
    assert (PLUGIN / "sar_eval_saturation.py").read_bytes() == (EXAMPLES / "saturation.py").read_bytes()
