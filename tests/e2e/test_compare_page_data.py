"""The comparison's page of runs with scores, holes, other numbers of images, and of many images."""

from __future__ import annotations

import time

import numpy as np
import pytest
from compare_runs import judged, make_judged, make_prompts, write_page
from report_runs import encode

from sar_eval.errors import BadInput

pytestmark = pytest.mark.slow
PROMPTS = make_prompts(12)


def answered(yes):
    """A judge's answers to two questions, the second of which depends on the first."""
    rows = [
        {"id": number, "question": f"Question {number}?", "answer": "yes" if ok else "no", "yes": ok}
        | {"soft": None, "truncated": False, "zeroed_by": [], "counted": int(ok)}
        for number, ok in enumerate(yes, 1)
    ]
    return {"answerer": "x", "questions": rows}


@pytest.fixture
def scored(tmp_path):
    """Scores without bounds, and answers; B loses more the later the prompt."""

    def first(row, key):
        return {"score": 10.0, "evidence": answered((True, True))}

    def second(row, key):
        return {"score": 10.0 - row if row % 3 else 10.0, "evidence": answered((True, row % 3 == 0))}

    return [
        make_judged(tmp_path / "a", PROMPTS, first),
        make_judged(tmp_path / "b", PROMPTS, second, checkpoint="x"),
    ]


def test_scores_are_sorted_by_the_largest_change(watched, scored, tmp_path):
    page = watched.open(write_page(tmp_path / "compare.html", *scored))
    rows = [row for row in reversed(range(24)) if row % 3]
    keys = [f"p{row // 2:04d}/{row % 2}" for row in rows]
    shown = "cards => cards.map(card => card.dataset.key)"
    assert page.locator(".card").evaluate_all(shown) == keys
    names = page.locator("#changes .name").all_inner_texts()
    assert names == ["Changed", "B won", "B lost", "Same", "All"]
    page.select_option("#order", "suite")
    assert page.locator(".card").evaluate_all(shown) == keys[::-1]
    page.select_option("#order", "")
    page.click(".card >> nth=0")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#view-position") == "2 of 16"
    assert page.inner_text("#view-change").startswith("A is better, -22.00")


def test_answers_that_differ_are_marked(watched, scored, tmp_path):
    page = watched.open(write_page(tmp_path / "compare.html", *scored))
    page.click(".card >> nth=0")
    for side, answer in (("first", "yes"), ("second", "no")):
        marked = page.locator(f"#{side} .question.differs")
        assert marked.locator(".text").all_inner_texts() == ["2. Question 2?"]
        assert marked.locator(".badge").all_inner_texts() == [answer]


def test_holes_and_other_numbers_of_images(watched, tmp_path):
    """A has four images of each prompt, B two; of one there is no image."""
    broken = {"p0003/1": "out of memory <b>"}.get
    a = make_judged(tmp_path / "a", PROMPTS, lambda row, key: judged(row % 2 == 0), images_per_prompt=4)
    b = make_judged(tmp_path / "b", PROMPTS, lambda row, key: judged(True), error_of=broken, checkpoint="b")
    page = watched.open(write_page(tmp_path / "compare.html", a, b, missing=0.6))
    assert page.inner_text("#changes .segment.won .count") == "11"
    assert page.inner_text("#changes .segment.none .count") == "25"
    page.locator("#changes input[value='none']").check()
    page.click(".card[data-key='p0003/1']")
    assert page.inner_text("#second .missing") == "out of memory <b>"
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#second .missing") == "B has 2 images of each prompt"
    assert page.inner_text("#siblings li >> nth=3 >> .badge >> nth=1") == "No verdict"


def test_files_beside_a_page_are_replaced_and_no_others(watched, tmp_path):
    a = make_judged(tmp_path / "a", PROMPTS, lambda row, key: judged(row % 2 == 0))
    b = make_judged(tmp_path / "b", PROMPTS, lambda row, key: judged(True), checkpoint="b")
    path = tmp_path / "odd #name %25.html"
    assets = tmp_path / "odd #name %25_assets"
    write_page(path, a, b, inline_limit=0)
    assert len(list((assets / "A").glob("*.png"))) == len(list((assets / "B").glob("*.png"))) == 24
    (assets / "A" / "holiday.png").write_bytes(b"mine")
    page = watched.open(write_page(path, a, b, inline_limit=0, images=4), "#change=all&image=p0011/1")
    page.wait_for_selector("#view[open]")
    assert len(list((assets / "B").glob("*.png"))) == 4
    assert (assets / "A" / "holiday.png").is_file()
    assert page.locator(".card img").count() == 8
    assert "--images" in page.inner_text("#first .missing")
    write_page(path, a, b)
    assert [file.name for file in assets.rglob("*") if file.is_file()] == ["holiday.png"]


def test_a_link_in_place_of_the_folder_is_refused(tmp_path):
    a = make_judged(tmp_path / "a", PROMPTS, lambda row, key: judged(row % 2 == 0))
    (tmp_path / "compare_assets").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="is a link"):
        write_page(tmp_path / "compare.html", a, a, inline_limit=0)
    (tmp_path / "compare_assets").unlink()
    (tmp_path / "compare_assets").mkdir()
    (tmp_path / "compare_assets" / "A").symlink_to(tmp_path / "a")
    with pytest.raises(BadInput, match="is a link"):
        write_page(tmp_path / "compare.html", a, a, inline_limit=0)


def test_5000_prompts_without_a_stutter(watched, tmp_path):
    """20,000 pairs: filters answer at once, a link opens one of the last file."""
    prompts = make_prompts(5000)
    sizes = [encode(np.full((300, 300, 3), 9 * n, np.uint8)) for n in range(20)]
    runs = [
        make_judged(
            tmp_path / name,
            prompts,
            lambda row, key, wrong=wrong: judged(row % wrong != 0),
            image_of=lambda row: sizes[row % 20],
            images_per_prompt=4,
            checkpoint=name,
        )
        for name, wrong in (("a", 4), ("b", 5))
    ]
    started = time.perf_counter()
    path = write_page(tmp_path / "compare.html", *runs, images=200)
    written = time.perf_counter() - started
    assert path.stat().st_size < 300_000
    started = time.perf_counter()
    page = watched.open(path)
    opened = time.perf_counter() - started
    assert page.inner_text("#status") == "7,000 of 20,000 pairs of images"
    assert page.locator(".card").count() <= 300
    took = page.evaluate("""async () => {
        const times = [];
        for (const change of ["lost", "all", "won"]) {
            const start = performance.now();
            document.querySelector(`#changes input[value=${change}]`).click();
            await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
            times.push(performance.now() - start);
        }
        return times;
    }""")
    filtered = ", ".join(f"{ms:.0f}" for ms in took)
    print(f"20,000 pairs: written in {written:.1f} s, opened in {opened:.2f} s, filters in {filtered} ms")
    assert max(took) < 1000
    page.fill("#query", "number 4999")
    page.wait_for_function("() => document.getElementById('status').textContent.startsWith('1 of')")
    page = watched.open(path, "#change=all&image=p4999/3&row=19999")
    page.wait_for_selector("#view[open]")
    assert page.inner_text("#view-position") == "20,000 of 20,000"
    assert page.inner_text("#second .details dd >> nth=0") == "p4999/3"
