"""`score`: verdicts and a report of a folder of images."""

import json
import os
import random
import shutil
import struct
import zlib
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sar_eval.suites.shapes.render import render
from sar_eval.suites.shapes.scenes import arrange_scene
from tests.image_layouts import PADDED, lay_out, with_title

SUITE = ("00000", "00001", "00180")  # tasks single_object (two) and counting


def noise(path: Path, seed: int, size: tuple[int, int] = (96, 96)) -> None:
    coarse = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Three prompts of the official suite."""
    lines = (Path(__file__).parents[2] / "prompts" / "geneval.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows if row["id"] in SUITE))
    return path


@pytest.fixture
def images(tmp_path: Path, few: Path) -> Path:
    """Two images of each in the official layout, numbered as the official script does."""
    root = tmp_path / "images"
    for number, line in enumerate(few.read_text().splitlines()):
        for index in range(2):
            noise(root / f"{number:05d}" / "samples" / f"{index:05d}.png", 10 * number + index)
        (root / f"{number:05d}" / "metadata.jsonl").write_text(json.dumps(json.loads(line)["checks"]))
    return root


@pytest.fixture
def words(tiny_clip, tiny_detector, few: Path, images: Path, tmp_path: Path) -> list[object]:
    """The command with tiny networks of the real architectures."""
    options = {
        "weights": tiny_detector,
        "clip": tiny_clip["config"],
        "clip_weights": tiny_clip["weights"],
        "threshold": 0.05,
        "counting_threshold": 0.05,
    }
    judge = [word for name, value in options.items() for word in ("--judge-option", f"{name}={value}")]
    paths = ["--images", images, "--out", tmp_path / "run", "--suite", few, "-n", 2, "--workers", 1]
    return ["score", "geneval", *paths, *judge]


@pytest.mark.slow
def test_a_folder_gets_verdicts_and_a_report(sar_eval, words, tmp_path: Path) -> None:
    done = sar_eval(*words, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    counts = [summary[name] for name in ("expected", "generated", "judged", "failed")]
    assert counts == [6, 6, 6, 0]
    names = [metric["name"] for metric in summary["metrics"]]
    assert names[:3] == ["overall", "task/single_object", "task/counting"]
    assert summary["protocol"]["name"] == "images as they are, 96x96"
    verdicts = pd.read_parquet(tmp_path / "run" / "verdicts" / "geneval")
    assert len(verdicts) == 6
    boxes = [box for evidence in verdicts["evidence"] for box in json.loads(evidence)["boxes"]]
    assert boxes
    assert all(box["mask"]["size"] == [96, 96] and box["score"] > 0.05 for box in boxes)
    assert "images as they are" in (tmp_path / "run" / "report.html").read_text()
    again = sar_eval(*words, "--json")
    assert json.loads(again.stdout)["metrics"] == summary["metrics"]


@pytest.mark.slow
def test_missing_and_invalid_images_are_named_and_not_scored(
    sar_eval, words, images: Path, tmp_path: Path
) -> None:
    (images / "00000" / "samples" / "00001.png").unlink()
    (images / "00001" / "samples" / "00000.png").write_bytes(b"no image")
    noise(images / "00001" / "samples" / "00001.png", 3, (64, 96))
    Image.new("RGB", (96, 96), "red").save(images / "00002" / "samples" / "00000.png")
    words = [*words, "--same-size"]
    done = sar_eval(*words)
    assert done.returncode == 3
    for word in ("00000/1: missing", "unreadable image", "is 64x96 pixels, most are 96x96", "is blank"):
        assert word in done.stdout, word
    assert "INCOMPLETE (no scores; --partial gives them)" in done.stdout
    assert "overall" not in done.stdout
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"] == []
    assert "There are no scores" in (tmp_path / "run" / "report.html").read_text()
    partial = sar_eval(*words, "--partial")
    assert partial.returncode == 0, partial.stderr
    assert "PARTIAL" in partial.stdout
    assert "the scores are of what is there" in partial.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["partial"] is True
    assert summary["complete"] is False
    assert summary["metrics"][0]["n"] == 2
    assert "The scores below are partial" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_changed_images_are_another_run(sar_eval, words, images: Path) -> None:
    assert sar_eval(*words).returncode == 0
    noise(images / "00000" / "samples" / "00000.png", 99)
    done = sar_eval(*words)
    assert done.returncode == 2
    assert "checkpoint_digest" in done.stderr


@pytest.mark.slow
def test_an_exported_run_gets_the_same_verdicts(sar_eval, suite, tmp_path: Path) -> None:
    ran = sar_eval(
        "run", "shapes", "--ckpt", "demo:sft", "--suite", suite, "--out", tmp_path / "run", "-n", 2
    )
    assert ran.returncode == 0, ran.stderr
    for layout in ("geneval", "folder"):
        out, back = tmp_path / f"{layout}-files", tmp_path / f"{layout}-run"
        assert sar_eval("export", tmp_path / "run", "--layout", layout, "--out", out).returncode == 0
        done = sar_eval("score", "shapes", "--images", out, "--suite", suite, "--out", back, "-n", 2)
        assert done.returncode == 0, done.stderr
        columns = ["key", "passed", "score", "reason", "evidence"]
        expected, actual = (
            pd.read_parquet(folder / "verdicts" / "shapes")[columns].sort_values("key", ignore_index=True)
            for folder in (tmp_path / "run", back)
        )
        pd.testing.assert_frame_equal(actual, expected)
    metadata = (tmp_path / "geneval-files" / "00003" / "metadata.jsonl").read_text()
    assert json.loads(metadata)["include"]
    assert (tmp_path / "geneval-files" / "00003" / "samples" / "0001.png").is_file()


@pytest.mark.slow
def test_exported_grids_get_the_same_verdicts(sar_eval, suite, tmp_path: Path) -> None:
    run, out, back = (tmp_path / name for name in ("run", "grids", "back"))
    ran = sar_eval("run", "shapes", "--ckpt", "demo:sft", "--suite", suite, "--out", run)
    assert ran.returncode == 0, ran.stderr
    done = sar_eval("export", run, "--layout", "dpg", "--out", out)
    assert done.stdout == f"48 images in {out}\n"
    (out / "position-001.png").rename(tmp_path / "away.png")
    words = ("score", "shapes", "--images", out, "--suite", suite, "--out", back)
    done = sar_eval(*words)
    assert done.returncode == 3
    assert "44 images, layout grids: 2x2 grids (PNG), no padding, 64x64" in done.stderr
    assert "no image of 1 of 12 prompts: position-001" in done.stderr
    assert "position-001/3: missing" in done.stdout
    (tmp_path / "away.png").rename(out / "position-001.png")
    shutil.rmtree(back)
    done = sar_eval(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["protocol"]["name"] == (
        "images as they are, 2x2 grids (PNG), no padding, 64x64"
    )
    columns = ["key", "passed", "score", "reason", "evidence"]
    expected, actual = (
        pd.read_parquet(folder / "verdicts" / "shapes")[columns].sort_values("key", ignore_index=True)
        for folder in (run, back)
    )
    pd.testing.assert_frame_equal(actual, expected)


@pytest.mark.slow
def test_a_run_folder_is_judged_in_place(sar_eval, suite, tmp_path: Path) -> None:
    run = tmp_path / "run"
    drawn = sar_eval("generate", suite, "--ckpt", "demo:sft", "--out", run)
    assert drawn.returncode == 0, drawn.stderr
    done = sar_eval("score", "shapes", "--images", run, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["judged"] == 12
    assert len(list((run / "verdicts" / "shapes").glob("part-*"))) == 1
    done = sar_eval("score", "shapes", "--images", run, "--out", tmp_path / "other")
    assert (done.returncode, "judged in place" in done.stderr) == (2, True)


@pytest.mark.slow
def test_the_same_images_get_the_same_score_in_every_layout(sar_eval, scenes, tmp_path: Path) -> None:
    """Single files, 2x2 bare and padded, a strip, with a title, and (nearly) JPEG as SimpleAR's."""
    suite, tiles = scenes
    layouts = {
        "files": lambda shown: dict(zip(("_0", "_1", "_2", "_3"), shown, strict=True)),
        "bare": lambda shown: {"": lay_out(shown, 2, 2)},
        "padded": lambda shown: {"": lay_out(shown, 2, 2, PADDED)},
        "strip": lambda shown: {"": lay_out(shown, 1, 4, PADDED)},
        "title": lambda shown: {"": with_title(lay_out(shown, 2, 2, PADDED), "top", text=True)},
        "jpeg": lambda shown: {"": lay_out(shown, 2, 2, PADDED)},
    }
    scores, said = {}, {}
    for name, files_of in layouts.items():
        (folder := tmp_path / name).mkdir()
        for prompt, shown in tiles.items():
            for end, pixels in files_of(shown).items():
                suffix, options = (".jpg", {"quality": 75}) if name == "jpeg" else (".png", {})
                Image.fromarray(pixels).save(folder / f"{prompt}{end}{suffix}", **options)
        out = ("--out", tmp_path / f"{name}-run")
        done = sar_eval("score", "shapes", "--images", folder, "--suite", suite, "-n", 4, *out)
        assert done.returncode == 0, done.stderr
        said[name] = next(line for line in done.stderr.splitlines() if "layout" in line)
        summary = json.loads((tmp_path / f"{name}-run" / "summary.json").read_text())
        scores[name] = [metric["value"] for metric in summary["metrics"]]
    assert scores.pop("jpeg")[0] == pytest.approx(scores["files"][0], abs=0.05)
    assert all(score == scores["files"] for score in scores.values()), scores
    assert "2x2 grids (PNG), no padding, 64x64" in said["bare"]
    assert "1x4 grids (PNG), 2 px padding and border, 64x64" in said["strip"]
    assert "2, 42, 2 and 2 px left, above, right and below" in said["title"]


@pytest.fixture
def scenes(tmp_path: Path) -> tuple[Path, dict[str, list[np.ndarray]]]:
    """Twenty prompts of the shapes suite, and four scenes of each."""
    lines = (Path(__file__).parents[2] / "prompts" / "shapes.jsonl").read_text().splitlines()[::18]
    rng, tiles = random.Random(1), {}
    for line in lines:
        row = json.loads(line)
        drawn = (arrange_scene(row["checks"], rng, style="clean", train=False) for _ in range(99))
        tiles[row["id"]] = [render(scene) for scene in islice(filter(None, drawn), 4)]
    path = tmp_path / "twenty.jsonl"
    path.write_text("\n".join(lines))
    return path, tiles


@pytest.fixture
def few_scenes(scenes, tmp_path: Path) -> tuple[Path, Path]:
    """A suite of four prompts and a folder with an image of each, numbered from 1."""
    suite, tiles = scenes
    path, folder = tmp_path / "four.jsonl", tmp_path / "pictures ä"
    path.write_text("\n".join(suite.read_text().splitlines()[:4]))
    folder.mkdir()
    for prompt, shown in list(tiles.items())[:4]:
        Image.fromarray(shown[0]).save(folder / f"{prompt}_1.png")
    return path, folder


@pytest.mark.slow
def test_one_bad_file_is_named_and_the_others_are_judged(sar_eval, few_scenes, tmp_path: Path) -> None:
    suite, folder = few_scenes
    bad, bomb, *_ = sorted(folder.iterdir())
    bad.unlink()
    os.mkfifo(bad)
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + bomb.read_bytes()[24:29]
    start, rest = bomb.read_bytes()[:12], bomb.read_bytes()[33:]
    bomb.write_bytes(start + header + struct.pack(">I", zlib.crc32(header)) + rest)
    (folder / "._x.png").write_bytes(b"x")
    words = ("score", "shapes", "--images", folder, "--suite", suite, "-n", 1, "--out", tmp_path / "run")
    done = sar_eval(*words, "--json")
    assert done.returncode == 3, done.stderr
    assert "note: files are counted from 1: taken as 0 to 0" in done.stderr
    assert "note: 1 hidden files or files of the system are skipped: ._x.png" in done.stderr
    summary = json.loads(done.stdout)
    assert (summary["expected"], summary["judged"], summary["failed"]) == (4, 2, 2)
    problems = " ".join(summary["problems"])
    assert "a pipe, socket or device" in problems
    assert "more than 67,108,864 pixels" in problems


def test_the_manifest_shows_what_is_assumed(sar_eval, few_scenes, tmp_path: Path) -> None:
    """Also under a locale in which the folder's name is no text."""
    suite, folder = few_scenes
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = ("manifest", folder, "--suite", suite, "-n", 1)
    done = sar_eval(*words, env=ascii_only)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["file"] for row in rows] == [f"{row['prompt_id']}_1.png" for row in rows]
    assert "4 of 4 images, layout named" in done.stderr
    assert "note: files are counted from 1" in done.stderr
    Image.new("RGB", (8, 8)).save(folder / "overview.png")
    done = sar_eval(*words, "--out", folder / "manifest.jsonl")
    assert done.returncode == 3
    assert "1 files match nothing: " in done.stderr
    assert "overview.png" in done.stderr
    assert len((folder / "manifest.jsonl").read_text().splitlines()) == 4
    done = sar_eval("manifest", folder)
    assert (done.returncode, "--suite" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-n", 0), "images-per-prompt is 0"),
        (("-n", 1, "--batch-size", -5), "batch-size is -5"),
        (("-n", 1, "--batch-size", 0), "batch-size is 0"),
    ],
)
def test_senseless_numbers_are_refused(sar_eval, few_scenes, tmp_path: Path, words, message) -> None:
    suite, folder = few_scenes
    done = sar_eval(
        "score", "shapes", "--images", folder, "--suite", suite, "--out", tmp_path / "r", *words
    )
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_bad_input_exits_with_2(sar_eval, words, images: Path) -> None:
    done = sar_eval(*words, "--judge-option", "threshold")
    assert (done.returncode, "NAME=VALUE" in done.stderr) == (2, True)
    done = sar_eval(*words, "--detector", "yolo")
    assert (done.returncode, "mask2former or mmdet" in done.stderr) == (2, True)
    shutil.rmtree(images)
    done = sar_eval(*words)
    assert (done.returncode, "no folder" in done.stderr) == (2, True)
