"""A gate at the end of a real run, as `run`, `score` and the three examples of docs/ci.md have it."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from sar_eval.cli.compare import read_run
from sar_eval.stages.save_baseline import save_baseline
from tests.warm_command import WarmCommand

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```", (ROOT / "docs" / "ci.md").read_text(), re.MULTILINE | re.DOTALL
)
FEW = ("--images-per-prompt", "2", "--quiet", "--no-report")
Cli = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, warm: WarmCommand) -> Path:
    """A folder with a small suite, a run of it, and its baseline in `ci/`."""
    folder = tmp_path_factory.mktemp("drawn")
    lines = (ROOT / "prompts" / "shapes.jsonl").read_text().splitlines()
    (folder / "small.jsonl").write_text("\n".join(lines[::30]) + "\n")
    words = ("run", "shapes", "--ckpt", "demo:sft", "--suite", "small.jsonl", *FEW, "--out", "accepted")
    assert warm.completed(words, 240, cwd=folder).returncode == 0
    (folder / "ci").mkdir()
    save_baseline(read_run(str(folder / "accepted")), folder / "ci" / "baseline.parquet")
    return folder


@pytest.fixture
def here(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, to work in."""
    shutil.copytree(drawn, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def failures(path: Path) -> list[bool]:
    """Whether each test case of a JUnit file failed."""
    return [len(case) > 0 for case in ElementTree.parse(path).getroot().iter("testcase")]


def test_a_run_ends_in_a_gate(sar_eval_here: Cli, here: Path) -> None:
    words = ("run", "shapes", "--suite", "small.jsonl", *FEW, "--out", "new", "--junit", "j.xml")
    gate = ("--baseline", "ci/baseline.parquet", "--tolerance", "0.2")
    code, output = sar_eval_here(*words, "--ckpt", "demo:pretrain", *gate, "--across", "protocol")
    assert code == 1
    assert "FAIL  Is demo:pretrain at most 0.200 worse than the baseline? No, shown to be worse" in output
    assert failures(here / "j.xml") == [True]
    # The same command again asks again, of the run that is there.
    code, output = sar_eval_here(
        *words, "--ckpt", "demo:pretrain", *gate, "--across", "protocol", "--floor", "overall=0", "--json"
    )
    found, _ = json.JSONDecoder().raw_decode(output)
    assert (code, found["gate"]["passed"], found["complete"]) == (1, False, True)
    assert [q["passed"] for q in found["gate"]["questions"]] == [False, True]


def test_a_gate_that_cannot_be_asked_stops_the_run_before_it_draws(sar_eval_here: Cli, here: Path) -> None:
    words = ("run", "shapes", "--suite", "small.jsonl", "--ckpt", "demo:sft", "--out", "new", "--quiet")
    gate = ("--baseline", "ci/baseline.parquet")
    for more, message in (
        (("-n", 2, "--guidance", 3, *gate), "--across protocol"),
        (("-n", 1, *gate), "draw as many"),
        (("-n", 2, *gate, "--measure", "task/count"), "did you mean 'task/counting'"),
        (("-n", 2, *gate, "--junit", "small.jsonl/x"), "--junit small.jsonl/x"),
        (("-n", 2, *gate, "--shard", "1/2"), "has no score of its own"),
        (("-n", 2, "--baseline", "ci/base.parquet"), "did you mean"),
        (("-n", 2, "--tolerance", 0.1), "--tolerance is an option of a gate"),
    ):
        code, output = sar_eval_here(*words, *more)
        assert (code, message in output) == (2, True), output
        assert not list(here.glob("new/generations/*.parquet"))
        shutil.rmtree(here / "new", ignore_errors=True)


def test_an_incomplete_run_is_not_gated(sar_eval_here: Cli, here: Path) -> None:
    sar_eval_here("export", "accepted", "--layout", "folder", "--out", "images")
    (here / "images" / "manifest.jsonl").unlink()
    next(here.glob("images/**/*.png")).unlink()
    words = ("score", "shapes", "--images", "images", "--suite", "small.jsonl", *FEW, "--out", "new")
    gate = ("--baseline", "ci/baseline.parquet", "--across", "protocol", "--tolerance", "0.2")
    code, output = sar_eval_here(*words, *gate)
    assert (code, "Is " in output) == (3, False), output
    code, output = sar_eval_here(*words, *gate, "--partial")
    assert (code, "is incomplete: 1 of" in output) == (3, True), output
    code, output = sar_eval_here(*words, *gate, "--partial", "--allow-missing", "0.1")
    assert (code, "pass  Is " in output) == (0, True), output


def resolved(text: str, known: Mapping[str, str]) -> str:
    """A value of the action, with what the runner fills in."""
    return re.sub(r"\$\{\{ (.*?) \}\}", lambda found: known[found[1]], text)


def bash(script: str, folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A script as the runner runs it."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def run_step(name: str, known: Mapping[str, str], folder: Path, environment: Mapping[str, str]):
    """A step of the action whose inputs and contexts are known."""
    (step,) = (step for step in ACTION["runs"]["steps"] if step.get("name") == name)
    values = {variable: resolved(text, known) for variable, text in step["env"].items()}
    return bash(step["run"], folder, environment | values)


def known_to(inputs: Mapping[str, str], temporary: Path) -> dict[str, str]:
    """What expressions of the action stand for."""
    defaults = {name: str(entry.get("default", "")) for name, entry in ACTION["inputs"].items()}
    known = {f"inputs.{name}": value for name, value in {**defaults, **inputs}.items()}
    return known | {"github.action_path": str(ROOT), "runner.temp": str(temporary)}


@pytest.fixture(scope="module")
def runner_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The runner's, after `setup-python` and the action's installation.

    What a test lacks is a network: the dependencies are those of this Python, which a path file lends.
    """
    folder = tmp_path_factory.mktemp("python")
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    lent = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "lent.pth").write_text("\n".join(lent) + "\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "GITHUB_ACTIONS": "true"}
    pip = {"NO_INDEX": "1", "NO_DEPS": "1", "NO_BUILD_ISOLATION": "0", "IGNORE_INSTALLED": "1"}
    offline = {f"PIP_{name}": value for name, value in pip.items()}
    done = run_step("Install sar-eval", known_to({}, folder), folder, environment | offline)
    assert done.returncode == 0, done.stderr
    assert (folder / "bin" / "sar-eval").is_file()
    return environment


@pytest.fixture
def runner(runner_environment: dict[str, str], here: Path, tmp_path: Path):
    """Run the action's gate with these inputs: exit code, outputs, and what was printed."""

    def run(**inputs: str) -> tuple[int, dict[str, str], str]:
        files = {name: tmp_path / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        files["GITHUB_OUTPUT"].write_text("")
        environment = runner_environment | {name: str(path) for name, path in files.items()}
        known = known_to(inputs, tmp_path / "temp")
        done = run_step("Evaluate and gate", known, here, environment)
        lines = files["GITHUB_OUTPUT"].read_text().splitlines()
        return done.returncode, dict(line.split("=", 1) for line in lines), done.stdout + done.stderr

    return run


def test_the_action_passes_fails_and_runs_no_input(runner, here: Path, tmp_path: Path) -> None:
    gate = {"target": "shapes", "baseline": "ci/baseline.parquet", "tolerance": "0.2"}
    few = "--suite=small.jsonl\n--images-per-prompt=2\n\n--floor=overall=0.5"
    code, outputs, printed = runner(ckpt="demo:sft", arguments=few, **gate)
    assert (code, outputs.get("passed")) == (0, "true"), printed
    assert failures(Path(outputs["junit"])) == [False, False]
    assert Path(outputs["summary"]).read_text() in (tmp_path / "github_step_summary").read_text()
    assert (tmp_path / "temp" / "sar-eval" / "run" / "report.html").is_file()
    assert "::notice title=sar-eval shapes::gate passed" in printed
    shutil.rmtree(tmp_path / "temp")
    code, outputs, printed = runner(ckpt="demo:pretrain", arguments=f"{few}\n--across=protocol", **gate)
    assert (code, outputs["passed"], failures(Path(outputs["junit"]))) == (1, "false", [True, True]), (
        printed
    )
    assert "::error title=sar-eval shapes::Is demo:pretrain at most 0.200 worse" in printed
    for evil in ('"; touch pwned; "', "$(touch pwned)", "`touch pwned`", "x\npassed=true", "--help"):
        assert runner(ckpt=evil, arguments=few, **gate)[:2] == (2, outputs | {"passed": ""})
        if evil != "--help":
            assert runner(ckpt="demo:sft", arguments=f"{few}\n{evil}", **gate)[0] == 2
    assert not list(here.rglob("pwned"))


def test_the_action_is_pinned_and_keeps_inputs_out_of_its_scripts() -> None:
    steps = ACTION["runs"]["steps"]
    assert all("${{" not in step.get("run", "") for step in steps)
    assert all(re.search(r"@[0-9a-f]{40}$", step["uses"]) for step in steps if "uses" in step)
    used = set(re.findall(r"inputs\.([\w-]+)", json.dumps(steps)))
    assert used == set(ACTION["inputs"])
    assert {o["value"] for o in ACTION["outputs"].values()} == {
        f"${{{{ steps.gate.outputs.{name} }}}}" for name in ACTION["outputs"]
    }


def documented(language: str, word: str) -> str:
    """The block of docs/ci.md in this language that has this word."""
    (block,) = (text for found, text in BLOCKS if found == language and word in text)
    return block


def test_the_workflow_of_the_docs_gives_inputs_that_the_action_has() -> None:
    workflow = yaml.safe_load(documented("yaml", "actions/checkout"))
    checkout, step = workflow["jobs"]["gate"]["steps"]
    assert re.search(r"@[0-9a-f]{40}$", checkout["uses"])
    assert set(step["with"]) <= set(ACTION["inputs"])
    assert {name for name, entry in ACTION["inputs"].items() if entry.get("required")} <= set(step["with"])


@pytest.fixture
def small_world(here: Path) -> dict[str, str]:
    """An environment whose `sar-eval` takes the small suite, as the whole one takes half a minute."""
    (here / "bin").mkdir()
    shim = here / "bin" / "sar-eval"
    few = "--suite small.jsonl --images-per-prompt 2"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sar_eval "$@" {few}\n')
    shim.chmod(0o755)
    return {**os.environ, "PATH": f"{shim.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def test_gitlabs_example_runs(here: Path, small_world: dict[str, str]) -> None:
    job = yaml.safe_load(documented("yaml", "artifacts:"))["quality"]
    done = bash("\n".join(job["script"]), here, small_world | job["variables"])
    assert done.returncode in (0, 1), done.stderr
    assert failures(here / job["artifacts"]["reports"]["junit"]) == [done.returncode == 1]
    assert all((here / path).exists() for path in job["artifacts"]["paths"] if "assets" not in path)


def test_the_shells_example_runs(here: Path, small_world: dict[str, str]) -> None:
    script = documented("bash", "gate()")
    assert bash(script, here, small_world | {"CKPT": "demo:sft"}).returncode in (0, 1)
    assert bash(script, here, small_world | {"CKPT": "demo:nobody"}).returncode == 2
