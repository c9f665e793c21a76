"""The report in a real browser: a run folder with real scenes and real verdicts, opened from disk."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from report_runs import HOSTILE_TEXT, MALFORMED_BOXES, draw_scene, encode, make_prompts, make_run, make_spec

from sar_eval.errors import BadInput, SpecMismatch
from sar_eval.report.page import ASSETS, write_report
from sar_eval.report.scores import score_groups
from sar_eval.stages.summarize import summarize
from sar_eval.types import Metric, Prompt, Verdict, make_draw


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """72 prompts, twice drawn: among them a hostile prompt, a failed, a blank and a missing draw."""
    prompts = make_prompts(12)
    prompts[1] = replace(prompts[1], text=HOSTILE_TEXT)
    rng = random.Random(5)
    blank = encode(np.full((64, 64, 3), 7, np.uint8))

    def image_of(draw):
        return blank if draw.key == prompts[3].id + "/0" else draw_scene(draw.prompt, rng)

    return make_run(
        tmp_path_factory.mktemp("run"),
        prompts,
        make_spec(batch_size=13),  # the last block has one draw
        image_of,
        error_of=lambda key: "out of memory <b>" if key == prompts[2].id + "/1" else None,
        leave_out=lambda key: key == prompts[-1].id + "/1",
    )


@pytest.fixture(scope="module")
def path(run):
    return run.write()


@pytest.fixture
def page(watched, path):
    return watched.open(path)


def all_keys(page):
    """Keys of all cards, scrolling until as many are there as the status line counts."""
    page.wait_for_function("""() => {
        window.scrollTo(0, document.body.scrollHeight);
        const counted = parseInt(document.getElementById("status").textContent);
        return document.querySelectorAll(".card").length >= counted;
    }""")
    return page.locator(".card").evaluate_all("cards => cards.map(card => card.dataset.key)")


def choose(page, state="", task="", split="", query=""):
    page.locator(f"#verdicts input[value='{state}']").check()
    page.select_option("#task", task)
    page.select_option("#split", split)
    page.fill("#query", query)


def test_shows_every_expected_draw(page, run):
    assert all_keys(page) == list(run.expected)
    assert page.inner_text("#status") == "144 images"


@pytest.mark.parametrize("task", ["", "counting", "color_attr", "single_object"])
def test_filters_by_task_and_verdict(page, run, task):
    for state in ("pass", "fail", "none"):
        choose(page, state, task)
        expected = run.keys(task or None, state)
        assert all_keys(page) == expected
        assert page.inner_text("#status") == f"{len(expected)} of 144"
        assert page.locator("#no-matches").is_visible() == (not expected)


def test_filters_by_split_and_text(page, run):
    choose(page, split="unseen", query="Of A ")
    assert all_keys(page) == run.keys(split="unseen", text="of a ")
    page.click("#reset")
    page.wait_for_function("() => document.getElementById('status').textContent === '144 images'")


def test_counts_beside_the_choices_follow_the_other_filters(page, run):
    choose(page, task="colors")
    states = Counter(run.state(key) for key in run.keys("colors"))
    for state in ("pass", "fail", "none"):
        assert page.inner_text(f".segment.{state} .count") == str(states[state])


def test_a_task_in_the_score_table_filters_the_images(page, run):
    page.click(".scores a:text-is('counting')")
    assert all_keys(page) == run.keys("counting")
    assert page.input_value("#task") == "counting"


def test_large_view_shows_boxes_and_reason(page, run):
    key = next(k for k in run.keys(state="fail") if len(run.verdicts[k].evidence["boxes"]) >= 2)
    verdict = run.verdicts[key]
    choose(page, "fail")
    page.click(f".card[data-key='{key}']")
    boxes = verdict.evidence["boxes"]
    assert page.locator("#view-verdict").inner_text() == "Fail"
    assert page.locator("#view-reason").inner_text().splitlines() == verdict.reason.splitlines()
    assert page.locator("#view-prompt").inner_text() == run.expected[key].text
    assert page.locator("#boxes .box").count() == len(boxes)
    for box, label in zip(boxes, page.locator("#boxes .label").all_inner_texts(), strict=True):
        assert label == f"{box['color']} {box['name']}{box['score']:.3f}"
    box, frame = page.locator("#boxes .box").first.bounding_box(), page.locator("#frame").bounding_box()
    x0, y0, x1, y1 = boxes[0]["box"]
    scale = frame["width"] / 64
    assert box["x"] - frame["x"] == pytest.approx(x0 * scale, abs=1)
    assert box["y"] - frame["y"] == pytest.approx(y0 * scale, abs=1)
    assert (box["width"], box["height"]) == pytest.approx(((x1 - x0) * scale, (y1 - y0) * scale), abs=1)
    seed = make_draw(run.expected[key], int(key.rpartition("/")[2]), 0).seed
    assert key in page.inner_text("#details")
    assert str(seed) in page.inner_text("#details")


def test_boxes_and_masks_can_be_switched(page, run):
    page.click(f".card[data-key='{run.keys(state='pass')[0]}']")
    assert page.locator("#boxes").is_visible()
    assert page.locator("#masks").is_hidden()
    page.keyboard.press("b")
    page.keyboard.press("m")
    assert page.locator("#boxes").is_hidden()
    area = page.evaluate(
        "[...document.querySelectorAll('#hole path')].reduce((sum, path) => sum + "
        "[...path.getAttribute('d').matchAll(/v(\\d+)/g)].reduce((n, run) => n + Number(run[1]), 0), 0)"
    )
    boxes = run.verdicts[run.keys(state="pass")[0]].evidence["boxes"]
    assert area == sum(sum(box["mask"]["counts"][1::2]) for box in boxes)


def test_arrows_move_and_escape_closes(page, run):
    keys = run.keys(state="fail")
    choose(page, "fail")
    page.click(f".card[data-key='{keys[0]}']")
    page.keyboard.press("ArrowLeft")
    for key, pressed in zip(keys[1:3], ("ArrowRight", "j"), strict=True):
        page.keyboard.press(pressed)
        assert key in page.inner_text("#details")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#view-position") == f"2 of {len(keys)}"
    page.keyboard.press("Escape")
    assert page.locator("#view").is_hidden()
    # The dialog's close event comes a moment after the dialog is hidden.
    page.wait_for_function("key => document.activeElement.dataset.key === key", arg=keys[1])


def test_a_link_opens_the_same_image_under_the_same_filters(watched, run, path):
    key = run.keys("position", "fail")[0]
    page = watched.open(path, f"#verdict=fail&task=position&image={key}")
    assert key in page.inner_text("#details")
    assert page.inner_text("#view-position") == f"1 of {len(run.keys('position', 'fail'))}"


def test_hostile_text_stays_text(page, run):
    key = f"{run.prompts[1].id}/0"
    card = page.locator(f".card[data-key='{key}']")
    assert card.locator(".prompt").inner_text() == HOSTILE_TEXT
    card.click()
    assert page.inner_text("#view-prompt") == HOSTILE_TEXT
    assert page.locator("script").count() == 2
    assert page.locator("img[src=x]").count() == 0
    assert "out of memory <b>" in page.inner_text(".problems")


def test_an_incomplete_run_is_marked_and_lists_missing_images(page, run):
    assert "This run is incomplete. 3 of 144 expected images have no result." in page.inner_text(".banner")
    assert page.title() == "Partial: demo:sft on shapes"
    for key, reason in {
        f"{run.prompts[2].id}/1": "out of memory <b>",
        f"{run.prompts[3].id}/0": "blank image",
        f"{run.prompts[-1].id}/1": "not generated",
    }.items():
        assert f"{key}: {reason}" in page.inner_text(".problems")
        choose(page, "none")
        # The text, rendered or not: with content-visibility, a busy browser draws a card a frame later.
        assert page.locator(f".card[data-key='{key}'] .reason").text_content() == reason


def test_shows_scores_protocol_spec_and_versions(page, run):
    summary = json.loads((run.folder.path / "summary.json").read_text())
    metrics = sorted(
        summary["metrics"], key=lambda m: ["", "task", "split"].index(m["name"].rpartition("/")[0])
    )
    rows = page.locator(".scores tbody tr:not(.group)").all()
    for row, metric in zip(rows, metrics, strict=True):
        assert metric["name"].rpartition("/")[2].replace("_", " ") in row.locator("th").inner_text().lower()
        cells = row.locator("td").all_inner_texts()
        assert cells[:2] == [f"{metric['value']:.3f}", f"[{metric['low']:.2f}, {metric['high']:.2f}]"]
        assert row.locator("svg.bar .fill").count() == 1
        assert row.locator("svg.bar .whisker").count() == 3
    run_section = page.inner_text("#run")
    for text in ('"a clean "', run.spec.digest, "0123abc", "counting threshold", "opencv-python-headless"):
        assert text in run_section
    tiles = page.locator(".tiles dd").all_inner_texts()[1:]
    assert tiles == [str(summary[name]) for name in ("expected", "generated", "judged", "failed")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_follows_the_colour_scheme_and_fits_a_phone(watched, path, scheme):
    watched.page.emulate_media(color_scheme=scheme)
    watched.page.set_viewport_size({"width": 390, "height": 800})
    page = watched.open(path)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) > 380) == (scheme == "light")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.fixture
def large(tmp_path):
    """Four 320-pixel images, so that thumbnails are smaller than they."""
    prompts, rng = make_prompts(1)[:2], random.Random(3)
    return make_run(
        tmp_path / "large", prompts, make_spec(), lambda draw: draw_scene(draw.prompt, rng, 320)
    )


@pytest.mark.slow
def test_beyond_the_size_limit_images_are_files_beside_the_page(watched, large):
    page = watched.open(large.write(inline_limit=1000))
    files = {path.name for path in (large.folder.path / ASSETS).iterdir()}
    stems = {key.replace("/", "_") for key in large.expected}
    pictures = {f"{stem}.png" for stem in stems} | {f"{stem}.thumb.webp" for stem in stems}
    assert files == pictures | {"index.js", "rows-000000.js", "details-000000.js"}
    page.wait_for_function(
        "() => [...document.images].filter(i => i.src).every(i => i.complete && i.naturalWidth)"
    )
    assert page.locator(".card img").first.evaluate("image => [image.naturalWidth, image.loading]") == [
        192,
        "lazy",
    ]
    page.locator(".card").first.click()
    page.wait_for_function("() => document.getElementById('view-image').naturalWidth === 320")
    assert any(url.endswith(".thumb.webp") for url in watched.requests)


def test_image_files_are_the_stored_images_and_stale_ones_are_removed(large):
    large.write(inline_limit=0)
    assets = large.folder.path / ASSETS
    before = {path: path.stat().st_mtime_ns for path in assets.glob("*_*")}
    assert len(before) == 8
    stale = ["rows-000001.js", "details-000007.js", "index.js.17.tmp"]
    others = [
        "holiday.png",
        "notes.txt",
        "my_rows-000001.js",
        "IMG_0.png",
        "IMG_0.thumb.webp",
        "a_0.png.17.tmp",
    ]
    for name in stale + others:
        (assets / name).write_bytes(b"old")
    large.write(inline_limit=0)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    names = {path.name for path in assets.iterdir()}
    assert (names & {*stale}, names & {*others}) == (set(), {*others})
    for name in others:
        (assets / name).unlink()
    row = next(large.folder.generations.rows())
    assert (assets / (row["key"].replace("/", "_") + ".png")).read_bytes() == row["image"]["bytes"]
    large.write()
    assert not assets.exists()


def test_a_run_without_judge_or_fold_has_a_report(watched, tmp_path):
    prompts, rng = [Prompt("p", "two <b>words"), Prompt("q", "three")], random.Random(1)
    spec = make_spec(judge="", fold="", judge_options={}, images_per_prompt=1)
    drawn_prompt = make_prompts(1)[0]
    run = make_run(tmp_path, prompts, spec, lambda draw: draw_scene(drawn_prompt, rng))
    page = watched.open(run.write())
    assert "no judge" in page.inner_text("#scores")
    assert page.locator(".card").count() == 2
    assert page.locator(".banner, #task, #split").count() == 0


@pytest.mark.slow
def test_unexpected_evidence_does_not_break_the_report(watched, tmp_path):
    run = make_run(tmp_path, make_prompts(1)[:1], make_spec(images_per_prompt=4), lambda draw: b"no image")
    odd = [
        Verdict(
            "single_object-000/0", "shapes", "2", score=0.31, evidence={"answers": {"</script>": "yes"}}
        ),
        Verdict("single_object-000/1", "shapes", "2", score=1.0, passed=True, evidence=["a list"]),
        Verdict("single_object-000/2", "shapes", "2", passed=False, evidence={"boxes": MALFORMED_BOXES}),
        Verdict("single_object-000/3", "shapes", "2", score=float("nan"), reason="not a number"),
    ]
    summarize(run.spec, run.folder, partial=True)
    run.store_verdicts(0, odd)
    page = watched.open(write_report(run.spec, run.folder))
    assert page.locator(".card .badge").all_inner_texts()[:3] == ["0.310", "Pass", "Fail"]
    assert page.locator(".card .badge.none").count() == 1
    assert page.locator(".image-frame.absent").count() == 4
    page.locator(".card").first.click()
    assert json.loads(page.inner_text("#evidence")) == {"answers": {"</script>": "yes"}}
    assert page.inner_text("#view-missing") == "unreadable image"


@pytest.mark.slow
@pytest.mark.parametrize("inline_limit", [10**9, 0])
def test_5000_images_are_shown_a_few_at_a_time(watched, tmp_path, inline_limit):
    prompts = [replace(p, id=f"{p.id}-{copy}") for copy in range(21) for p in make_prompts(60)][:1250]
    rng = random.Random(0)
    images = [draw_scene(p, rng) for p in prompts[:360]]
    spec = make_spec(images_per_prompt=4, batch_size=64)
    run = make_run(tmp_path, prompts, spec, lambda draw: images[draw.seed % 360])
    path = run.write(inline_limit=inline_limit)
    page = watched.open(path)
    assert page.locator(".card").count() < 400
    assert page.inner_text("#status") == "5,000 images"
    choose(page, "fail", "counting")
    assert page.inner_text("#status") == f"{len(run.keys('counting', 'fail')):,} of 5,000"


def test_refuses_a_run_without_a_matching_summary(tmp_path):
    run = make_run(tmp_path, make_prompts(1)[:1], make_spec(), lambda draw: b"")
    with pytest.raises(BadInput, match=r"no summary\.json"):
        write_report(run.spec, run.folder)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(BadInput, match="broken JSON"):
        write_report(run.spec, run.folder)
    summarize(run.spec, run.folder)
    with pytest.raises(SpecMismatch, match="belongs to spec"):
        write_report(replace(run.spec, seed=1), run.folder)


def test_score_groups_choose_an_axis_and_mark_missing_values():
    metrics = [Metric("overall", 79.66, 78.0, 81.2, 9), Metric("task/a_b", None, None, None, 0)]
    axis, [(first, [overall]), (second, [task])] = score_groups(metrics)
    assert (axis, first, second) == (100.0, "", "task")
    assert (overall.label, overall.value, overall.bar, overall.filter) == ("Overall", "79.660", 79.66, "")
    assert (task.label, task.value, task.interval, task.bar, task.filter) == (
        "a b",
        "\N{EN DASH}",
        "",
        None,
        "task=a_b",
    )


def test_needs_no_torch():
    code = "import sys, sar_eval.report.page; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
