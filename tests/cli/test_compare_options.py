"""Where `sar-eval compare` writes its page, and when it does not."""

import json
from pathlib import Path

import pytest

from sar_eval.types import Prompt
from tests.stored_runs import begin_run, store_generations, store_verdicts

PROMPTS = [Prompt(f"p{n}", f"text {n}", tag=f"t{n % 2}") for n in range(6)]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        spec, folder = begin_run(tmp_path / name, PROMPTS, images_per_prompt=1, checkpoint=name)
        store_generations(spec, folder, {f"{p.id}/0": p.id.encode() for p in PROMPTS})
        store_verdicts(
            spec, folder, {f"{p.id}/0": float(name == "b" or n < 3) for n, p in enumerate(PROMPTS)}
        )
    return [Path("a"), Path("b")]


def test_the_page_lies_below_runs(sar_eval_here, runs: list[Path]) -> None:
    code, output = sar_eval_here("compare", *runs)
    assert (code, "report  runs/compare/a--b/compare.html" in output) == (0, True)
    assert Path("runs/compare/a--b/compare.html").stat().st_size > 10_000


def test_out_names_another_place(sar_eval_here, runs: list[Path]) -> None:
    code, output = sar_eval_here("compare", *runs, "--out", "new/folder/x.html", "--json")
    data = json.loads(output[output.index("{") :])
    assert (code, data["report"], Path("new/folder/x.html").is_file()) == (0, "new/folder/x.html", True)
    assert not Path("runs").exists()


def test_no_report_writes_none(sar_eval_here, runs: list[Path]) -> None:
    code, output = sar_eval_here("compare", *runs, "--no-report", "--json")
    assert (code, json.loads(output[output.index("{") :])["report"]) == (0, None)
    assert {path.name for path in Path().iterdir()} == {"a", "b"}


def test_a_page_that_cannot_be_written_is_named(sar_eval_here, runs: list[Path]) -> None:
    Path("file").write_text("")
    code, output = sar_eval_here("compare", *runs, "--out", "file/x.html")
    assert (code, "file" in output, "Traceback" in output) == (3, True, False)
