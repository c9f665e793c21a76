"""What report.html holds, and that a run may go without one."""

from pathlib import Path

import numpy as np
import pytest

from sar_eval.decoding.encode_images import encode
from sar_eval.report import page
from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import Prompt
from tests.stored_runs import begin_run, store_generations
from tests.training_journals import write_journal

PROMPTS = [Prompt(f"p{n}", f"ring {n}") for n in range(6)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A finished run of six images without a judge, too large for one page."""
    monkeypatch.setattr(page, "EMBEDDED_ROWS", 0)
    images = {
        f"{p.id}/0": encode(np.full((8, 8, 3), 9 * n, np.uint8), "png") for n, p in enumerate(PROMPTS)
    }
    spec, folder = begin_run(tmp_path / "run", PROMPTS, images_per_prompt=1, judge="", fold="")
    store_generations(spec, folder, images)
    return folder


def pictures(run: RunFolder) -> set[str]:
    return {path.stem for path in (run.path / "report_assets").glob("*.png")}


def test_images_and_image(sar_eval_here, run: RunFolder) -> None:
    assert sar_eval_here("report", run.path)[0] == 0
    assert len(pictures(run)) == 6
    assert sar_eval_here("report", run.path, "--images", 2, "--image", "p5/0", "--image", "p4/0")[0] == 0
    assert pictures(run) == {"p0_0", "p1_0", "p4_0", "p5_0"}


@pytest.mark.parametrize(
    "words", [("--images", "-1"), ("--images", "many"), ("--image", "p6/0"), ("--image", "")]
)
def test_unusable_values_are_refused(sar_eval_here, run: RunFolder, words: tuple[str, ...]) -> None:
    code, output = sar_eval_here("report", run.path, *words)
    assert code == 2
    assert "Traceback" not in output


@pytest.mark.slow
def test_generate_without_a_report(sar_eval_here, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    words = ("generate", tmp_path / "prompts.txt", "--ckpt", "demo:sft", "--out", tmp_path / "run")
    code, output = sar_eval_here(*words, "--no-report")
    assert code == 0, output
    assert not (tmp_path / "run" / "report.html").exists()
    assert "report " not in output
    assert sar_eval_here("report", tmp_path / "run")[0] == 0
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_report_of_a_training_is_its_page(sar_eval_here, tmp_path: Path) -> None:
    folder = write_journal(tmp_path / "grpo", 12)
    code, shown = sar_eval_here("report", folder)
    assert code == 0, shown
    assert shown.strip().replace("\n", "") == str(folder / "training.html")
    assert "12 steps" in (folder / "training.html").read_text()
    code, shown = sar_eval_here("report", folder, "--images", 3)
    assert (code, "is a training run: its page has no" in " ".join(shown.split())) == (2, True)
    (folder / "steps.parquet").write_bytes(b"PAR1")
    code, shown = sar_eval_here("report", folder)
    assert (code, "cannot be read as a part of a journal" in " ".join(shown.split())) == (2, True)
