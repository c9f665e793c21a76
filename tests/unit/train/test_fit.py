"""Training as a whole: what is refused before anything is written, and what a finished one leaves."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput, Incomplete
from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.families.simplear import find_checkpoint
from sar_eval.storage.shards import TOKEN_SCHEMA, write_shards
from sar_eval.train.fit import TrainingJob, check_tokens, fit
from sar_eval.train.scenes import make_scenes
from sar_eval.train.start import CheckpointStart, ShapeStart, find_start
from sar_eval.train.token_stream import WeightedPlace
from sar_eval.train.training_options import TrainingOptions
from sar_eval.types import DrawProtocol, Prompt, make_draw
from tests.launched_training import job, make_data, weights
from tests.token_folders import small_tokenizer

ROW = {"tokens": [1, 2, 3, 4], "caption": "a ring"}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_data(root)
    return root


@pytest.fixture(scope="module")
def pretrained(data: Path) -> Path:
    """A finished checkpoint, and as `told.json` what its progress was told."""
    told: list[tuple[int, int, float]] = []
    asked = job(data, data / "pretrained", steps=7, stop_at=6, warmup=1, log_every=3, save_every=7)
    fit(asked, lambda *call: told.append(call))
    (data / "told.json").write_text(json.dumps(told))
    return data / "pretrained"


def tokens(asked: TrainingJob, place: Path, *rows: dict[str, Any], **metadata: str) -> TrainingJob:
    """The training with these rows as its data."""
    write_shards(rows or [ROW], place, TOKEN_SCHEMA, metadata=metadata)
    return replace(asked, data=[WeightedPlace(place)])


def test_the_curve_and_the_progress_say_the_same(data: Path, pretrained: Path) -> None:
    curve = [json.loads(line) for line in (pretrained / "loss.jsonl").read_text().splitlines()]
    told = json.loads((data / "told.json").read_text())
    assert told == [[step, 6, line["loss"]] for step, line in zip((3, 6), curve, strict=True)]
    assert [line["step"] for line in curve] == [3, 6]
    assert 0 < curve[1]["lr"] < curve[0]["lr"], "the schedule goes down, and on after the last step"


def test_fine_tuning_moves_a_checkpoint_a_little_and_it_draws(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    start = find_start(data / "tokenizer", ckpt=str(pretrained))
    options = {"steps": 2, "seed": 1, "learning_rate": 1e-3}  # random weights would be far away
    fit(replace(job(data, tmp_path / "sft", **options), start=start))
    before, after = weights(pretrained), weights(tmp_path / "sft")
    assert before.keys() == after.keys()
    for name in ("model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"):
        assert 0 < (after[name] - before[name]).abs().max() < 0.01, name
    checkpoint = find_checkpoint(str(tmp_path / "sft"))
    assert checkpoint.native_resolution == 32
    assert checkpoint.config["architectures"] == ["SimpARForCausalLM"]
    with NativeEngine(str(tmp_path / "sft"), DrawProtocol("test", 32, guidance=2.0)) as engine:
        [generation] = engine.generate([make_draw(Prompt("a", "a ring"), 0, 0)])
    assert len(generation.tokens) == 16


def test_a_finished_checkpoint_is_not_overwritten(data: Path, pretrained: Path) -> None:
    files = {path.name: path.read_bytes() for path in pretrained.iterdir() if path.is_file()}
    asked = job(data, pretrained)
    for start in (asked.start, find_start(data / "tokenizer", ckpt=str(pretrained))):
        with pytest.raises(BadInput, match="is already a finished checkpoint: use another --out"):
            fit(replace(asked, start=start))
    assert {path.name: path.read_bytes() for path in pretrained.iterdir() if path.is_file()} == files


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"codebook_size": "32"}, "use 32 codes, the tokenizer in .* has 64"),
        ({"encoder": "x"}, "made with encoder x, .*name their tokenizer, or tokenize the images again"),
    ],
)
def test_tokens_of_another_tokenizer_are_refused(
    data: Path, tmp_path: Path, metadata: dict[str, str], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        fit(tokens(job(data, tmp_path / "out"), tmp_path / "tokens", **metadata))
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_is_known_by_its_encoder(data: Path, tmp_path: Path) -> None:
    same = shutil.copytree(data / "tokenizer", tmp_path / "same")
    metadata = {"codebook_size": "64", "encoder": VisualTokenizer(data / "tokenizer").encoder_digest}
    check_tokens(metadata, same)
    with pytest.raises(BadInput, match="made with encoder"):
        check_tokens(metadata, small_tokenizer(tmp_path / "other"))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([], "rows of 0 tokens"),
        ([1, 2, 3], "rows of 3 tokens"),
        ([1, 2, 3, 64], "have the code 64; .*tokenizer has 0 to 63"),
        ([1, -2, 3, 4], "have the code -2"),
    ],
)
def test_tokens_that_no_picture_has(data: Path, tmp_path: Path, codes: list[int], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        fit(tokens(job(data, tmp_path / "out"), tmp_path / "tokens", ROW | {"tokens": codes}))
    assert not (tmp_path / "out").exists()


def test_a_model_without_the_codes_is_refused(data: Path, tmp_path: Path) -> None:
    asked = tokens(job(data, tmp_path / "out"), tmp_path / "tokens", ROW | {"tokens": [1, 2, 3, 63]})
    small = ShapeStart(shape=str(data / "shape.json"), codebook_size=32)
    with pytest.raises(BadInput, match="have the code 63; the model has 0 to 31"):
        fit(replace(asked, start=small))


def test_places_without_tokens(data: Path, tmp_path: Path) -> None:
    make_scenes(tmp_path / "scenes", 1, style="clean", seed=0)
    asked = job(data, tmp_path / "out")
    for place, message in ((tmp_path, "no shard-"), (tmp_path / "scenes", "has no column tokens")):
        with pytest.raises(BadInput, match=message):
            fit(replace(asked, data=[WeightedPlace(place)]))
    assert not (tmp_path / "out").exists()


def test_a_visual_tokenizer_without_config_is_a_cosmos_one(data: Path, tmp_path: Path) -> None:
    cosmos = shutil.copytree(
        data / "tokenizer", tmp_path / "cosmos", ignore=shutil.ignore_patterns("*.json")
    )
    with pytest.raises(BadInput, match=r"use 64 codes, .* has 64000"):
        check_tokens({"codebook_size": "64"}, cosmos)
    asked = job(data, tmp_path / "out", steps=1, batch_size=1, micro=1)
    asked = tokens(asked, tmp_path / "tokens", ROW | {"tokens": [63_999, 0, 7, 8]})
    start = find_start(cosmos, shape=str(data / "shape.json"), text_tokenizer="demo:sft")
    fit(replace(asked, start=start, visual_tokenizer=cosmos))
    checkpoint = find_checkpoint(str(tmp_path / "out"))
    assert (checkpoint.codebook_size, checkpoint.native_resolution) == (64_000, 32)
    with pytest.raises(BadInput, match=r"no encoder\.jit"):
        fit(replace(asked, visual_tokenizer=tmp_path, out=tmp_path / "none"))


@pytest.mark.parametrize("text", ["{", "[1]", '{"model_type": "llama"}', '{"vocab_size": "x"}', "[" * 9999])
def test_fine_tuning_of_a_broken_checkpoint(
    data: Path, pretrained: Path, tmp_path: Path, text: str
) -> None:
    broken = shutil.copytree(pretrained, tmp_path / "broken")
    (broken / "config.json").write_text(text)
    with pytest.raises(BadInput, match=r"config\.json"):
        find_start(data / "tokenizer", ckpt=str(broken)).load("eager")


@pytest.mark.parametrize(
    ("name", "message"),
    [("tokenizer.json", r"no tokenizer\.json"), ("model.safetensors", r"no \*\.safetensors")],
)
def test_fine_tuning_of_a_checkpoint_with_a_file_missing(
    data: Path, pretrained: Path, tmp_path: Path, name: str, message: str
) -> None:
    lacking = shutil.copytree(pretrained, tmp_path / "lacking", ignore=shutil.ignore_patterns(name))
    with pytest.raises(BadInput, match=message):
        find_start(data / "tokenizer", ckpt=str(lacking)).load("eager")


def test_a_checkpoint_is_trained_with_its_own_text_tokenizer(data: Path, pretrained: Path) -> None:
    start = find_start(data / "tokenizer", ckpt=str(pretrained))
    assert isinstance(start, CheckpointStart)
    loaded = start.load("eager")
    assert loaded.model.config.vocab_size == len(loaded.tokenizer) + 64
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}


@pytest.fixture(scope="module")
def interrupted(data: Path) -> Path:
    """A training with a state of step 1."""
    with pytest.raises(Incomplete):
        fit(job(data, data / "interrupted", stop=1))
    return data / "interrupted"


@pytest.mark.parametrize("text", ["{", "[" * 9999, '{"training": NaN}', "[]", '{"training": 1}', "{}"])
def test_edited_settings_of_an_interrupted_training(
    data: Path, interrupted: Path, tmp_path: Path, text: str
) -> None:
    out = shutil.copytree(interrupted, tmp_path / "out")
    (out / "settings.json").write_text(text)
    with pytest.raises(BadInput, match=r"settings\.json"):
        fit(job(data, out))


def test_a_state_of_something_else_is_named(data: Path, interrupted: Path, tmp_path: Path) -> None:
    out = shutil.copytree(interrupted, tmp_path / "out")
    folder = out / "state" / "checkpoint-1"
    torch.save({"model": {"a": torch.zeros(2)}, "optimizer": 1}, folder / "state.pt")
    sizes = {"state.pt": (folder / "state.pt").stat().st_size}
    (folder / "state.json").write_text(json.dumps({"step": 1, "files": sizes}))
    with pytest.raises(BadInput, match=r"checkpoint-1 is no state of this training.*remove"):
        fit(job(data, out))


def test_a_folder_of_something_else_is_left_alone(data: Path, tmp_path: Path) -> None:
    """Also one of an earlier version, which had no settings beside its states."""
    (tmp_path / "state" / "checkpoint-2").mkdir(parents=True)
    with pytest.raises(BadInput, match=r"not empty and no training's folder.*Name a new folder"):
        fit(job(data, tmp_path))


def test_an_output_that_is_a_file(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(BadInput, match="cannot be made a folder"):
        fit(job(data, tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"


def test_the_end_lies_before_the_schedules() -> None:
    with pytest.raises(BadInput, match="--stop-at is 5, after the end of the schedule, --steps 4"):
        TrainingOptions(steps=4, learning_rate=1e-3, stop_at=5)
    assert TrainingOptions(steps=4, learning_rate=1e-3, stop_at=4).last_step == 4
