"""The small commands, and the terminal's manners."""

import json
from pathlib import Path

import pytest

from sar_eval import __version__

ROOT = Path(__file__).parents[2]


def test_list_names_everything(sar_eval) -> None:
    found = json.loads(sar_eval("list", "--json").stdout)
    assert set(found) == {
        "benchmarks",
        "checkpoints",
        "families",
        "engines",
        "judges",
        "answerers",
        "scorers",
        "folds",
        "trackers",
        "training recipes",
        "recipes of train run",
    }
    assert found["training recipes"]["shapes"].startswith("GRPO on plain coloured shapes")
    assert found["answerers"].keys() >= {"server", "transformers"}
    assert found["trackers"].keys() >= {"wandb", "trackio", "mlflow", "tensorboard"}
    assert found["checkpoints"].keys() >= {"demo:pretrain", "demo:sft"}
    assert "shapes" in sar_eval("list").stdout


def test_doctor_is_content_here(sar_eval, tmp_path: Path) -> None:
    done = sar_eval("doctor", "--out", tmp_path)
    assert done.returncode == 0, done.stdout
    assert "demo:sft" in done.stdout
    findings = json.loads(sar_eval("doctor", "--json", "--out", tmp_path).stdout)
    assert {f["name"] for f in findings} >= {"python", "torch", "gpu", "disk", "benchmark shapes"}


def test_the_shipped_suite_can_be_made_again(sar_eval, tmp_path: Path) -> None:
    done = sar_eval("prompts", "make", "shapes", "--out", tmp_path / "again.jsonl")
    assert done.stdout.startswith("360 prompts")
    assert (tmp_path / "again.jsonl").read_bytes() == (ROOT / "prompts" / "shapes.jsonl").read_bytes()


def test_a_prompt_file_is_checked(sar_eval) -> None:
    stdout = sar_eval("prompts", "check", ROOT / "prompts" / "shapes.jsonl").stdout
    assert stdout.startswith("360 prompts (60 single_object")


def test_version(sar_eval) -> None:
    assert sar_eval("--version").stdout == f"sar-eval {__version__}\n"


@pytest.mark.slow
def test_quiet_and_plain_output(sar_eval, suite: Path, tmp_path: Path) -> None:
    words = ("run", "shapes", "--ckpt", "demo:sft", "--suite", suite, "--out", tmp_path / "run", "-n", 1)
    done = sar_eval(*words, "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "overall" in done.stdout
    again = sar_eval(*words)
    assert "12 of 12 images are there already" in again.stderr
    assert "\x1b" not in again.stderr


@pytest.mark.slow
def test_free_prompts_are_drawn_without_a_benchmark(sar_eval, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a photo of a red star\na ring\n")
    done = sar_eval(
        "generate", tmp_path / "mine.txt", "--ckpt", "demo:sft", "--out", tmp_path / "run", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["generated"] == 2
