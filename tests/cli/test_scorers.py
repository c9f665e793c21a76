"""`--scorers`: numbers of any folder's images, and numbers beside a run's verdicts."""

import html
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import Run, refused
from PIL import Image

from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import Prompt
from tests import counting_scorers
from tests.stored_runs import begin_run, store_generations, store_verdicts

FILE = Path(counting_scorers.__file__)
MEAN, PICKY = f"{FILE}:MEAN", f"{FILE}:PICKY"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six pictures in two folders, of names that look like others' layouts."""
    folder = tmp_path / "images"
    for number, name in enumerate(("a", "a_0", "a_1", "b/a", "b/prompt 3", "A")):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


def summary_of(run: Path) -> dict[str, dict]:
    found = json.loads((run / "summary.json").read_text())
    return {metric["name"]: metric for metric in found["metrics"]}


def score(run: Run, images: Path, *words: str, out: str = "run"):
    base = ["score", "scores", "--images", str(images), "--out", out, "--workers", "1", "--no-report"]
    return run([*base, *words])


def test_pictures_need_no_prompts_where_no_scorer_does(in_this_process: Run, images: Path) -> None:
    done = score(in_this_process, images, "--scorers", f"colourfulness,{MEAN}", "--json")
    assert done.returncode == 0, done.stderr
    assert "6 of them without a prompt" in done.stderr
    found = summary_of(Path("run"))
    assert [m["n"] for m in found.values()] == [6, 6, 6]
    assert set(found) == {"overall", "scorer/colourfulness", "scorer/counting_scorers"}
    expected = np.mean([np.asarray(Image.open(path)).mean() for path in images.rglob("*.png")])
    assert found["scorer/counting_scorers"]["value"] == pytest.approx(expected)
    assert found["overall"]["value"] == found["scorer/colourfulness"]["value"]


def test_a_cache_that_cannot_be_written_is_named(
    in_this_process: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path / "file" / "cache"))
    done = score(in_this_process, images, "--scorers", "colourfulness")
    assert done.returncode in (2, 3)
    assert str(tmp_path / "file") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_scorer_that_reads_prompts_is_refused_where_there_are_none(
    in_this_process: Run, images: Path
) -> None:
    refused(
        score(in_this_process, images, "--scorers", PICKY), "counting_scorers", "metadata.jsonl", "--suite"
    )


def test_prompts_lie_in_text_files_beside_the_pictures(in_this_process: Run, images: Path) -> None:
    for path in list(images.rglob("*.png")):
        path.with_suffix(".txt").write_text("yes, it is\n")
    (images / "a.txt").write_text("no")
    done = score(in_this_process, images, "--scorers", PICKY)
    assert done.returncode == 3, done.stderr
    assert "1 of 6 images have no result" in done.stderr
    assert "each image counts as a prompt of its own" in done.stderr
    assert "no yes in the prompt" in done.stdout


def test_prompts_of_an_image_folder_of_datasets(in_this_process: Run, images: Path) -> None:
    rows = [
        {"file_name": str(path.relative_to(images)), "text": f"yes {number // 2}"}
        for number, path in enumerate(sorted(images.rglob("*.png")))
    ]
    (images / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = score(in_this_process, images, "--scorers", PICKY)
    assert done.returncode == 0, done.stderr
    assert "6 images of 3 prompts" in done.stderr
    assert json.loads(Path("run/summary.json").read_text())["expected"] == 6
    assert json.loads(Path("run/run.json").read_text())["spec"]["images_per_prompt"] == 2


def test_a_run_needs_prompts(in_this_process: Run) -> None:
    done = in_this_process(["run", "scores", "--ckpt", "demo:sft", "--scorers", "colourfulness"])
    refused(done, "no prompts of its own", "--suite")


KEYS = [f"p{number}/{index}" for number in range(3) for index in range(2)]


@pytest.fixture
def judged(tmp_path: Path, images: Path) -> Path:
    """A run of the benchmark shapes, whose judge gave every first image 0 and every second 1."""
    prompts = [Prompt(f"p{n}", "yes" if n else "no", tag="counting") for n in range(3)]
    spec, folder = begin_run(
        tmp_path / "judged", prompts, images_per_prompt=2, batch_size=4, judge_version="1"
    )
    files = [path.read_bytes() for path in sorted(images.rglob("*.png"))]
    store_generations(spec, folder, dict(zip(KEYS, files, strict=True)))
    store_verdicts(spec, folder, {key: float(key[-1]) for key in KEYS})
    return folder.path


def beside(run: Run, folder: Path, names: str, *words: str):
    return run(["judge", str(folder), "--scorers", names, "--no-report", "--workers", "1", *words])


def test_numbers_beside_verdicts_are_stored_named_and_summarised(
    in_this_process: Run, judged: Path
) -> None:
    before = {path: path.read_bytes() for path in (judged / "verdicts").rglob("*.parquet")}
    done = beside(in_this_process, judged, "colourfulness")
    assert done.returncode == 0, done.stderr
    stored = json.loads((judged / "run.json").read_text())
    assert [side["versions"] for side in stored["beside"]] == [{"colourfulness": "1"}]
    assert stored["spec"]["judge"] == "shapes"
    found = summary_of(judged)
    assert found["overall"]["value"] == 0.5
    assert found["scorer/colourfulness"]["n"] == 6
    assert all(path.read_bytes() == data for path, data in before.items())


@pytest.mark.slow
def test_a_scorer_that_comes_later_leaves_the_others_and_scores_only_itself(
    in_this_process: Run, judged: Path
) -> None:
    beside(in_this_process, judged, "colourfulness")
    first = {path: path.stat().st_mtime_ns for path in (judged / "verdicts").rglob("*.parquet")}
    done = beside(in_this_process, judged, f"colourfulness,{MEAN}")
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == time for path, time in first.items())
    stored = json.loads((judged / "run.json").read_text())
    assert [side["judge_options"]["scorers"] for side in stored["beside"]] == [["colourfulness"], [MEAN]]
    assert {"scorer/colourfulness", "scorer/counting_scorers"} <= summary_of(judged).keys()
    again = beside(in_this_process, judged, MEAN, "--scorer-option", "counting_scorers.plus=10")
    assert again.returncode == 0, again.stderr
    values = [pd.read_parquet(path)["score"] for path in sorted((judged / "verdicts").glob("score-*"))]
    assert len(values) == 3  # nothing computed is lost
    assert len(json.loads((judged / "run.json").read_text())["beside"]) == 3


def test_missing_numbers_are_counted_and_named(in_this_process: Run, judged: Path) -> None:
    done = beside(in_this_process, judged, PICKY)
    assert done.returncode == 3
    assert "2 images lack scores of counting_scorers: p0/0: counting_scorers: no yes" in done.stderr
    assert summary_of(judged)["scorer/counting_scorers"]["n"] == 4
    assert summary_of(judged)["overall"]["value"] == 0.5


@pytest.mark.parametrize("loss", ["a part", "the table"])
def test_numbers_that_an_interruption_left_out_are_told_by_later_commands(
    in_this_process: Run, judged: Path, loss: str
) -> None:
    beside(in_this_process, judged, "colourfulness")
    table = next((judged / "verdicts").glob("score-*"))
    if loss == "a part":
        max(table.glob("part-*")).unlink()
    else:
        shutil.rmtree(table)
    number = 2 if loss == "a part" else 6
    for command in ("summarize", "report"):
        done = in_this_process([command, str(judged)])
        assert done.returncode == 3, command
        assert f"{number} images lack scores of colourfulness" in done.stderr
    done = in_this_process(["summarize", str(judged), "--partial"])
    assert done.returncode == 0
    assert f"note: {number} images lack scores of colourfulness" in done.stderr
    assert beside(in_this_process, judged, "colourfulness").returncode == 0
    assert in_this_process(["summarize", str(judged)]).returncode == 0


def test_code_that_run_json_names_beside_the_verdicts_is_not_run(
    in_this_process: Run, judged: Path, tmp_path: Path
) -> None:
    beside(in_this_process, judged, "colourfulness")
    ran, code = tmp_path / "ran", tmp_path / "code.py"
    code.write_text(f"open({str(ran)!r}, 'w')\nfrom tests.counting_scorers import MEAN\n")
    folder = RunFolder(judged)
    [side] = folder.read_manifest().beside
    named = {**side, "judge_options": {"scorers": [f"{code}:MEAN"]}}
    folder.write_manifest(replace(folder.read_manifest(), beside=(named,)))
    refused(beside(in_this_process, judged, "colourfulness"), "code.py", "would be run", "--scorers")
    for command in ("summarize", "report", "verify"):
        in_this_process([command, str(judged)])
    assert not ran.exists()


def test_a_scorer_that_fails_takes_nothing_from_the_others(in_this_process: Run, judged: Path) -> None:
    done = beside(in_this_process, judged, f"colourfulness,{PICKY}")
    assert done.returncode == 3
    found = summary_of(judged)
    assert (found["scorer/colourfulness"]["n"], found["scorer/counting_scorers"]["n"]) == (6, 4)


def test_the_verdict_itself_may_be_the_scorers(in_this_process: Run, judged: Path) -> None:
    done = beside(in_this_process, judged, "colourfulness", "--judge", "score")
    assert done.returncode == 0, done.stderr
    stored = json.loads((judged / "run.json").read_text())
    assert (stored["spec"]["judge"], stored["spec"]["fold"]) == ("score", "scores")
    assert summary_of(judged)["overall"]["value"] > 1


@pytest.mark.slow
def test_scores_of_other_versions_are_not_compared(in_this_process: Run, judged: Path) -> None:
    other = judged.with_name("other")
    shutil.copytree(judged, other)
    beside(in_this_process, judged, MEAN)
    beside(in_this_process, other, MEAN, "--scorer-option", "counting_scorers.plus=1.0")
    refused(in_this_process(["compare", str(judged), str(other)]), "scorer counting_scorers", "1+1.0")
    beside(in_this_process, other, MEAN)
    done = in_this_process(["compare", str(judged), str(other), "--json"])
    assert done.returncode == 0, done.stderr
    assert "scorer/counting_scorers" in done.stdout


def test_compare_says_how_probably_a_preference_model_prefers_the_second(
    in_this_process: Run, judged: Path, tmp_path: Path
) -> None:
    shutil.copy(FILE, tmp_path / "pickscore.py")  # its numbers stand for the real one's
    other = judged.with_name("other")
    shutil.copytree(judged, other)
    name = f"{tmp_path / 'pickscore.py'}:MEAN"
    for folder in (judged, other):
        assert beside(in_this_process, folder, f"{name},colourfulness").returncode == 0
    done = in_this_process(["compare", str(judged), str(other), "--json", "--no-report"])
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["pairs"][0]["preferences"]
    assert (found["name"], found["value"], found["n"]) == ("pickscore", 0.5, 6)
    done = in_this_process(["compare", str(judged), str(other), "--out", "page.html"])
    words = "pickscore prefers B's picture to A's with a mean probability of 0.500, 95 % interval ["
    assert words in done.stdout
    assert words in html.unescape(Path("page.html").read_text())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scorers", "colourfulness:x"], "variant"),
        (["--scorers", "colorfulness"], "did you mean 'colourfulness'"),
        (["--scorers", ""], "names"),
        (["--scorer-option", "hps.resize=aliased"], "--scorers"),
        (["--scorers", "colourfulness", "--scorer-option", "hps.resize=aliased"], "hps"),
        (["--scorers", "colourfulness", "--scorer-option", "colourfulness.x=1"], "does not take"),
        (["--scorers", "colourfulness", "--scorer-option", "colourfulness"], "NAME=VALUE"),
        (["--scorers", "colourfulness", "--scorer-option", "a.b.c=1"], "NAME=VALUE"),
    ],
)
def test_wrong_words(in_this_process: Run, judged: Path, words: list[str], message: str) -> None:
    refused(in_this_process(["judge", str(judged), *words]), message)


def test_list_says_what_a_scorers_numbers_are(in_this_process: Run) -> None:
    listed = in_this_process(["list"]).stdout
    assert "points, 0 to any; needs no prompt" in listed
