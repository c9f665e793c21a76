"""Emu3 from the hub, in two repositories or in one: the real client against a local server."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.hub_server import COMMIT, Hub, running_hub
from tests.tiny_emu3 import write_emu3

VISION = "BAAI/Emu3-VisionTokenizer"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[type[Hub], dict[str, str]]]:
    """Both forms, and the visual tokenizer of BAAI's."""
    original = write_emu3(tmp_path / "original", shards=2)
    (original / "sar_eval.json").unlink()
    (original / "modeling_emu3.py").write_text("raise SystemExit('ran')")
    (original / "pytorch_model.bin").write_bytes(b"not needed")
    folders = {
        "org/emu3": original,
        "org/emu3-hf": write_emu3(tmp_path / "one" / "c", "transformers"),
        VISION: tmp_path / "vision",
    }
    shutil.copytree(tmp_path / "vision", tmp_path / "other")
    with running_hub(folders | {"org/other": tmp_path / "other"}, tmp_path / "hf") as running:
        yield running


def _info(sar_eval, env, *words):
    done = sar_eval("ckpt", "info", "--json", *words, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_both_repositories_are_downloaded_once_and_pinned(sar_eval, hub) -> None:
    server, env = hub
    facts = _info(sar_eval, env, "org/emu3")
    assert (facts["family"], facts["checkpoint"]) == ("emu3", f"org/emu3@{COMMIT}")
    assert facts["visual_tokenizer"].endswith(f"models--BAAI--Emu3-VisionTokenizer/snapshots/{COMMIT}")
    assert facts["notes"][0].endswith(f"pixels are of the visual tokenizer {VISION}@{COMMIT}")
    fetched = {line.rsplit("/", 1)[-1] for line in server.requests if "/resolve/" in line}
    assert {"emu3.tiktoken", "emu3_vision_tokens.txt", "model.safetensors.index.json"} <= fetched
    assert not [name for name in fetched if name.endswith((".py", ".bin"))]
    offline = env | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    again = _info(sar_eval, offline, f"org/emu3@{COMMIT}", "--local-only")
    assert again["digest"] == facts["digest"]


@pytest.mark.slow
def test_the_form_in_one_repository_asks_for_no_other(sar_eval, hub) -> None:
    server, env = hub
    facts = _info(sar_eval, env, "org/emu3-hf")
    assert facts["visual_tokenizer"].endswith(f"models--org--emu3-hf/snapshots/{COMMIT}")
    assert not [line for line in server.requests if "VisionTokenizer" in line]


@pytest.mark.slow
def test_a_visual_tokenizer_of_the_hub_is_taken_and_a_damaged_one_named(sar_eval, hub) -> None:
    server, env = hub
    facts = _info(sar_eval, env, "org/emu3", "--visual-tokenizer", "org/other")
    assert "models--org--other" in facts["visual_tokenizer"]
    assert not [line for line in server.requests if "VisionTokenizer" in line]
    [weights] = Path(env["HF_HOME"]).glob("hub/models--org--other/snapshots/*/model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.resolve().write_bytes(data)
    done = sar_eval("ckpt", "info", "org/emu3", "--visual-tokenizer", "org/other", env=env)
    assert (done.returncode, "is not what the hub published" in done.stderr) == (2, True)


@pytest.mark.slow
def test_without_the_visual_tokenizers_repository_the_message_says_what_to_name(sar_eval, hub) -> None:
    server, env = hub
    del server.folders[VISION]
    done = sar_eval("ckpt", "info", "org/emu3", env=env)
    assert done.returncode == 2
    said = re.sub(r"\s+", " ", done.stderr)
    assert f"the hub has no '{VISION}'" in said
    assert "model.safetensors of Emu3-VisionTokenizer: --visual-tokenizer FOLDER" in said
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_it_is_drawn_by_its_name(sar_eval, hub, tmp_path: Path) -> None:
    _, env = hub
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "run"
    prompts.write_text(json.dumps({"id": "a", "text": "a red ring"}))
    done = sar_eval(
        *("generate", prompts, "--ckpt", "org/emu3", "-n", 1, "--workers", 1, "--devices", "cpu"),
        *("--out", out),
        env=env,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "run.json").read_text())["spec"]["checkpoint"] == f"org/emu3@{COMMIT}"
