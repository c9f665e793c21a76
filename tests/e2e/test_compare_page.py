"""The comparison's page in a real browser, opened from disk."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from compare_runs import compared, judged, make_judged, make_prompts, write_page
from report_runs import HOSTILE_TEXT

from sar_eval.comparisons import Published
from sar_eval.report.compare_page import write_comparison
from sar_eval.stages.measure import read_scored, score_run
from sar_eval.stages.save_baseline import save_baseline

pytestmark = pytest.mark.slow
PROMPTS = make_prompts(60)
PROMPTS[1] = replace(PROMPTS[1], text=HOSTILE_TEXT)
SCALED = '[...document.querySelectorAll("#sides .layers")].map(e => e.getBoundingClientRect().width)'


def first_verdict(row, key):
    boxes = [{"name": "ring", "box": [1, 1, 6, 6], "score": 0.5, "color": "red"}] if row % 2 else []
    reason = "" if row % 4 else f"expected <b>ring</b> {row}"
    return judged(row % 4 != 0, reason=reason, evidence={"boxes": boxes, "note": "</script>"})


def second_verdict(row, key):
    mask = {"size": [8, 8], "counts": [9, 3, 52]}
    boxes = [{"name": "star", "box": [0, 1, 7, 7], "score": 0.9, "mask": mask}]
    return judged(row % 6 != 0, reason="wrong" if row % 6 == 0 else "", evidence={"boxes": boxes})


def kind_of(row):
    """Of 120 images of 60 prompts."""
    first, second = row % 4 != 0, row % 6 != 0
    return {(0, 1): "won", (1, 0): "lost", (1, 1): "right", (0, 0): "wrong"}[first, second]


def keys(*kinds, task=None):
    return [
        f"p{row // 2:04d}/{row % 2}"
        for row in range(120)
        if kind_of(row) in kinds and task in (None, PROMPTS[row // 2].tag)
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [
        make_judged(folder / "a", PROMPTS, first_verdict, checkpoint="org/x-sft"),
        make_judged(folder / "b", PROMPTS, second_verdict, checkpoint="org/x<b>-rl"),
        make_judged(folder / "c", PROMPTS, lambda row, key: judged(False), checkpoint="org/x-bad", seed=1),
    ]


@pytest.fixture(scope="module")
def path(runs, tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("page") / "compare.html", *runs[:2])


@pytest.fixture
def page(watched, path):
    return watched.open(path)


def shown_keys(page):
    return page.locator(".card").evaluate_all("cards => cards.map(card => card.dataset.key)")


def choose(page, change):
    page.locator(f"#changes input[value='{change}']").check()


def open_card(page, key):
    page.click(f".card[data-key='{key}']")
    page.wait_for_selector("#view[open]")


def test_shows_the_sentence_and_every_measure(page):
    assert page.inner_text("h1") == "A (x-sft) and B (x<b>-rl) are not distinguishable"
    assert "95 % interval" in page.inner_text(".lead")
    labels = page.locator(".differences tbody th[scope=row]").all_inner_texts()
    assert labels[:2] == ["Overall", "Correct images share of all images"]
    assert page.locator(".differences svg.forest .point").count() == len(labels)
    for cell in page.locator(".differences tbody td.number").all():
        assert len(cell.get_attribute("title")) > 10


def test_begins_with_what_changed(page):
    assert shown_keys(page) == keys("won", "lost")
    assert page.inner_text("#status") == f"{len(keys('won', 'lost'))} of 120 pairs of images"


@pytest.mark.parametrize("change", ["won", "lost", "right", "wrong"])
def test_filters_by_change_and_task(page, change):
    choose(page, change)
    expected = keys(change)
    assert page.inner_text(f"#changes .segment.{change} .count") == str(len(expected))
    assert shown_keys(page) == expected[:60]
    page.select_option("#task", "colors")
    assert shown_keys(page) == keys(change, task="colors")
    page.click("#reset")
    expected = keys("won", "lost")  # the page reads its filters after the browser has reset them
    page.wait_for_function("n => document.querySelectorAll('.card').length === n", arg=len(expected))
    assert shown_keys(page) == expected


def test_search_in_prompts(page):
    choose(page, "all")
    page.fill("#query", "NUMBER 5")  # 5 and 50 to 59
    assert len(shown_keys(page)) == 22
    page.fill("#query", "no such prompt")
    assert page.inner_text("#no-matches") == "No pair matches these filters."


def test_a_task_in_the_table_filters_the_images(page):
    page.click(".differences a:text-is('counting')")
    page.wait_for_function("() => document.getElementById('task').value === 'counting'")
    assert shown_keys(page) == keys("won", "lost", task="counting")


def test_both_images_with_their_evidence(page):
    choose(page, "all")
    open_card(page, "p0004/1")  # row 9
    assert page.inner_text("#view-change").startswith("Both pass")
    assert page.inner_text("#first .boxes-layer .label") == "red ring0.500"
    assert page.inner_text("#second .boxes-layer .label") == "star0.900"
    assert page.inner_text("#first .details dd >> nth=0") == "p0004/1"
    seeds = [page.inner_text(f"#{side} .details dd >> nth=1") for side in ("first", "second")]
    assert seeds[0] == seeds[1]
    page.keyboard.press("b")
    page.keyboard.press("m")
    assert page.locator("#sides .box").first.is_hidden()
    assert page.locator("#second .masks path").count() == 1
    assert page.locator("#second .masks").is_visible()
    assert page.locator("#first .masks > *").count() == 0
    page.keyboard.press("s")
    left = [page.locator(f"#{side} .frame").bounding_box()["x"] for side in ("first", "second")]
    assert left[1] < left[0]


def test_keys_move_and_escape_gives_the_focus_back(page):
    choose(page, "lost")
    expected = keys("lost")
    open_card(page, expected[0])
    page.keyboard.press("ArrowLeft")
    for key, pressed in zip(expected[1:4], ("ArrowRight", "j", "ArrowRight"), strict=True):
        page.keyboard.press(pressed)
        assert page.inner_text("#first .details dd >> nth=0") == key
    page.keyboard.press("k")
    assert page.inner_text("#view-position") == f"3 of {len(expected)}"
    page.keyboard.press("Escape")
    page.wait_for_function("key => document.activeElement.dataset.key === key", arg=expected[2])


def test_zoom_and_pan_move_both(page):
    open_card(page, keys("won")[0])
    whole = page.evaluate(SCALED)
    page.keyboard.press("+")
    page.click("#zoom-in")
    assert page.inner_text("#zoom-reset") == "225%"
    assert page.evaluate(SCALED) == pytest.approx([2.25 * width for width in whole], rel=1e-3)
    offsets = """() => [...document.querySelectorAll("#sides .frame")].map(frame => {
        const [own, inner] = [frame, frame.querySelector(".layers")].map(e => e.getBoundingClientRect());
        return [inner.left - own.left, inner.top - own.top];
    })"""
    before = page.evaluate(offsets)
    box = page.locator("#second .frame").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 40, middle[1] + 25, steps=4)
    page.mouse.up()
    after = page.evaluate(offsets)
    assert after[0] == pytest.approx(after[1], abs=0.5)
    moved = [after[1][0] - before[1][0], after[1][1] - before[1][1]]
    assert moved == pytest.approx([40, 25], abs=0.5)
    page.keyboard.press("0")
    assert page.evaluate(SCALED) == whole


def test_the_wheel_zooms_around_the_pointer(page):
    open_card(page, keys("won")[0])
    box = page.locator("#first .frame").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -300)  # alone it scrolls the view
    assert page.inner_text("#zoom-reset") == "100%"
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    page.wait_for_function("() => document.getElementById('zoom-reset').textContent === '272%'")
    share = page.evaluate("""() => {
        const frame = document.querySelector("#second .frame").getBoundingClientRect();
        const inner = document.querySelector("#second .layers").getBoundingClientRect();
        return (frame.left + frame.width / 4 - inner.left) / inner.width;
    }""")
    assert share == pytest.approx(0.25, abs=0.01)
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#zoom-reset") == "100%"


def test_a_link_opens_the_same_pair_under_the_same_filters(watched, path):
    key = keys("lost", task="counting")[1]
    page = watched.open(path, f"#change=lost&task=counting&image={key}")
    page.wait_for_selector("#view[open]")
    assert page.inner_text("#view-position") == f"2 of {len(keys('lost', task='counting'))}"
    assert page.inner_text("#second .details dd >> nth=0") == key
    page.keyboard.press("ArrowRight")
    assert "image=" in page.evaluate("location.hash")
    page.keyboard.press("Escape")
    page.wait_for_function("() => location.hash === '#change=lost&task=counting'")


@pytest.mark.parametrize("fragment", ["#change=<b>&task=__proto__", "#pair=Z-Q", "#image=../../x", "#=&&%"])
def test_a_link_of_nonsense_does_no_harm(watched, path, fragment):
    watched.page.goto(path.as_uri() + fragment)
    watched.page.wait_for_function("() => document.getElementById('status').textContent !== ''")
    assert watched.page.locator("#view[open]").count() == 0


def test_hostile_text_stays_text(watched, path):
    page = watched.open(path, "#change=all&image=p0001/0")
    page.wait_for_selector("#view[open]")
    assert page.inner_text("#view-prompt") == HOSTILE_TEXT
    assert page.inner_text("#second .side-label") == "x<b>-rl"
    page.keyboard.press("Escape")
    card = page.locator(".card[data-key='p0000/0']")
    assert "expected <b>ring</b> 0" in card.locator(".reason").inner_text()
    assert page.locator("script").count() == 2
    assert page.locator("img[src=x]").count() == 0
    policies = page.locator("meta[http-equiv='Content-Security-Policy']").evaluate_all(
        "all => all.map(m => m.content)"
    )
    assert "unsafe" not in " ".join(policies)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_follows_the_colour_scheme_and_fits_a_phone(watched, path, scheme):
    watched.page.emulate_media(color_scheme=scheme)
    watched.page.set_viewport_size({"width": 390, "height": 800})
    page = watched.open(path)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) > 380) == (scheme == "light")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    open_card(page, keys("won")[0])
    frames = [page.locator(f"#{side} .side-stage").bounding_box() for side in ("first", "second")]
    assert frames[0]["y"] == frames[1]["y"]
    assert frames[1]["x"] + frames[1]["width"] <= 390


def test_three_runs_have_a_ranking_and_a_choice_of_pairs(watched, runs, tmp_path):
    page = watched.open(write_page(tmp_path / "three.html", *runs))
    assert page.inner_text("h1") == "3 runs compared"
    rows = page.locator(".ranking tbody tr").all_inner_texts()
    assert [row.split()[0] for row in rows] == ["B", "A", "C"]
    assert [row.split()[-1] for row in rows] == ["a", "a", "b"]
    assert page.locator(".overview .forest").count() == 3
    assert page.locator("article.pair:visible").get_attribute("data-pair") == "A-B"
    assert page.locator("#pairing").is_hidden()
    page.select_option("#pair", "B-C")
    assert page.locator("article.pair:visible").get_attribute("data-pair") == "B-C"
    assert page.inner_text("#changes .segment.lost") == "C lost\n100"
    assert page.locator("#pairing").is_visible()  # another seed
    page.click(".overview a[href='#pair=A-C']")
    page.wait_for_function("() => document.getElementById('pair').value === 'A-C'")
    assert page.inner_text("#changes .segment.lost .count") == "90"
    again = watched.open(tmp_path / "three.html", "#pair=B-C&change=lost&image=p0001/1")
    again.wait_for_selector("#view[open]")
    assert again.inner_text("#second .side-label") == "x-bad"


def test_a_baseline_has_no_pictures_and_the_page_says_so(watched, runs, tmp_path):
    file = tmp_path / "a.parquet"
    save_baseline(score_run(runs[0].spec, runs[0].folder), file)
    page = watched.page
    page.goto(write_page(tmp_path / "two.html", read_scored(file), runs[1]).as_uri())
    assert "A (x-sft) is a baseline: it keeps the scores and no pictures." in page.inner_text("#images")
    assert page.locator("#view, #filters, .card").count() == 0
    assert page.locator(".differences .forest").count() == 6
    page = watched.open(write_page(tmp_path / "three.html", read_scored(file), *runs[1:]), "#pair=B-C")
    page.select_option("#pair", "A-B")
    assert page.locator("#no-pictures").is_visible()
    assert page.locator("#gallery").is_hidden()


def test_the_same_run_twice_has_no_change(watched, runs, tmp_path):
    watched.page.goto(write_page(tmp_path / "same.html", runs[0], runs[0]).as_uri())
    text = "Nothing changed: every image scores the same in A and B."
    assert watched.page.inner_text("#no-matches") == text


def test_published_scores_stand_beside(watched, runs, tmp_path):
    found, stored = compared(*runs[:2])
    score = Published(
        name="Other<b>",
        overall=0.99,
        tasks={"counting": 0.5},
        source="a paper",
        conditions="rewritten prompts",
    )
    page = watched.open(
        write_comparison(replace(found, published=(score,)), stored, tmp_path / "published.html")
    )
    rows = page.locator("#published tbody tr").all_inner_texts()
    assert rows[0].split("\t") == ["Other<b>", "0.99", "0.5", "rewritten prompts; a paper"]
    assert "not paired" in page.inner_text("#published caption")


def test_what_differs_is_marked(page):
    marked = page.locator("#facts .differs th").all_inner_texts()
    assert marked == ["checkpoint ≠", "path ≠"]
