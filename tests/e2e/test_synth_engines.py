"""Sets drawn by engines that are no token engines, from the command line."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sar_eval.engines.server import seed_sent
from sar_eval.types import Draw, Prompt
from tests.fake_images_server import picture, serving_images

pytestmark = pytest.mark.slow
TEXTS = ("a red star", "a blue ring", "a green heart")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    return path


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [
        row for path in sorted(folder.glob("data/*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def _pixels(row: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))


def test_a_server_s_pictures_become_a_set(sar_eval, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    with serving_images() as server:
        options = (f"base_url={server.url}", "send_seed=true")
        named = [word for option in options for word in ("--engine-option", option)]
        words = ("synth", prompts, "--ckpt", "painter", "--engine", "server", "--resolution", 64)
        words = (*words, "--out", out, "--workers", 1, "--devices", "cpu", *named)
        done = sar_eval(*words)
        assert done.returncode == 0, done.stderr
        asked = len(server.requests)
        again = sar_eval(*words)
        assert again.returncode == 0, again.stderr
        assert len(server.requests) == asked  # all was there
    rows = _rows(out)
    assert sorted((row["text"], row["index"]) for row in rows) == [(t, 0) for t in sorted(TEXTS)]
    for row in rows:
        draw = Draw(Prompt(row["id"], row["text"]), row["index"], row["seed"])
        assert (_pixels(row) == picture(row["text"], seed_sent(draw), 64, 64)).all()


@pytest.mark.timeout(900)  # each process imports diffusers
def test_a_pipeline_s_pictures_become_a_set(sar_eval, prompts: Path, tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="needs the extra diffusers")
    from tests.tiny_pipelines import save_sd3

    pipeline, out = save_sd3(tmp_path / "sd3"), tmp_path / "set"
    words = ("synth", prompts, "--ckpt", pipeline, "--out", out, "--engine-option", "steps=2")
    done = sar_eval(*words, "--workers", 1)
    assert done.returncode == 0, done.stderr
    rows = _rows(out)
    assert [row["text"] for row in rows] == list(TEXTS)
    assert {_pixels(row).shape for row in rows} == {(32, 32, 3)}
    assert len({_pixels(row).tobytes() for row in rows}) == len(TEXTS)
    spec = json.loads((out / "spec.json").read_text())
    assert (spec["run"]["engine"], spec["run"]["protocol"]["guidance"]) == ("diffusers", 7.0)
