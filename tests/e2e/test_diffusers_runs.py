"""Runs with a pipeline of diffusers from the command line: chosen by itself, resumed, from the hub."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytest.importorskip("diffusers", reason="needs the extra diffusers")

from tests.e2e.hub_server import COMMIT, Hub
from tests.tiny_pipelines import save_sd3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # each process imports diffusers

ASKED = ("-n", 1, "--workers", 1, "--batch-size", 6, "--json", "--engine-option", "steps=2")


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd3(tmp_path_factory.mktemp("pipelines") / "sd3")


def images(folder: Path) -> dict[str, bytes]:
    rows = [row for part in folder.glob("generations/part-*") for row in pq.read_table(part).to_pylist()]
    return {row["key"]: row["image"]["bytes"] for row in rows}


def test_a_pipeline_is_drawn_by_its_engine_and_goes_on(
    sar_eval, sd3: Path, suite: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = ("run", "shapes", "--ckpt", sd3, "--suite", suite, *ASKED, "--out", out)
    done = sar_eval(*command)
    assert done.returncode == 0, done.stderr
    assert "is used without feature_extractor, image_encoder, text_encoder_3, tokenizer_3" in done.stderr
    spec = json.loads((out / "run.json").read_text())["spec"]
    assert spec["engine"] == "diffusers"
    assert spec["engine_version"].startswith("1 (diffusers 0.")
    assert spec["protocol"]["name"] == "diffusers"
    assert (spec["protocol"]["guidance"], spec["protocol"]["resolution"]) == (7.0, 32)
    assert (spec["protocol"]["prefix"], spec["protocol"]["negative_prompt"]) == ("", "")
    before = images(out)
    assert len(before) == 12
    assert len(set(before.values())) == 12
    min(out.glob("generations/part-*")).unlink()
    again = sar_eval(*command)
    assert again.returncode == 0, again.stderr
    assert images(out) == before
    other = sar_eval(*command, "--guidance", 3)
    assert other.returncode == 2, other.stderr


@pytest.fixture
def hub(sd3: Path, tmp_path: Path) -> Iterator[tuple[type[Hub], dict[str, str]]]:
    """A running hub with the pipeline `org/sd3`, which has files that nobody needs."""
    (sd3 / "sd3_all_in_one.safetensors").write_bytes(b"large")
    (sd3 / "vae" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"half")
    (sd3 / "vae" / "vae_code.py").write_text("raise SystemExit('ran')")

    class TestHub(Hub):
        """With lists of its own."""

    TestHub.folders, TestHub.requests = {"org/sd3": sd3}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), TestHub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    environment = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("HF_", "SAR_EVAL_")) and "proxy" not in k.lower()
    }
    address = f"http://127.0.0.1:{server.server_port}"
    own = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    yield TestHub, environment | own
    server.shutdown()
    server.server_close()


def test_of_the_hub_only_what_is_needed_is_downloaded(sar_eval, hub, sd3: Path) -> None:
    server, env = hub
    done = sar_eval("ckpt", "info", "org/sd3", "--json", env=env)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["checkpoint"] == f"org/sd3@{COMMIT}"
    assert "StableDiffusion3Pipeline" in facts["kind"]
    assert facts["licence"] == "stabilityai-ai-community"
    fetched = {line.partition(f"/resolve/{COMMIT}/")[2] for line in server.requests if "/resolve/" in line}
    assert "model_index.json" in fetched
    assert "vae/diffusion_pytorch_model.safetensors" in fetched
    assert not [name for name in fetched if "all_in_one" in name or "fp16" in name or name.endswith(".py")]
    local = sar_eval("ckpt", "info", f"org/sd3@{COMMIT}", "--local-only", "--json", env=env)
    assert json.loads(local.stdout)["digest"] == facts["digest"], local.stderr
    here = sar_eval("ckpt", "info", sd3)
    assert here.returncode == 0, here.stderr
    assert facts["digest"] in here.stdout
