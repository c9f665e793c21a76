"""DPG-Bench from the command line: the offline suite, the official files with mPLUG, the official fold."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from replay_answerer import tile

from sar_eval.networks.mplug.vqa import MplugVqa
from sar_eval.networks.mplug.weights import digest
from sar_eval.suites.prompts import load_suite
from tests.mplug_files import write_tiny_mplug

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
REPLAY = f"{Path(__file__).parent / 'replay_answerer.py'}:REPLAY"
SIDE, PADDING = 72, 2
COLUMNS = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"
    "question_natural_language"
)
# In the official file's format, with a child before its parent and a missing parent.
TABLE = f"""{COLUMNS}
first,a cat on a table,,1,0,entity,whole,entity - whole (cat),Is there a cat?
first,a cat on a table,,2,0,entity,whole,entity - whole (table),Is there a table?
first,a cat on a table,,3,2,relation,spatial,"relation - spatial (cat, table, on)",Is the cat on the table?
7,"two red stars, small",,1,"2,3",attribute,color,"attribute - color (stars, red)",Are the stars red?
7,"two red stars, small",,2,3,other,count,other - count (stars == 2),Are there two stars?
7,"two red stars, small",,3,0,entity,whole,entity - whole (stars),Are there stars?
gone,a dog left of a car,,1,0,entity,whole,entity - whole (dog),Is there a dog?
gone,a dog left of a car,,2,"1,9",global,,global (style),Is the image in black and white?
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def rows_of(run: Path) -> dict[str, pd.Series]:
    verdicts = pd.read_parquet(run / "verdicts" / "vqa")
    return {row["key"]: row for _, row in verdicts.iterrows()}


def answers_of(row: pd.Series) -> list[dict]:
    return json.loads(row["evidence"])["questions"]


def metrics_of(run: Path) -> dict[str, dict]:
    return {m["name"]: m for m in json.loads((run / "summary.json").read_text())["metrics"]}


def test_the_offline_suite_is_drawn_judged_and_folded_both_ways(sar_eval, tmp_path: Path) -> None:
    lines = (ROOT / "prompts" / "dpg-shapes.jsonl").read_text().splitlines()
    few, run = tmp_path / "few.jsonl", tmp_path / "run"
    few.write_text("\n".join(line for line in lines if json.loads(line)["id"].endswith(("-000", "-001"))))
    done = sar_eval("run", "dpg-shapes", "--ckpt", "demo:sft", "--suite", few, "--out", run, "-n", 2)
    assert done.returncode == 0, done.stderr
    for word in ("corrected", "reference", "What each quirk of the official script changes"):
        assert word in done.stdout, word
    rows, graphs = rows_of(run), {p.id: p.checks["questions"] for p in load_suite(few).prompts}
    assert len(rows) == 2 * len(graphs) == 20
    for key, row in rows.items():
        answers = answers_of(row)
        questions = [(question["id"], question["text"]) for question in graphs[key.rpartition("/")[0]]]
        assert [(answer["id"], answer["question"]) for answer in answers] == questions
        assert all(answer["answer"] in ("yes", "no") for answer in answers)
        assert row["score"] == pytest.approx(np.mean([answer["counted"] for answer in answers]))
    metrics = metrics_of(run)
    assert {f"{kind}{name}" for kind in ("", "reference/") for name in ("overall", "category/entity")} <= {
        *metrics
    }
    assert metrics["overall"]["value"] == pytest.approx(100 * np.mean([r["score"] for r in rows.values()]))
    assert metrics["overall"]["n"] == 20
    assert metrics["reference/overall"]["n"] == 18  # the script drops the prompt whose first row it skips
    page = (run / "report.html").read_text()
    assert '<th scope="col" class="number">Reference</th>' in page
    assert graphs["color-000"][0]["text"] in page


@pytest.fixture
def official(sar_eval, cache: Path, tmp_path: Path) -> dict[str, list[np.ndarray]]:
    """Import the suite and write a padded JPEG grid for each item; returns the tiles after JPEG."""
    (tmp_path / "dpg_bench").mkdir()
    (tmp_path / "dpg_bench" / "dpg_bench.csv").write_text(TABLE)
    done = sar_eval("prompts", "import", "dpg", "--from", tmp_path / "dpg_bench")
    assert done.returncode == 0, done.stderr
    assert "gone" in done.stdout  # for its dependency on question 9
    (tmp_path / "grids").mkdir()
    return {
        name: grid(tmp_path / "grids" / f"{name}.jpg", i) for i, name in enumerate(("first", "7", "gone"))
    }


def grid(path: Path, seed: int) -> list[np.ndarray]:
    """As SimpleAR writes them: 2x2 with black padding and border."""
    step = SIDE + PADDING
    pixels = np.zeros((2 * step + PADDING, 2 * step + PADDING, 3), np.uint8)
    corners = [(PADDING + y * step, PADDING + x * step) for y in range(2) for x in range(2)]
    for number, (y, x) in enumerate(corners):
        coarse = np.random.default_rng([seed, number]).integers(60, 255, (5, 5, 3), np.uint8)
        smooth = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pixels[y : y + SIDE, x : x + SIDE] = np.asarray(smooth)
    Image.fromarray(pixels).save(path, quality=95)
    stored = np.asarray(Image.open(path).convert("RGB"))
    return [stored[y : y + SIDE, x : x + SIDE] for y, x in corners]


def test_official_files_are_scored_with_mplug(
    sar_eval, one_thread, official: dict[str, list[np.ndarray]], tmp_path: Path
) -> None:
    weights, run = write_tiny_mplug(tmp_path / "mplug"), tmp_path / "run"
    words = ("score", "dpg", "--images", tmp_path / "grids", "--out", run)
    without = sar_eval(*words)
    assert without.returncode == 2
    assert "`sar-eval fetch dpg`" in without.stderr
    assert not run.exists()
    done = sar_eval(*words, "--judge-option", f"weights={weights}")
    assert done.returncode == 0, done.stderr
    assert f"2x2 grids (JPEG), {PADDING} px padding and border, {SIDE}x{SIDE}" in done.stderr

    model, rows = MplugVqa(weights), rows_of(run)
    assert len(rows) == 12
    texts = set()
    for item, tiles in official.items():
        for index, pixels in enumerate(tiles):
            answers = answers_of(rows[f"{item}/{index}"])
            [outputs] = model.answer([model.prepare(pixels)], [[a["question"] for a in answers]])
            assert [a["answer"] for a in answers] == [output.text for output in outputs]
            assert [a["yes"] for a in answers] == [output.text == "yes" for output in outputs]
            assert [a["soft"] for a in answers] == pytest.approx([o.soft for o in outputs], abs=1e-5)
            texts |= {a["answer"] for a in answers}
    assert texts >= {"yes", "no"}
    assert {row["judge_version"] for row in rows.values()} == {f"1+mplug+1+{digest(weights)}+exact-1"}

    metrics = metrics_of(run)
    assert metrics["overall"]["value"] == pytest.approx(100 * np.mean([r["score"] for r in rows.values()]))
    assert (metrics["overall"]["n"], metrics["soft"]["n"]) == (12, 12)
    # The script skips the first item's first question, and the last item's question 9 does not exist.
    first = [_script_score(answers_of(rows[f"first/{i}"])[1:], {3: (2,)}) for i in range(4)]
    seven = [_script_score(answers_of(rows[f"7/{i}"]), {1: (2, 3), 2: (3,)}) for i in range(4)]
    gone = [answers_of(rows[f"gone/{i}"])[0]["yes"] for i in range(4)]
    kept = [np.mean(first), np.mean(seven)]
    kept += [] if any(gone) else [np.mean([answers_of(rows[f"gone/{i}"])[1]["yes"] / 2 for i in range(4)])]
    assert metrics["reference/overall"]["value"] == pytest.approx(100 * np.mean(kept))


def _script_score(answers: list[dict], parents: dict[int, tuple[int, ...]]) -> float:
    """An image's score as in the script: zeroed row by row, in place."""
    scores = {answer["id"]: int(answer["answer"] == "yes") for answer in answers}
    for question, parent_ids in parents.items():
        if not all(scores[parent] for parent in parent_ids):
            scores[question] = 0
    return sum(scores.values()) / len(scores)


def test_missing_and_unreadable_images_are_named_and_not_scored(
    sar_eval, official: dict[str, list[np.ndarray]], tmp_path: Path
) -> None:
    weights, run, grids = write_tiny_mplug(tmp_path / "mplug"), tmp_path / "run", tmp_path / "grids"
    (grids / "7.jpg").write_bytes(b"no image")
    (grids / "gone.jpg").unlink()
    words = ("score", "dpg", "--images", grids, "--out", run, "--judge-option", f"weights={weights}")
    done = sar_eval(*words)
    assert done.returncode == 3
    assert "no image of 1 of 3 prompts: gone" in done.stderr
    for word in ("7.jpg: unreadable image", "gone/0: missing", "INCOMPLETE"):
        assert word in done.stdout, word
    rows = rows_of(run)
    assert [key for key, row in rows.items() if pd.isna(row["error"])] == [f"first/{i}" for i in range(4)]
    assert all(pd.isna(row["score"]) for row in rows.values() if not pd.isna(row["error"]))
    assert metrics_of(run) == {}

    partial = sar_eval(*words, "--partial")
    assert (partial.returncode, "PARTIAL" in partial.stdout) == (0, True)
    scores = [rows[f"first/{i}"]["score"] for i in range(4)]
    overall = metrics_of(run)["overall"]
    assert (overall["n"], overall["value"]) == (4, pytest.approx(100 * np.mean(scores)))


@pytest.mark.parametrize("number", [1, 3, 6])
def test_a_run_has_the_official_scripts_figures(
    sar_eval, cache: Path, parity: Path, tmp_path: Path, number: int
) -> None:
    with gzip.open(parity / "dpg" / "scores.jsonl.gz", "rt") as file:
        case = [json.loads(line) for line in file][number]
    (tmp_path / "case.csv").write_text(case["csv"])
    (tmp_path / "answers.json").write_text(json.dumps(case["answers"]))
    (tmp_path / "grids").mkdir()
    for position, item in enumerate(case["answers"]):
        tiles = [tile(position, index) for index in range(4)]
        pixels = np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])
        Image.fromarray(pixels).save(tmp_path / "grids" / f"{item}.png")
    assert sar_eval("prompts", "import", "dpg", "--from", tmp_path / "case.csv").returncode == 0
    replay = [f"answerer={REPLAY}", f"table={tmp_path / 'answers.json'}"]
    options = [word for option in replay for word in ("--judge-option", option)]
    run = tmp_path / "run"
    # The tiles hold no pictures that an edge could be found between.
    words = ("score", "dpg", "--images", tmp_path / "grids", "--grid", "2x2", "--out", run)
    done = sar_eval(*words, *options)
    assert done.returncode == 0, done.stderr
    metrics = {name: metric["value"] for name, metric in metrics_of(run).items()}
    assert case["pic_num"] == 4
    assert metrics["reference/overall"] == pytest.approx(case["expected"]["score"], rel=0, abs=1e-9)
    for kind, level in (("category", "l1"), ("detail", "l2")):
        expected = {f"reference/{kind}/{name}": value for name, value in case["expected"][level].items()}
        actual = {name: value for name, value in metrics.items() if name.startswith(f"reference/{kind}/")}
        assert actual == pytest.approx(expected, rel=0, abs=1e-9)
