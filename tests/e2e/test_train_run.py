"""Flags and recipes are one way to a checkpoint, which says how it was made, and goes to the hub."""

import json
import shutil
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from sar_eval.documents import read_toml
from sar_eval.families.locate import DEMO
from sar_eval.storage.shards import TOKEN_SCHEMA, write_shards
from sar_eval.train.train_recipe import load_train_recipe
from tests.e2e.hub_uploads import UploadHub

Here = Callable[..., tuple[int, str]]
SHAPE = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token shards and a shape that trains at once."""
    root = tmp_path_factory.mktemp("train-run")
    rows = [{"tokens": [n, 2, 3, 4], "caption": "a ring"} for n in range(8)]
    write_shards(rows, root / "tokens", TOKEN_SCHEMA)
    (root / "shape.json").write_text(json.dumps(SHAPE))
    return root


def test_the_page_says_that_a_test_was_trained_on(work: Path, tmp_path: Path, sar_eval_here: Here) -> None:
    tokens = shutil.copytree(work / "tokens", tmp_path / "tokens")
    (tokens / "selection.json").write_text('{"prompts_of_a_test": 5}')
    code, said = sar_eval_here(*flags(work, tmp_path / "out"), "--data", tokens)
    assert code == 0, said
    assert "5 prompts of a test suite" in (tmp_path / "out" / "training.html").read_text()


def flags(work: Path, out: Path) -> list[object]:
    words = ["--data", work / "tokens", "--tokenizer", DEMO / "tokenizer", "--out", out, "--steps", 2]
    start = ["--shape", work / "shape.json", "--text-tokenizer", "demo:sft"]
    how = ["--batch-size", 4, "--warmup", 0, "--log-every", 1, "--set", "card.licence=mit"]
    return ["train", "pretrain", *words, *start, *how]


@pytest.fixture(scope="module")
def pretrained(work: Path) -> Path:
    """A checkpoint of a command with flags."""
    from sar_eval.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["sar-eval", *map(str, flags(work, work / "pretrained"))])
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code
    return work / "pretrained"


@pytest.mark.slow  # torch
def test_the_recipe_beside_a_checkpoint_makes_it_again(pretrained: Path, sar_eval_here: Here) -> None:
    again = pretrained.parent / "again"
    code, shown = sar_eval_here("train", "run", pretrained / "recipe.toml", "--out", again)
    assert code == 0, shown
    for name in ("model.safetensors", "config.json", "tokenizer.json", "recipe.toml"):
        assert (again / name).read_bytes() == (pretrained / name).read_bytes(), name
    about = json.loads((again / "sar_eval.json").read_text())
    recipe = read_toml(again / "recipe.toml")
    assert about["training"] == {
        "by": "pretrain",
        "recipe": "pretrain",
        "recipe_digest": load_train_recipe(str(again / "recipe.toml")).digest,
        "start": about["training"]["start"],
        "data": ["tokens"],
        "options": recipe["training"],
    }
    assert (again / "README.md").read_text().startswith("---\nlicense: mit\n")
    assert about["training"]["start"]["shape"] == "shape.json"
    assert recipe["training"]["batch_size"] == 4
    assert recipe["training"]["beta2"] == 0.95
    assert recipe["data"]["places"] == [str(pretrained.parent / "tokens")]


@pytest.mark.slow  # torch
def test_the_command_line_replaces_values_of_a_recipe(
    pretrained: Path, tmp_path: Path, sar_eval_here: Here
) -> None:
    words = ["train", "run", pretrained / "recipe.toml", "--out", tmp_path / "sft", "--ckpt", pretrained]
    code, shown = sar_eval_here(
        *words, "--steps", 1, "--set", "training.beta2=0.9", "--learning-rate", 1e-3
    )
    assert code == 0, shown
    recipe = read_toml(tmp_path / "sft" / "recipe.toml")
    assert recipe["training"]["steps"] == 1
    assert (recipe["training"]["beta2"], recipe["training"]["learning_rate"]) == (0.9, 1e-3)
    assert recipe["start"] == {"init": "", "shape": "", "ckpt": str(pretrained), "text_tokenizer": ""}
    about = json.loads((tmp_path / "sft" / "sar_eval.json").read_text())
    assert about["training"]["by"] == "sft"
    assert about["training"]["start"]["checkpoint"] == "pretrained"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[UploadHub]]:
    """A hub that takes uploads, and the user's own login there."""
    from huggingface_hub import constants, hf_api

    handler = type("Hub", (UploadHub,), {"files": {}, "sent": {}, "commits": [], "kind": "model"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(hf_api, "ENDPOINT", constants.ENDPOINT, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits before it tries again
    yield handler
    server.shutdown()
    server.server_close()


@pytest.mark.slow  # torch
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_an_upload_that_broke_off_is_finished_by_the_same_command(
    work: Path, pretrained: Path, hub: type[UploadHub], sar_eval_here: Here
) -> None:
    command = [*flags(work, pretrained), "--push", "org/set"]
    hub.fail_commits = 0
    code, shown = sar_eval_here(*command)
    assert (code, "run the same command again to go on" in " ".join(shown.split())) == (3, True), shown
    hub.fail_commits = 1000
    code, shown = sar_eval_here(*command)
    assert code == 0, shown
    assert "pushed to http://127.0.0.1" in shown
    assert {"model.safetensors", "sar_eval.json", "recipe.toml"} < set(hub.files)
    assert str(work) not in hub.files["recipe.toml"].decode()
    code, shown = sar_eval_here(*command, "--seed", 1)
    assert (code, "finished checkpoint, of another recipe" in " ".join(shown.split())) == (2, True)
    code, shown = sar_eval_here(*flags(work, pretrained))
    assert (code, "is already a finished checkpoint" in " ".join(shown.split())) == (2, True)


@pytest.mark.slow  # torch
def test_a_training_is_shown_in_trackers(pretrained: Path, tmp_path: Path, sar_eval_here: Here) -> None:
    words = ["train", "run", pretrained / "recipe.toml", "--out", tmp_path / "out", "--name", "mine"]
    tracker = ["--track", "tensorboard", "--tracker-option", f"folder={tmp_path / 'logs'}"]
    code, shown = sar_eval_here(*words, *tracker)
    assert code == 0, shown
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path / "logs" / "sar-eval" / "mine"))
    found.Reload()
    assert [event.step for event in found.Scalars("train/loss")] == [1, 2]


@pytest.mark.slow  # torch
def test_what_is_missing_is_asked_for(work: Path, tmp_path: Path, sar_eval_here: Here) -> None:
    out = ["--out", tmp_path / "out"]
    data = ["--data", work / "tokens", "--tokenizer", DEMO / "tokenizer"]
    for words, message in (
        (["pretrain", *out], "the number of steps is missing: training.steps, or --steps"),
        (["pretrain", *out, "--steps", 1], "no data is named: data.places, or --data"),
        (["pretrain", *out, *data[:2], "--steps", 1], "or --tokenizer"),
        (["sft", *out, *data, "--steps", 1], "or --ckpt"),
        (["run", "demo-pretrain", *out, *data, "--set", "steps=3"], "--set steps=3: TABLE.KEY=VALUE"),
        (["run", "demo-pretrian", *out], "did you mean 'demo-pretrain'"),
        (["pretrain", *out, *data, "--steps", 1, "--push", "me"], "--push is 'me'"),
        (["pretrain", *out, *data, "--steps", 1, "--init", "no such"], "no such"),
        (["pretrain", *out, *data, "--steps", 1, "--lora", 4], "training.lora adapts trained weights"),
    ):
        code, shown = sar_eval_here("train", *words)
        assert (code, message in " ".join(shown.split())) == (2, True), shown
    assert not (tmp_path / "out").exists()
