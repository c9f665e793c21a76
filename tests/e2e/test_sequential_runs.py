"""`run --sequential` from the command line, with the demo checkpoints."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.warm_command import WarmCommand

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
Command = Callable[..., "subprocess.CompletedProcess[str]"]
PROMPTS = Path(__file__).parents[2] / "prompts"
OPTIONS = ("-n", "2", "--batch-size", "4", "--workers", "2", "--no-report", "-q")


def _words(suite: Path, ckpt: str, out: Path, *more: object) -> list[str]:
    words = ["run", "shapes", "--ckpt", ckpt, "--suite", suite, "--out", out, *OPTIONS, *more]
    return [str(word) for word in words]


def _sequential(baseline: Path, *more: object) -> list[object]:
    return ["--baseline", baseline, "--sequential", *more]


def _figures(run: Path) -> list[dict[str, object]]:
    return json.loads((run / "summary.json").read_text())["metrics"]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four prompts, four of each task: enough for four rounds."""
    lines = (PROMPTS / "shapes.jsonl").read_text().splitlines()
    path = tmp_path_factory.mktemp("suite") / "small.jsonl"
    path.write_text("\n".join(line for line in lines if json.loads(line)["id"][-3:] < "004"))
    return path


@pytest.fixture(scope="module")
def plain(suite: Path, tmp_path_factory: pytest.TempPathFactory, warm: WarmCommand) -> Path:
    """A whole run of demo:sft, in the order of the suite."""
    out = tmp_path_factory.mktemp("plain") / "run"
    done = warm.completed(_words(suite, "demo:sft", out), 300)
    assert done.returncode == 0, done.stderr
    return out


def test_a_worse_checkpoint_stops_early(
    suite: Path, plain: Path, sar_eval: Command, tmp_path: Path
) -> None:
    baseline, out = tmp_path / "base.parquet", tmp_path / "run"
    assert sar_eval("baseline", "save", plain, baseline).returncode == 0
    words = _words(suite, "demo:pretrain", out, *_sequential(baseline, "--json"))
    done = sar_eval(*words, "--junit", tmp_path / "junit.xml")
    assert done.returncode == 1, done.stderr
    assert "<failure " in (tmp_path / "junit.xml").read_text()
    assert "gate failed" in done.stderr
    found = json.loads(done.stdout)
    assert found["gate"]["rounds"][-1]["decision"] == "fail"
    assert found["generated"] <= found["expected"] / 2
    assert "No, shown to be worse: overall -0." in found["stopped"]
    assert (found["partial"], found["failed"]) == (True, 0)
    for command in (["report"], ["verify"], ["judge"], ["summarize"]):
        assert sar_eval(*command, out).returncode == 0, command
    assert sar_eval("export", out, "--layout", "geneval", "--out", tmp_path / "files").returncode == 0
    assert "stopped on purpose" in (out / "report.html").read_text()
    again = sar_eval(*words)
    assert (again.returncode, json.loads(again.stdout)["gate"]) == (1, found["gate"])


def test_the_same_checkpoint_ends_with_the_figures_of_a_plain_run(
    suite: Path, plain: Path, sar_eval: Command, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = sar_eval(*_words(suite, "demo:sft", out, *_sequential(plain)))
    assert done.returncode == 1, done.stderr  # so few prompts cannot exclude so small a loss
    rounds = [line for line in done.stdout.splitlines() if " images: overall " in line]
    assert len(rounds) == 4
    assert [line.rpartition(": ")[2] for line in rounds] == ["go on", "go on", "go on", "open"]
    assert "Not shown: overall +0.000, at least -0." in done.stdout
    assert _figures(out) == _figures(plain)
    lenient = sar_eval(*_words(suite, "demo:sft", out, *_sequential(plain, "--fail-if", "worse")))
    assert lenient.returncode == 0
    generous = sar_eval(*_words(suite, "demo:sft", out, *_sequential(plain, "--tolerance", "0.2")))
    assert generous.returncode == 0
    assert "Shown: overall +0.000, at least -0." in generous.stdout


def test_scripts_that_depend_on_the_order_of_prompts_give_the_same(
    sar_eval: Command, tmp_path: Path
) -> None:
    """DPG-Bench's official script skips the first row and zeroes answers row by row."""
    lines = (PROMPTS / "dpg-shapes.jsonl").read_text().splitlines()[:12]
    (tmp_path / "small.jsonl").write_text("\n".join(lines))
    words = ["run", "dpg-shapes", "--ckpt", "demo:pretrain", "--suite", tmp_path / "small.jsonl", *OPTIONS]
    plain, out = tmp_path / "plain", tmp_path / "run"
    assert sar_eval(*words, "--out", plain).returncode == 0
    done = sar_eval(*words, "--out", out, *_sequential(plain))
    assert (done.returncode, "Not shown" in done.stdout) == (1, True), done.stderr
    assert _figures(out) == _figures(plain)
    assert len(_figures(out)) > 10


def test_the_rest_can_be_drawn_without_rounds(
    suite: Path, plain: Path, sar_eval: Command, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    first = sar_eval(*_words(suite, "demo:sft", out, *_sequential(plain, "--tolerance", "0.4")))
    assert first.returncode == 0
    assert "STOPPED ON PURPOSE" in first.stdout
    assert "INCOMPLETE" not in first.stdout
    done = sar_eval(*_words(suite, "demo:sft", out))
    assert done.returncode == 0, done.stderr
    assert "STOPPED" not in done.stdout
    assert _figures(out) == _figures(plain)
    refused = sar_eval(*_words(suite, "demo:sft", plain, *_sequential(plain)))
    assert refused.returncode == 2
    assert "holds a run in the order of its suite" in refused.stderr


def test_kills_change_no_decision(suite: Path, plain: Path, sar_eval: Command, tmp_path: Path) -> None:
    question = _sequential(plain, "--json", "--tolerance", "0.2")
    whole = sar_eval(*_words(suite, "demo:sft", tmp_path / "whole", *question))
    words = _words(suite, "demo:sft", tmp_path / "killed", *question)
    for seconds in (3, 4, 5):
        process = subprocess.Popen(
            [sys.executable, "-m", "sar_eval", *words], stdout=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = sar_eval(*words)
    assert done.returncode == whole.returncode == 0
    assert json.loads(done.stdout)["gate"]["rounds"] == json.loads(whole.stdout)["gate"]["rounds"]
