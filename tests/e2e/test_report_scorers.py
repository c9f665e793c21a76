"""The report's section on scorers, and the gallery by a scorer's numbers, in a real browser."""

from __future__ import annotations

import random

import numpy as np
import pytest
from report_runs import draw_scene, make_prompts, make_run, make_spec

from sar_eval.measures import Measure, stratum
from sar_eval.report.data import read_rows, read_verdicts
from sar_eval.report.scorers import SHOWN, correlations, scorer_columns, scorer_panels
from sar_eval.stats.correlation import auc, spearman

ODD = "a<b>&'\""  # a scorer's name comes from a file's name


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """24 prompts, twice drawn."""
    rng = random.Random(5)
    path = tmp_path_factory.mktemp("run")
    return make_run(path, make_prompts(4), make_spec(), lambda draw: draw_scene(draw.prompt, rng))


@pytest.fixture(scope="module")
def numbers(run):
    """By scorer, by key: the second has ties, and none of prompts of a star."""
    rng = np.random.default_rng(0)
    first = {key: float(rng.normal(0.28, 0.02)) for key in run.expected}
    second = {k: float(rng.integers(0, 4)) for k, p in run.expected.items() if "star" not in p.text}
    return {"hps": first, ODD: second}


def measure(name, values):
    rows = [(*key.rsplit("/", 1), value) for key, value in values.items()]
    return Measure(f"scorer/{name}", (stratum((p, int(i), v, 1.0) for p, i, v in rows),), bounds=None)


@pytest.fixture(scope="module")
def measures(numbers):
    return [measure(name, values) for name, values in numbers.items()]


@pytest.fixture(scope="module")
def path(run, measures):
    return run.write(scorers=measures)


def table_of(run, measures):
    rows = read_rows(run.spec, run.folder)
    list(read_verdicts(run.spec, run.folder, rows, set()))
    return rows, scorer_columns(measures, rows)


def test_a_run_of_thousands_of_scorers_shows_the_first(run, numbers) -> None:
    values = next(iter(numbers.values()))
    _, columns = table_of(run, [measure(f"s{i}", values) for i in range(1000)])
    assert [column.name for column in columns] == [f"s{i}" for i in range(SHOWN)]


def test_histograms_hold_every_picture_and_name_those_without_a_number(run, measures, numbers):
    rows, columns = table_of(run, measures)
    for column, panel in zip(columns, scorer_panels(columns, rows), strict=True):
        known = numbers[column.name]
        assert (panel.n, panel.without) == (len(known), len(run.expected) - len(known))
        counted = sum(int(found.title.split(": ")[1].split()[0].replace(",", "")) for found in panel.bins)
        assert counted == len(known)
        assert float(panel.value) == pytest.approx(np.mean(list(known.values())), abs=1e-3)
        best = sorted(known, key=lambda key: -known[key])  # stable: equal ones in suite order
        assert [rows.key(number) for number in column.best] == best[:6]


def test_correlations_are_of_verdicts_and_of_scorers_clustered_by_prompt(run, measures):
    rows, (hps, odd) = table_of(run, measures)
    found = correlations([hps, odd], rows, "shapes")
    prompts = np.arange(len(rows)) // 2
    passed = np.array([run.state(rows.key(n)) == "pass" for n in range(len(rows))], float)
    area, rho = auc(hps.values, passed, prompts), spearman(odd.values, hps.values, prompts)
    assert found.verdict == "Verdict (AUC)"
    assert found.names == ["hps"]
    assert found.rows[0][1].value == f"{area.value:.2f}"
    assert found.rows[1][2][0].value.replace("\N{MINUS SIGN}", "-") == f"{rho.value:.2f}"
    assert f"{rho.pictures} pictures of {rho.prompts} prompts" == found.rows[1][2][0].title
    assert correlations([hps], rows, "score") is None  # the verdict is the scorer's own number
    assert correlations([hps, odd], rows, "score").verdict == ""


def keys(page):
    return page.locator(".card").evaluate_all("cards => cards.map(card => card.dataset.key)")


@pytest.mark.slow
def test_a_report_without_scorers_has_no_such_section(watched, run, tmp_path):
    page = watched.open(run.write())
    assert page.locator("#scorers, #scorer, .score-line").count() == 0


@pytest.mark.slow
def test_the_section_and_its_extremes(watched, run, measures, numbers):
    page = watched.open(run.write(scorers=measures))
    assert page.locator(".scorer h3").all_inner_texts() == ["hps", ODD]
    without = len(run.expected) - len(numbers[ODD])
    assert f"{without} with no score" in page.inner_text(".scorer:nth-of-type(2) .figure")
    best = max(numbers["hps"], key=numbers["hps"].get)
    thumb = page.locator(".scorer").first.locator("[data-end=best] .thumb").first
    assert thumb.inner_text() == f"{numbers['hps'][best]:.4f}"
    thumb.press("Enter")
    page.wait_for_selector("#view[open]")
    assert best in page.inner_text("#details")
    assert page.locator("#view-score-lines dd").first.inner_text() == f"{numbers['hps'][best]:.4f}"


@pytest.mark.slow
def test_the_range_filters_and_keeps_those_without_a_number_until_told(watched, path, run, numbers):
    page = watched.open(path)
    page.select_option("#scorer", ODD)
    page.fill("#min", "1")
    page.fill("#max", "2")
    known = numbers[ODD]
    inside = [key for key, value in known.items() if 1 <= value <= 2]
    assert keys(page) == inside + [key for key in run.expected if key not in known]
    assert page.locator(".missing-score .score-value").all_text_contents() == ["no score"] * (
        len(run.expected) - len(known)
    )
    page.uncheck("#unscored")
    assert keys(page) == inside
    page.reload()  # the address has it all
    page.wait_for_selector(".card")
    assert keys(page) == inside
    assert (page.input_value("#min"), page.input_value("#max")) == ("1", "2")
    page.click("#reset")
    page.wait_for_function("() => document.querySelectorAll('.card').length === 48")
    assert page.is_hidden("#range")


@pytest.mark.slow
def test_sliders_work_by_keyboard_and_do_not_pass_each_other(watched, path, numbers):
    page = watched.open(path, "#scorer=hps&max=none")  # no number: no limit
    for _ in range(60):
        page.press("#min-slider", "ArrowRight")
    page.wait_for_function("() => document.getElementById('min').value !== ''")
    page.wait_for_function("() => document.querySelectorAll('.card').length < 48")
    page.wait_for_timeout(100)
    low, high = min(numbers["hps"].values()), max(numbers["hps"].values())
    limit = float(page.input_value("#min"))
    assert limit == pytest.approx(low + 0.3 * (high - low), abs=1e-4)
    assert keys(page) == [key for key, value in numbers["hps"].items() if np.float32(value) >= limit]
    page.press("#max-slider", "Home")
    page.wait_for_function("() => document.getElementById('max').value !== ''")
    assert page.input_value("#max") == page.input_value("#min")


@pytest.mark.slow
def test_sorting_and_going_on_in_that_order(watched, path, run, numbers):
    page = watched.open(path, "#scorer=hps&sort=low")
    order = sorted(run.expected, key=numbers["hps"].get)
    assert keys(page) == order
    page.locator(".card").first.click()
    page.wait_for_selector("#view[open]")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"() => document.getElementById('details').textContent.includes('{order[1]}')")
    assert page.inner_text("#view-position") == "2 of 48"


@pytest.mark.slow
def test_a_page_with_its_rows_beside_it_has_the_pictures_of_the_extremes(watched, run, measures):
    page = watched.open(run.write(scorers=measures, inline_limit=0, images=0))
    page.wait_for_function("() => document.querySelectorAll('.thumb').length === 24")
    assert page.locator(".thumb .absent").count() == 0
    assert page.locator(".card .absent").count() > 0
