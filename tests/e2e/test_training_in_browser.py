"""A training's page in a real browser: no scripts, no requests, fits a phone, follows the colour scheme."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sar_eval.report.training_page import write_training_page
from tests.training_journals import HOSTILE, write_journal


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """The page of two hundred steps."""
    folder = write_journal(tmp_path_factory.mktemp("training"), 200)
    write_training_page(folder)
    return folder / "training.html"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1440])
def test_fits_its_window_and_follows_the_colour_scheme(watched, path, scheme, width):
    page = watched.page
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) > 380) == (scheme == "light")
    letters = page.locator(".plot svg text").evaluate_all(
        "texts => texts.map(text => text.getBoundingClientRect().height)"
    )
    assert round(min(letters), 2) >= 10  # sums of places on the page are rounded
    assert page.locator("img").evaluate_all("images => images.every(image => image.naturalWidth > 0)")


@pytest.mark.slow
def test_hostile_text_stays_text(watched, path):
    page = watched.page
    page.goto(path.as_uri())
    assert page.locator("script").count() == 0
    assert page.locator("img[src=x]").count() == 0
    assert page.locator(".strip h3").all_inner_texts() == ["a red star", HOSTILE]
    assert HOSTILE in page.locator(".absent").first.inner_text()
    assert (
        page.locator(".banner").first.inner_text().strip() == "Stopped at step 200: a hold-out judge fell"
    )


@pytest.mark.slow
def test_every_point_of_a_curve_can_be_read_by_hovering(watched, path):
    page = watched.page
    page.goto(path.as_uri())
    plot = page.locator(".plot").filter(has_text="Reward: shapes")
    titles = plot.locator(".hit title").all_text_contents()
    assert len(titles) <= 120
    assert all(re.fullmatch(r"step \d+: 0\.500", title) for title in titles)
    boxes = plot.locator(".hit").evaluate_all("all => all.map(hit => Number(hit.getAttribute('width')))")
    assert all(width > 0 for width in boxes)
    assert sum(boxes) == pytest.approx(400 - 46 - 12, abs=1)
