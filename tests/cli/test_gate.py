"""`sar-eval gate`: the question, its answer, the exit code, and the files that CI systems show."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sar_eval.cli.compare import read_run
from sar_eval.cli.gate_options import WhereCiLooks
from sar_eval.cli.gate_result import exit_if_failed, tell
from sar_eval.comparisons import GateResult, Question
from sar_eval.errors import GateFailed, StorageFailed
from sar_eval.stages.save_baseline import save_baseline
from sar_eval.types import DrawProtocol, Prompt
from tests.stored_runs import scored_run

Cli = Callable[..., tuple[int, str]]
NUMBER = 240  # prompts
PROMPTS = [Prompt(f"p{n}", f"text {n}", tag=f"t{n % 2}") for n in range(NUMBER)]


def right(prompts: int, number: int = NUMBER) -> dict[str, float]:
    """The first `prompts` prompts right in both images, the others wrong."""
    return {f"p{n}/{i}": float(n < prompts) for n in range(number) for i in range(2)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A run in which so many prompts are right, or one of these scores."""
    made: dict[str, Path] = {}

    def make(scores: int | dict[str, float], **changes: object) -> Path:
        name = f"{scores} {changes}"
        if name not in made:
            scores = scores if isinstance(scores, dict) else right(scores)
            folder = tmp_path_factory.mktemp("run")
            made[name] = scored_run(folder, PROMPTS, scores, batch_size=2048, **changes)
        return made[name]

    return make


@pytest.fixture
def baseline(run, tmp_path: Path) -> Path:
    """Half of the prompts right."""
    scored = read_run(str(run(120, checkpoint="demo:pretrain")))
    save_baseline(scored, tmp_path / "base.parquet")
    return tmp_path / "base.parquet"


def written(path: Path) -> dict[str, str | None]:
    """Each test case of a JUnit file, with its failure's or error's message."""
    cases = ElementTree.parse(path).getroot().iter("testcase")
    return {c.get("name", ""): next((child.get("message") for child in c), None) for c in cases}


def test_a_run_as_good_is_shown_to_be_so(sar_eval_here: Cli, baseline: Path, run) -> None:
    code, output = sar_eval_here("gate", run(120), "--baseline", baseline)
    assert code == 0
    assert (
        "pass  Is demo:sft at most 0.010 worse than the baseline? Shown: overall +0.000, at least" in output
    )
    assert "gate passed: 1 of 1 question" in output


@pytest.mark.parametrize(
    ("right_prompts", "default", "worse", "answer"),
    [
        (130, 0, 0, "Shown: overall +0.042, at least +0.0"),
        (119, 1, 0, "Not shown: overall -0.004, at least -0.0"),
        (90, 1, 1, "No, shown to be worse: overall -0.125, at most -0.0"),
    ],
)
def test_the_two_questions(
    sar_eval_here: Cli, baseline: Path, run, right_prompts: int, default: int, worse: int, answer: str
) -> None:
    folder = run(right_prompts)
    code, output = sar_eval_here("gate", folder, "--baseline", baseline)
    assert (code, answer in output) == (default, True), output
    assert ("More prompts or images are needed: about " in output) == ("Not shown" in answer)
    assert ("error: gate failed: 1 of 1 question did not pass" in output) == (default == 1)
    code, output = sar_eval_here("gate", folder, "--baseline", baseline, "--fail-if", "worse")
    assert (code, "Is demo:sft more than 0.010 worse than the baseline?" in output) == (worse, True)
    assert (" So it passes." in output) == ("Not shown" in answer)


def test_the_tolerance_decides(sar_eval_here: Cli, baseline: Path, run) -> None:
    folder = run(114)  # -0.025
    assert sar_eval_here("gate", folder, "--baseline", baseline, "--tolerance", "0.03")[0] == 1
    code, output = sar_eval_here("gate", folder, "--baseline", baseline, "--tolerance", "0.0605")
    assert (code, "at most 0.0605 worse" in output) == (0, True), output
    assert sar_eval_here("gate", folder, "--baseline", baseline, "--tolerance", "0")[0] == 1


def test_every_measure_must_pass(sar_eval_here: Cli, baseline: Path, run) -> None:
    """Better overall, by the prompts of one task; worse in the other."""
    scores = {f"p{n}/{i}": float(n < 120 if n % 2 else n < 200) for n in range(NUMBER) for i in range(2)}
    scores |= {f"p{n}/{i}": 0.0 for n in range(81, 120, 2) for i in range(2)}
    words = ("gate", run(scores), "--baseline", baseline)
    assert sar_eval_here(*words)[0] == 0
    code, output = sar_eval_here(*words, "--measure", "overall", "--measure", "task/t1")
    assert code == 1
    assert "pass  Is demo:sft at most 0.010 worse than the baseline? Shown" in output
    assert "FAIL  Is demo:sft at most 0.010 worse than the baseline in task/t1? No, shown" in output
    assert "error: gate failed: 1 of 2 questions did not pass" in output
    assert sar_eval_here(*words, "--measure", "all")[1].count("Is demo:sft at most") == 5


def test_shown_worse_in_any_of_many_is_held_to_more_confidence(
    sar_eval_here: Cli, baseline: Path, run
) -> None:
    words = ("gate", run(112), "--baseline", baseline, "--fail-if", "worse", "--json", "--measure")
    one, many = (json.JSONDecoder().raw_decode(sar_eval_here(*words, m)[1])[0] for m in ("overall", "all"))
    assert (one["questions"][0]["confidence"], many["questions"][0]["confidence"]) == (0.95, 0.99)
    assert many["questions"][0]["upper"] > one["questions"][0]["upper"]
    assert "with 99 % confidence" in many["questions"][0]["words"]


def test_floors_need_no_baseline(sar_eval_here: Cli, baseline: Path, run) -> None:
    folder = run(120)
    code, output = sar_eval_here("gate", folder, "--floor", "overall=0.5", "--floor", "task/t0=0.51")
    assert code == 1
    assert "pass  Is overall of demo:sft at least 0.500? Yes: it is 0.500." in output
    assert "FAIL  Is task/t0 of demo:sft at least 0.510? No: it is 0.500." in output
    code, output = sar_eval_here("gate", folder, "--baseline", baseline, "--floor", "overall=0.4999")
    assert (code, "at least 0.4999? Yes: it is 0.500" in output) == (0, True), output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to hold the run against: give --baseline, or --floor NAME=VALUE"),
        (["--tolerance", "0.1"], "--tolerance is an option of a gate: give --baseline, or --floor"),
        (["--junit", "x.xml"], "--junit is an option of a gate"),
        (["--baseline", "bas.parquet"], "there is no 'bas.parquet': did you mean 'base.parquet'"),
        (["--baseline", "base.parquet", "--tolerance", "-0.1"], "--tolerance is -0.1"),
        (["--baseline", "base.parquet", "--tolerance", "nan"], "--tolerance is nan"),
        (["--baseline", "base.parquet", "--tolerance", "inf"], "--tolerance is inf"),
        (
            ["--baseline", "base.parquet", "--fail-if", "better"],
            "--fail-if is 'better': not-shown or",
        ),
        (["--baseline", "base.parquet", "--measure", "task/t3"], "did you mean 'task/t1'"),
        (["--baseline", "base.parquet", "--measure", "zzz"], "known: 'overall', 'task/t0'"),
        (
            ["--floor", "overal=0.5"],
            "--floor 'overal': there is no such measure to ask of; did you",
        ),
        (["--floor", "overall"], "--floor is 'overall': NAME=VALUE, as overall=0.58"),
        (["--floor", "overall=nan"], "--floor is 'overall=nan': NAME=VALUE"),
        (["--floor", "=1"], "--floor is '=1'"),
        (["--floor", "overall=0.1", "--floor", "overall=0.2"], "--floor 'overall' is given twice"),
        (["--floor", "overall=0", "--across", "judge"], "only `protocol` may differ"),
        (["--floor", "overall=0", "--junit", "."], "--junit . is a folder: name a file"),
        (["--floor", "overall=0", "--junit", "base.parquet/x"], "--junit base.parquet/x: "),
        (["--floor", "overall=0", "--markdown", "/dev/null"], "--markdown /dev/null is no regular file"),
        (["--floor", "overall=0", "--junit", "x", "--markdown", "./x"], "asked for twice, or the baseline"),
        (["--baseline", "base.parquet", "--junit", "base.parquet"], "asked for twice, or the baseline"),
    ],
)
def test_unusable_words(
    sar_eval_here: Cli, baseline: Path, run, monkeypatch, words: list[str], message: str
) -> None:
    folder, before = run(120), baseline.read_bytes()
    monkeypatch.chdir(baseline.parent)
    code, output = sar_eval_here("gate", folder, *words)
    assert (code, message in output, output.count("error: ")) == (2, True, 1), output
    assert baseline.read_bytes() == before


def test_an_incomplete_run_is_no_failed_gate(sar_eval_here: Cli, baseline: Path, run) -> None:
    holes = {key: score for key, score in right(150).items() if key not in ("p1/0", "p9/1")}
    words = ("gate", run(holes))
    for against in (("--baseline", baseline), ("--floor", "overall=0.5")):
        code, output = sar_eval_here(*words, *against)
        assert (code, "is incomplete: 2 of 480 images have no score" in output) == (3, True), output
        assert sar_eval_here(*words, *against, "--allow-missing", "0.01")[0] == 0


def test_other_protocols_by_name(sar_eval_here: Cli, baseline: Path, run) -> None:
    words = ("gate", run(150, protocol=DrawProtocol("x", 64, guidance=3.0)), "--baseline", baseline)
    code, output = sar_eval_here(*words)
    assert (code, "guidance is 1.0 and 3.0" in output) == (2, True)
    code, output = sar_eval_here(*words, "--across", "protocol")
    assert (code, "note: A and B have other protocols" in output) == (0, True)


def test_files_of_a_passed_and_a_failed_gate(
    sar_eval_here: Cli, baseline: Path, run, tmp_path: Path
) -> None:
    junit, markdown = tmp_path / "new" / "j.xml", tmp_path / "m.md"
    words = ("gate", run(90), "--baseline", baseline, "--junit", junit, "--markdown", markdown)
    assert sar_eval_here(*words, "--floor", "overall=0.2")[0] == 1
    message = written(junit)["overall (against the baseline)"]
    assert message is not None
    assert message.startswith("No, shown to be worse: overall -0.125, at most -0.0")
    assert written(junit)["overall (floor)"] is None
    assert "❌ sar-eval shapes: gate failed: 1 of 2 questions did not pass" in markdown.read_text()
    assert sar_eval_here(*words, "--tolerance", "0.5")[0] == 0
    assert written(junit) == {"overall (against the baseline)": None}
    assert "✅ sar-eval shapes: gate passed: 1 of 1 question" in markdown.read_text()
    # What happens before there is an answer leaves no earlier one behind.
    assert sar_eval_here(*words, "--measure", "none")[0] == 2
    assert "has not come to its end" in str(written(junit)["gate"])
    assert "no answer" in markdown.read_text()


def test_json(sar_eval_here: Cli, baseline: Path, run) -> None:
    code, output = sar_eval_here("gate", run(90), "--baseline", baseline, "--json")
    found, length = json.JSONDecoder().raw_decode(output)
    assert (code, found["passed"], output[length:].strip()) == (
        1,
        False,
        "error: gate failed: 1 of 1 question did not pass",
    )
    question = found["questions"][0]
    assert (question["asked"], question["answer"], question["limit"]) == ("not-worse", "no", 0.01)
    assert question["value"] == question["figure"] - question["baseline"] == -0.125
    assert question["lower"] < -0.125 < question["upper"] < -0.01
    assert "at most 0.010 worse" in question["words"]
    assert found["comparison"]["pairs"][0]["sentence"].startswith("A (demo:pretrain) is better than B")


def test_github_sees_annotations_and_a_summary(
    sar_eval_here: Cli, baseline: Path, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    folder = run(90)
    output = sar_eval_here("gate", folder, "--baseline", baseline)[1]
    lines = [line for line in output.splitlines() if line.startswith("::")]
    assert len(lines) == 1
    assert lines[0].startswith("::error title=sar-eval shapes::Is demo:sft at most 0.010 worse than the")
    assert "at most -0.0" in lines[0]
    output = sar_eval_here("gate", folder, "--floor", "overall=0.1")[1]
    assert "\n::notice title=sar-eval shapes::gate passed: 1 of 1 question\n" in f"\n{output}"
    assert "\n::error title=sar-eval::" in f"\n{sar_eval_here('gate', folder, '--floor', 'x=1')[1]}"
    sar_eval_here("compare", baseline, folder)
    headings = [line for line in summary.read_text().splitlines() if line.startswith("#")]
    assert summary.read_text().startswith("before\n")
    assert [line.rpartition(": ")[0] for line in headings] == [
        *(
            "### ❌ sar-eval shapes: gate failed",
            "### ✅ sar-eval shapes: gate passed",
            "### sar-eval shapes",
        ),
    ]
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    code, output = sar_eval_here("gate", folder, "--floor", "overall=0.1")
    assert (code, "note: $GITHUB_STEP_SUMMARY" in output) == (0, True)


def test_hostile_names_start_no_command(
    sar_eval_here: Cli, baseline: Path, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    evil = "::add-mask::x\n::error file=a,line=1::pwned %0A##[add-path]/x \x1b[31m"
    folder = run(90, checkpoint=evil)
    for words in (
        ("gate", folder, "--baseline", baseline),
        ("gate", folder, "--floor", "overall=0.1", "--json"),
        ("compare", baseline, folder),
        ("gate", folder, "--baseline", baseline, "--measure", evil),
        ("gate", tmp_path / evil.replace("/", ""), "--baseline", baseline),
    ):
        output = sar_eval_here(*words)[1]
        commands = [line for line in output.splitlines() if line.lstrip().startswith("::")]
        assert all(
            line.startswith(("::error title=sar-eval", "::notice title=sar-eval")) for line in commands
        )
        assert all(line.count("::") == 2 for line in commands), commands
        assert "##[add" not in output or "--json" in words
        assert "\x1b" not in output


def test_a_file_that_fails_at_the_end_loses_no_result(tmp_path: Path, capsys) -> None:
    """The folder was there when the run began."""
    (tmp_path / "gone").write_text("")
    files = WhereCiLooks(junit=tmp_path / "gone" / "j.xml")
    known = {"measure": "overall", "scale": 1, "limit": 0.5, "figure": 0.6}
    good = Question(asked="floor", answer="yes", passed=True, **known)
    bad = Question(asked="floor", answer="no", passed=False, **known)
    with pytest.raises(StorageFailed, match=r"j\.xml"):
        tell(GateResult(benchmark="b", run="r", run_path="p", questions=(good,)), files)
    failed = GateResult(benchmark="b", run="r", run_path="p", questions=(bad,))
    tell(failed, files)
    with pytest.raises(GateFailed, match="gate failed: 1 of 1 question did not pass"):
        exit_if_failed(failed)
    assert "note: cannot write" in capsys.readouterr().err


def test_compare_writes_markdown(sar_eval_here: Cli, baseline: Path, run, tmp_path: Path) -> None:
    folder = run(130)
    assert sar_eval_here("compare", baseline, folder, "--markdown", tmp_path / "c.md")[0] == 0
    text = (tmp_path / "c.md").read_text()
    assert "B (demo:sft) is better than A (demo:pretrain): overall +0.042" in text
    assert "| overall | 0.500 | 0.542 | +0.042 |" in text
    code, output = sar_eval_here("compare", baseline, folder, "--markdown", tmp_path)
    assert (code, "is a folder: name a file" in output) == (2, True)
