"""The report of a run whose rows are in files beside the page, in a real browser and opened from disk."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from report_runs import HOSTILE_TEXT, make_large_run, make_spec

from sar_eval.errors import BadInput
from sar_eval.report import page_data
from sar_eval.report.page import ASSETS, EMBEDDED_ROWS, write_report
from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import Prompt, make_draw

SEPARATORS = "line\u2028paragraph\u2029end \U0001f600 __proto__ <!-- ]]> ${1} `"
TASKS = ["counting", "colors", "__proto__"]


def make_prompts(number):
    prompts = [
        Prompt(f"p{n:04d}", f"a Ring, number {n}", TASKS[n % 3], None, "seen" if n % 4 else "unseen")
        for n in range(number)
    ]
    prompts[1] = replace(prompts[1], text=HOSTILE_TEXT)
    prompts[2] = replace(prompts[2], text=SEPARATORS)
    return prompts


def evidence_of(key):
    if key == "p0001/0":
        return {"__proto__": {"x": "</script><script>alert(3)</script>\u2028"}}
    if key == "p0699/1":
        return {"boxes": [{"name": "ring", "box": [1, 1, 6, 6], "score": 0.5}], "note": "the last"}
    return None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """1,400 images in three files of rows; one of them failed."""
    spec = make_spec(batch_size=200, fold="")
    error_of = {"p0003/0": "out of memory <b>"}.get
    return make_large_run(tmp_path_factory.mktemp("large"), make_prompts(700), spec, evidence_of, error_of)


@pytest.fixture(scope="module")
def path(run):
    return run.write(inline_limit=0, images=20)


@pytest.fixture
def page(watched, path):
    return watched.open(path)


def wait_for_status(page, text):
    page.wait_for_function("text => document.getElementById('status').textContent === text", arg=text)


def wait_for_card(page, key):
    """Wait for it; its absence says what is there instead."""
    from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

    try:
        page.wait_for_selector(f".card[data-key='{key}']")
    except PlaywrightTimeoutError as error:
        shown = page.locator(".card").evaluate_all("cards => cards.map((card) => card.dataset.key)")
        where = page.inner_text("#sheet-position"), page.inner_text("#load-error"), shown[:3], len(shown)
        raise AssertionError(f"no card {key}: {where}") from error


def test_the_page_is_small_and_shows_all_rows_in_sheets(page, path, run):
    assert path.stat().st_size < 120_000
    assert page.inner_text("#status") == "1,400 images"
    assert page.inner_text("#sheet-position") == "1 to 600 of 1,400"
    page.click("#sheet-last")
    wait_for_card(page, "p0600/0")
    assert page.inner_text("#sheet-position") == "1,201 to 1,400 of 1,400"
    assert page.locator("#sheet-next").is_disabled()
    page.click("#sheet-previous")
    wait_for_card(page, "p0300/0")
    assert page.locator("script").count() == 2


def test_the_buttons_of_the_sheets_stay_where_they_are_while_cards_are_added(page):
    """Else a press is lost: the button has moved away before it ends."""
    page.locator("#sheet-last").scroll_into_view_if_needed()
    before = page.locator("#sheet-last").bounding_box()
    page.mouse.move(before["x"] + before["width"] / 2, before["y"] + before["height"] / 2)
    page.mouse.down()
    page.evaluate("addCards(300)")
    page.wait_for_function("document.querySelectorAll('.card').length >= 300")
    assert page.locator("#sheet-last").bounding_box() == before
    page.mouse.up()
    wait_for_card(page, "p0600/0")


def test_filters_count_rows_that_are_not_loaded(page, run):
    page.locator("#verdicts input[value='fail']").check()
    wait_for_status(page, f"{len(run.keys(state='fail'))} of 1,400")
    page.select_option("#task", "__proto__")
    keys = run.keys("__proto__", "fail")
    wait_for_status(page, f"{len(keys)} of 1,400")
    page.select_option("#split", "unseen")
    keys = run.keys("__proto__", "fail", split="unseen")
    wait_for_status(page, f"{len(keys)} of 1,400")
    page.wait_for_function("n => document.querySelectorAll('.card').length === n", arg=min(60, len(keys)))
    assert page.locator(".card").first.get_attribute("data-key") == keys[0]
    assert page.inner_text(".segment.pass .count") == str(
        len(run.keys("__proto__", "pass", split="unseen"))
    )


def test_search_reads_every_file(page):
    page.fill("#query", "ring, NUMBER 69")  # 69 and 690 to 699
    wait_for_status(page, "22 of 1,400")
    assert page.locator(".card").count() == 22
    page.fill("#query", "no such prompt")
    wait_for_status(page, "0 of 1,400")
    assert page.locator("#no-matches").is_visible()
    page.click("#reset")
    wait_for_status(page, "1,400 images")


@pytest.mark.parametrize("fragment", ["#image=p0699/1", "#image=p0699/1&row=1399"])
def test_a_link_opens_a_row_of_the_last_file(watched, path, run, fragment):
    page = watched.open(path, fragment)
    page.wait_for_selector("#view[open]")
    assert page.inner_text("#view-position") == "1,400 of 1,400"
    seed = make_draw(run.prompts[699], 1, run.spec.seed).seed
    assert str(seed) in page.inner_text("#details")
    assert "ring" in page.inner_text("#box-rows")
    assert json.loads(page.inner_text("#evidence")) == {"note": "the last"}
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => document.getElementById('details').textContent.includes('p0699/0')")
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.activeElement.dataset.key === 'p0699/0'")
    assert page.inner_text("#sheet-position") == "1,201 to 1,400 of 1,400"


def test_hostile_text_stays_text(watched, path):
    page = watched.open(path, "#image=p0001/0&row=2")
    page.wait_for_selector("#view[open]")
    assert page.inner_text("#view-prompt") == HOSTILE_TEXT
    assert "</script><script>alert(3)" in json.loads(page.inner_text("#evidence"))["__proto__"]["x"]
    assert page.evaluate("() => ({}).x === undefined && Array.isArray([].__proto__)")
    page.keyboard.press("Escape")
    assert page.locator(".card[data-key='p0002/0'] .prompt").evaluate("e => e.textContent") == SEPARATORS
    assert page.locator(".card[data-key='p0003/0'] .reason").inner_text() == "out of memory <b>"
    assert page.locator("img[src=x]").count() == 0


def test_the_policy_allows_no_other_script(watched, path):
    page = watched.open(path)
    policies = page.locator("meta[http-equiv='Content-Security-Policy']").evaluate_all(
        "all => all.map(m => m.content)"
    )
    assert "unsafe" not in " ".join(policies)
    for html in ("<script src='report_assets/index.js'></script>", "<img src=x onerror='window.bad = 1'>"):
        page.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", html)
    page.evaluate("""() => {
        const parsed = document.createElement("iframe");
        parsed.srcdoc = "<script>parent.bad = 1</" + "script>";
        document.body.append(parsed);
    }""")
    page.wait_for_timeout(200)
    assert page.evaluate("() => window.bad === undefined")
    assert len(watched.complaints) >= 1  # of the policy
    assert all("Content Security Policy" in text or "ERR_FILE" in text for text in watched.complaints)
    watched.complaints.clear()


def test_a_sample_has_failed_ones_and_every_task(page, path, run):
    pictures = {file.name for file in (path.parent / ASSETS).glob("*.png")}
    assert len(pictures) == 20
    states = {run.state(name[:-4].replace("_", "/")) for name in pictures}
    assert states == {"pass", "fail"}
    page.check("#picture")
    wait_for_status(page, "20 of 1,400")
    assert page.locator(".card .absent").count() == 0


def test_a_picture_that_is_left_out_names_the_command_for_it(watched, path):
    page = watched.open(path, "#image=p0699/1&row=1399")
    page.wait_for_selector("#view[open]")
    assert "sar-eval report RUN --image p0699/1" in page.inner_text("#view-missing")
    assert "ring" in page.inner_text("#box-rows")


def test_a_picture_can_be_asked_for(watched, run, tmp_path):
    copy = shutil.copytree(run.folder.path, tmp_path / "run")
    path = write_report(run.spec, RunFolder(copy), inline_limit=0, images=0, keys=["p0699/1"])
    assert [file.name for file in (copy / ASSETS).glob("*.png")] == ["p0699_1.png"]
    page = watched.open(path, "#image=p0699/1")
    page.wait_for_function("() => document.getElementById('view-image').naturalWidth === 8")


@pytest.mark.parametrize("key", ["p0699/2", "p0700/0", "p0699", "", "p0699/-1", "p0699/01", "p0699/\u0661"])
def test_an_unknown_key_is_refused(run, key):
    with pytest.raises(BadInput, match="has no image"):
        write_report(run.spec, run.folder, keys=[key])


def test_a_page_without_its_folder_or_with_anothers_says_so(watched, path, tmp_path):
    shutil.copy(path, tmp_path / "report.html")
    watched.page.goto((tmp_path / "report.html").as_uri())
    watched.page.wait_for_selector("#load-error")
    assert "report_assets/index.js is missing" in watched.page.inner_text("#load-error")
    shutil.copytree(path.parent / ASSETS, tmp_path / ASSETS)
    index = tmp_path / ASSETS / "index.js"
    index.write_text(index.read_text().replace('reportData(...["', 'reportData(...["other'))
    watched.page.reload()
    watched.page.wait_for_selector("#load-error")
    assert "belongs to another report" in watched.page.inner_text("#load-error")
    watched.complaints.clear()


def test_rows_do_not_depend_on_the_order_of_parts_or_the_memory(watched, run, tmp_path, monkeypatch):
    """Verdicts are written a few at a time, so that a file gets them in several calls."""
    monkeypatch.setattr(page_data, "ROWS_HELD", 1)
    monkeypatch.setattr("sar_eval.report.data.BATCH_ROWS", 1)
    copy = RunFolder(shutil.copytree(run.folder.path, tmp_path / "run"))
    page = watched.open(write_report(run.spec, copy, inline_limit=0, images=0), "#image=p0699/1&row=1399")
    page.wait_for_selector("#view[open]")
    assert json.loads(page.inner_text("#evidence")) == {"note": "the last"}
    calls = [
        line.split(",")[2] for line in (copy.path / ASSETS / "rows-000000.js").read_text().splitlines()
    ]
    assert calls == ['"prompts"', '"problems"', '"verdicts"', '"verdicts"', '"verdicts"']


def test_many_rows_are_beside_the_page_however_small_they_are(run, monkeypatch):
    assert EMBEDDED_ROWS > 5000
    monkeypatch.setattr("sar_eval.report.page.EMBEDDED_ROWS", 1399)
    assert write_report(run.spec, run.folder, images=20).stat().st_size < 120_000


def test_evidence_counts_towards_the_size_of_a_page(run, tmp_path):
    copy = RunFolder(shutil.copytree(run.folder.path, tmp_path / "run"))
    path = write_report(run.spec, copy, inline_limit=10**7)
    assert not (copy.path / ASSETS).exists()
    size = path.stat().st_size
    assert write_report(run.spec, copy, inline_limit=size // 4).stat().st_size < size / 2
    assert (copy.path / ASSETS / "rows-000002.js").is_file()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("expected", "many"),
        ("failed", None),
        ("metrics", {"overall": 1}),
        ("metrics", [{"name": "overall", "value": "high", "low": None, "high": None, "n": 1}]),
        ("metrics", [3]),
        ("problems", "none"),
        ("problems", [1]),
        ("versions", ["1"]),
        ("versions", {"sar_eval": 2}),
        ("partial", "no"),
        ("benchmark", ["shapes"]),
        ("protocol", 7),
        ("out_of_range_tokens", 1.5),
    ],
)
def test_a_summary_of_other_types_is_refused_by_its_key(run, tmp_path, name, value):
    copy = RunFolder(
        shutil.copytree(run.folder.path, tmp_path / "run", ignore=shutil.ignore_patterns(ASSETS))
    )
    copy.write_summary(copy.read_summary() | {name: value})
    with pytest.raises(BadInput, match=rf"summary\.json: {name}.*summarize"):
        write_report(run.spec, copy)
