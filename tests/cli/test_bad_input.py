"""Bad input ends with exit code 2, one clear message, and no traceback."""

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from command_line import Run, refused

TRAIN = ("--data", "x", "--tokenizer", "y", "--out", "z", "--steps", "1")
RUN = ("run", "shapes", "--ckpt", "demo:sft")


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (
            ("run", "shapes", "--ckpt", "demo:stf"),
            ["unknown checkpoint 'demo:stf'", "did you mean 'demo:sft'?"],
        ),
        (("run", "shapes", "--ckpt", "/no/such/folder"), ["neither a folder nor a shipped checkpoint"]),
        (("run", "shapes", "--ckpt", "demo:../demo/sft"), ["unknown checkpoint"]),
        (("run", "shape", "--ckpt", "demo:sft"), ["unknown benchmark 'shape'", "did you mean 'shapes'?"]),
        ((*RUN, "--engine", "nativ"), ["unknown engine 'nativ'", "did you mean 'native'?"]),
        ((*RUN, "--judge", "shaps"), ["unknown judge 'shaps'", "did you mean 'shapes'?"]),
        ((*RUN, "--workers", "-1"), ["--workers is -1"]),
        ((*RUN, "--threads", "0"), ["--threads is 0"]),
        ((*RUN, "--devices", "0,/x"), ["--devices"]),
        ((*RUN, "--batch-size", "0"), ["batch-size is 0"]),
        ((*RUN, "--images-per-prompt", "0"), ["images-per-prompt is 0"]),
        ((*RUN, "--temperature", "-1"), ["temperature is -1"]),
        ((*RUN, "--guidance", "nan"), ["guidance is nan"]),
        ((*RUN, "--top-p", "0"), ["top-p is 0"]),
        ((*RUN, "--resolution", "60"), ["resolution 60 is no multiple of 8"]),
        ((*RUN, "--resolution", "0"), ["resolution is 0: it must lie between 8 and 8192"]),
        (("score", "shapes", "--images", ".", "-n", "0"), ["images-per-prompt is 0"]),
        (
            ("train", "pretrain", *TRAIN, "--learning-rate", "-1"),
            ["--learning-rate is -1.0: it must be above 0"],
        ),
        (("train", "pretrain", *TRAIN, "--steps", "0"), ["--steps is 0: it must be at least 1"]),
        ((*RUN, "--dtype", "float8"), ["unknown dtype 'float8'"]),
        (("judge", "/no/run"), ["is not a run folder"]),
        (("prompts", "make", "geneva", "--out", "x.jsonl"), ["unknown suite 'geneva'"]),
        (
            ("prompts", "make", "dpg-shapes", "--format", "metadata", "--out", "x"),
            ["has no GenEval metadata"],
        ),
        (("train", "tokenizer", "--data", "x", "--out", "y", "--levels", "8,x"), ["--levels is '8,x'"]),
        (("train", "tokenizer", "--data", "x", "--out", "y", "--levels", "²,8"), ["--levels is '²,8'"]),
        (("train", "tokenizer", "--data", "x", "--out", "y", "--levels", "9999,9999"), ["of at most"]),
        (
            ("train", "tokenizer", "--data", "x", "--out", "y", "--learning-rate", "nan"),
            ["--learning-rate"],
        ),
        (("train", "pretrain", *TRAIN, "--learning-rate", "inf"), ["--learning-rate is inf"]),
        (("train", "pretrain", *TRAIN, "--seed", "-1"), ["--seed is -1: it must lie between 0"]),
        (
            ("train", "pretrain", *TRAIN, "--stop-at", "5"),
            ["--stop-at is 5, after the end of the schedule"],
        ),
        (("train", "sft", *TRAIN, "--ckpt", "demo:sft", "--private"), ["--private is of the repository"]),
    ],
)
@pytest.mark.slow
def test_values_that_cannot_work(
    in_this_process: Run, tmp_path: Path, words: tuple[str, ...], messages: list[str]
) -> None:
    refused(in_this_process(words), *messages)
    assert not list(tmp_path.iterdir()), "nothing is written for a refused command"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"text": "a ring"}\n{"text": "a st\n', "prompts.jsonl:2: broken JSON"),
        ('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n', "duplicate id 'a'"),
        ("", "has no prompts"),
        ('{"id": ["a"], "text": "x"}\n', "prompts.jsonl:1: the id must be text or a number"),
    ],
)
@pytest.mark.slow
def test_prompt_files_that_cannot_work(sar_eval, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    refused(sar_eval("generate", path, "--ckpt", "demo:sft", "--out", tmp_path / "run"), message)
    refused(sar_eval(*RUN, "--suite", path, "--out", tmp_path / "run"), message)
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_that_does_not_match(sar_eval, tiny_checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint.parent, copy)
    config = json.loads((copy / "decoder" / "config.json").read_text())
    (copy / "decoder" / "config.json").write_text(
        json.dumps(config | {"vocab_size": config["vocab_size"] + 1})
    )
    done = sar_eval("run", "shapes", "--ckpt", copy / "decoder", "--out", tmp_path / "run")
    refused(done, "vocab_size 120 is not 55 text ids", "+ 64 visual codes")


class _Code:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch it-ran",)


@pytest.mark.slow
def test_a_torch_file_that_holds_more_than_tensors(sar_eval, tiny_checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint.parent, copy)
    (copy / "decoder" / "model.safetensors").unlink()
    torch.save({"x": _Code()}, copy / "decoder" / "pytorch_model.bin")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    words = ("run", "shapes", "--ckpt", copy / "decoder", "--out", tmp_path / "run", "--workers", 1)
    refused(sar_eval(*words, cwd=tmp_path, env=env), "pytorch_model.bin", "no torch file of tensors alone")
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.slow
def test_a_pickle_called_safetensors(sar_eval, tiny_checkpoint: Path, tmp_path: Path, suite: Path) -> None:
    copy = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint.parent, copy)
    torch.save({"x": torch.ones(1)}, copy / "decoder" / "model.safetensors")
    words = ("--resolution", 32, "--suite", suite, "--out", tmp_path / "run", "--workers", 1)
    done = sar_eval("run", "shapes", "--ckpt", copy / "decoder", *words)
    refused(done, "no readable safetensors file")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("suite = 'shapes.jsonl'\nguidanse = 2\n", "unknown key 'guidanse'"),
        ("suite = 'shapes.jsonl'\n[protocol]\ntemprature = 2\n", "unknown key protocol.temprature"),
        ("suite = 'shapes.jsonl'\nprotocol = 2\n", "protocol must be a table"),
        ("suite = 'shapes.jsonl\n", "broken TOML"),
        ("fold = 'shapes'\n", "no key 'suite'"),
        ("suite = 'shapes.jsonl'\njudge = 'shapes'\n[judge_options]\nx = 1\n", "no option 'x'"),
        ("suite = 'shapes.jsonl'\n", "names no judge"),
    ],
)
@pytest.mark.slow
def test_recipes_that_cannot_work(sar_eval, tmp_path: Path, recipe: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(recipe)
    refused(sar_eval("run", path, "--ckpt", "demo:sft", "--out", tmp_path / "run"), message)


def test_a_file_where_the_run_should_go(sar_eval, tmp_path: Path, suite: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = sar_eval(*RUN, "--suite", suite, "--out", tmp_path / "file" / "run")
    refused(done, "cannot be a run folder", "Not a directory")


def test_a_folder_of_other_things_where_the_run_should_go(sar_eval, tmp_path: Path, suite: Path) -> None:
    done = sar_eval(*RUN, "--suite", suite, "--out", tmp_path)
    refused(done, f"--out {tmp_path} is not empty and no run folder")
    assert [path.name for path in tmp_path.iterdir()] == [suite.name]


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_an_engine_that_is_not_installed_names_its_extra(sar_eval, tmp_path: Path) -> None:
    done = sar_eval("run", "shapes", "--ckpt", "demo:sft", "--engine", "vllm", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "engine 'vllm' needs: pip install 'sar-eval[vllm]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
