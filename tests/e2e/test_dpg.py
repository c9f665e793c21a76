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
# In the official file's form: a first row to skip, a child before its parent, and a missing parent.
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


def test_the_offline_suite_draws_asks_and_folds_both_ways(sar_eval, tmp_path: Path) -> None:
    lines = (ROOT / "prompts" / "dpg-shapes.jsonl").read_text().splitlines()
    few, run = tmp_path / "few.jsonl", tmp_path / "run"
    few.write_text("\n".join(line for line in lines if json.loads(line)["id"].endswith(("-000", "-001"))))
    done = sar_eval("run", "dpg-shapes", "--ckpt", "demo:sft", "--suite", few, "--out", run, "-n", 2)
    assert done.returncode == 0, done.stderr
    for word in ("corrected", "reference", "What each quirk of the official script changes"):
        assert word in done.stdout, word
    found, graphs = rows_of(run), {p.id: p.checks["questions"] for p in load_suite(few).prompts}
    assert len(found) == 2 * len(graphs) == 20
    for key, row in found.items():
        told = answers_of(row)
        asked = [(question["id"], question["text"]) for question in graphs[key.rpartition("/")[0]]]
        assert [(question["id"], question["question"]) for question in told] == asked
        assert all(question["answer"] in ("yes", "no") for question in told)
        assert row["score"] == pytest.approx(np.mean([question["counted"] for question in told]))
    metrics = metrics_of(run)
    assert {f"{kind}{name}" for kind in ("", "reference/") for name in ("overall", "category/entity")} <= {
        *metrics
    }
    assert metrics["overall"]["value"] == pytest.approx(100 * np.mean([r["score"] for r in found.values()]))
    assert metrics["overall"]["n"] == 20
    assert metrics["reference/overall"]["n"] == 18  # the script drops the prompt whose first row it skips
    page = (run / "report.html").read_text()
    assert '<th scope="col" class="number">Reference</th>' in page
    assert graphs["color-000"][0]["text"] in page


@pytest.fixture
def official(sar_eval, cache: Path, tmp_path: Path) -> dict[str, list[np.ndarray]]:
    """The suite imported, and a padded JPEG grid for each item; the tiles as they are in the files."""
    (tmp_path / "dpg_bench").mkdir()
    (tmp_path / "dpg_bench" / "dpg_bench.csv").write_text(TABLE)
    done = sar_eval("prompts", "import", "dpg", "--from", tmp_path / "dpg_bench")
    assert done.returncode == 0, done.stderr
    assert "gone" in done.stdout  # its dependency on question 9 is told
    (tmp_path / "grids").mkdir()
    return {
        name: grid(tmp_path / "grids" / f"{name}.jpg", i) for i, name in enumerate(("first", "7", "gone"))
    }


def grid(path: Path, seed: int) -> list[np.ndarray]:
    """As SimpleAR writes them: 2x2 with black lines around and between."""
    step = SIDE + PADDING
    whole = np.zeros((2 * step + PADDING, 2 * step + PADDING, 3), np.uint8)
    places = [(PADDING + y * step, PADDING + x * step) for y in range(2) for x in range(2)]
    for number, (y, x) in enumerate(places):
        coarse = np.random.default_rng([seed, number]).integers(60, 255, (5, 5, 3), np.uint8)
        smooth = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        whole[y : y + SIDE, x : x + SIDE] = np.asarray(smooth)
    Image.fromarray(whole).save(path, quality=95)
    stored = np.asarray(Image.open(path).convert("RGB"))
    return [stored[y : y + SIDE, x : x + SIDE] for y, x in places]


def test_official_files_and_mplug_in_scores_out(
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

    model, found = MplugVqa(weights), rows_of(run)
    assert len(found) == 12
    said = set()
    for item, tiles in official.items():
        for index, pixels in enumerate(tiles):
            told = answers_of(found[f"{item}/{index}"])
            [replies] = model.answer([model.prepare(pixels)], [[row["question"] for row in told]])
            assert [row["answer"] for row in told] == [reply.text for reply in replies]
            assert [row["yes"] for row in told] == [reply.text == "yes" for reply in replies]
            assert [row["soft"] for row in told] == pytest.approx([r.soft for r in replies], abs=1e-5)
            said |= {row["answer"] for row in told}
    assert said >= {"yes", "no"}
    assert {row["judge_version"] for row in found.values()} == {f"1+mplug+1+{digest(weights)}+exact-1"}

    metrics = metrics_of(run)
    assert metrics["overall"]["value"] == pytest.approx(100 * np.mean([r["score"] for r in found.values()]))
    assert (metrics["overall"]["n"], metrics["soft"]["n"]) == (12, 12)
    # The script asks the first item two of three questions, and question 9 of the last one is nowhere.
    first = [_by_hand(answers_of(found[f"first/{i}"])[1:], {3: (2,)}) for i in range(4)]
    seven = [_by_hand(answers_of(found[f"7/{i}"]), {1: (2, 3), 2: (3,)}) for i in range(4)]
    gone = [answers_of(found[f"gone/{i}"])[0]["yes"] for i in range(4)]
    kept = [np.mean(first), np.mean(seven)]
    kept += [] if any(gone) else [np.mean([answers_of(found[f"gone/{i}"])[1]["yes"] / 2 for i in range(4)])]
    assert metrics["reference/overall"]["value"] == pytest.approx(100 * np.mean(kept))


def _by_hand(told: list[dict], parents: dict[int, tuple[int, ...]]) -> float:
    """One image in the script's way: row by row, in place."""
    scores = {row["id"]: int(row["answer"] == "yes") for row in told}
    for name, above in parents.items():
        if not all(scores[parent] for parent in above):
            scores[name] = 0
    return sum(scores.values()) / len(scores)


def test_images_that_are_missing_or_broken_are_named_and_count_as_nothing(
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
    found = rows_of(run)
    assert [key for key, row in found.items() if pd.isna(row["error"])] == [f"first/{i}" for i in range(4)]
    assert all(pd.isna(row["score"]) for row in found.values() if not pd.isna(row["error"]))
    assert metrics_of(run) == {}

    partial = sar_eval(*words, "--partial")
    assert (partial.returncode, "PARTIAL" in partial.stdout) == (0, True)
    scores = [found[f"first/{i}"]["score"] for i in range(4)]
    overall = metrics_of(run)["overall"]
    assert (overall["n"], overall["value"]) == (4, pytest.approx(100 * np.mean(scores)))


@pytest.mark.parametrize("number", [1, 3, 6])
def test_a_whole_run_has_the_official_scripts_figures(
    sar_eval, cache: Path, parity: Path, tmp_path: Path, number: int
) -> None:
    with gzip.open(parity / "dpg" / "scores.jsonl.gz", "rt") as file:
        case = [json.loads(line) for line in file][number]
    (tmp_path / "case.csv").write_text(case["csv"])
    (tmp_path / "answers.json").write_text(json.dumps(case["answers"]))
    (tmp_path / "grids").mkdir()
    for place, item in enumerate(case["answers"]):
        tiles = [tile(place, index) for index in range(4)]
        whole = np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])
        Image.fromarray(whole).save(tmp_path / "grids" / f"{item}.png")
    assert sar_eval("prompts", "import", "dpg", "--from", tmp_path / "case.csv").returncode == 0
    replay = [f"answerer={REPLAY}", f"table={tmp_path / 'answers.json'}"]
    options = [word for option in replay for word in ("--judge-option", option)]
    run = tmp_path / "run"
    done = sar_eval("score", "dpg", "--images", tmp_path / "grids", "--out", run, *options)
    assert done.returncode == 0, done.stderr
    metrics = {name: metric["value"] for name, metric in metrics_of(run).items()}
    assert case["pic_num"] == 4
    assert metrics["reference/overall"] == pytest.approx(case["expected"]["score"], rel=0, abs=1e-9)
    for kind, level in (("category", "l1"), ("detail", "l2")):
        expected = {f"reference/{kind}/{name}": value for name, value in case["expected"][level].items()}
        found = {name: value for name, value in metrics.items() if name.startswith(f"reference/{kind}/")}
        assert found == pytest.approx(expected, rel=0, abs=1e-9)
