"""The history's page in a real browser, opened from disk: points, measures, keyboard, hostile names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sar_eval.report.history_page import write_history
from sar_eval.stages.history import make_history
from sar_eval.types import DrawProtocol
from tests.history_folders import make_suite, write_run, write_training

HOSTILE = "/x/</script><img src=x onerror=alert(1)>'\"&{{7*7}}/step-1000"


def _write(folder: Path, **how) -> Path:
    return write_history(make_history(folder, **how), folder / "history.html")


def _open(watched, path: Path):
    watched.page.goto(path.as_uri())
    watched.page.wait_for_selector(".mark")
    return watched.page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six checkpoints with a step after the third, one of them run twice; and two with other guidance."""
    folder = tmp_path_factory.mktemp("runs")
    write_training(folder, [0.4] * 3 + [0.7] * 3, per_task=12)
    again = {"checkpoint": "/out/sft/step-2000", "checkpoint_digest": "sft2", "seed": 1}
    write_run(folder / "again", make_suite(12), 0.4, **again)
    write_training(folder / "g", [0.5, 0.5], per_task=12, protocol=DrawProtocol("shapes", 64, guidance=3.0))
    write_run(folder / "base", make_suite(12), 0.5, checkpoint="/x/<b>base", checkpoint_digest="b")
    return folder


@pytest.mark.slow
def test_shows_every_run_its_interval_and_the_change(watched, folder):
    history = make_history(folder)
    page = _open(watched, write_history(history, folder / "history.html"))
    shown = page.locator("[data-measure='overall']")
    assert shown.locator(".plot .mark").count() == 9
    assert shown.locator(".legend li").all_inner_texts() == ["guidance 1.0", "guidance 3.0"]
    for table, series in zip(shown.locator("table").all(), history.series, strict=True):
        rows = table.locator("tbody tr").all()
        for row, entry, figure in zip(rows, series.entries, series.curves[0].figures, strict=True):
            cells = row.locator("td").all_inner_texts()
            assert row.locator("th").inner_text() == entry.label
            assert cells[:3] == [
                f"{entry.step:,}",
                f"{figure.value:.3f}",
                f"[{figure.low:.3f}, {figure.high:.3f}]",
            ]
    assert shown.locator("tr.changed").count() == 1
    assert shown.locator("tr.changed th").inner_text() == "step-4000"
    assert shown.locator(".jump").count() == 1
    assert shown.locator(".jump-label").text_content() in shown.locator("tr.changed").inner_text()
    assert "from 4000 on: overall +" in shown.locator(".sentences").first.inner_text()
    assert "<b>base" in page.inner_text("#left-out")


@pytest.mark.slow
def test_points_lie_where_their_figures_are(watched, folder):
    history = make_history(folder)
    page = _open(watched, write_history(history, folder / "history.html"))
    found = page.locator("[data-measure='overall'] .mark .hit").evaluate_all(
        "hits => hits.map(hit => [Number(hit.getAttribute('cx')), Number(hit.getAttribute('cy'))])"
    )
    figures = [figure.value for series in history.series for figure in series.curves[0].figures]
    steps = [entry.step for series in history.series for entry in series.entries]
    # A line through two of them predicts all heights; places are by step, but for the few points aside.
    (first, last) = (min(range(9), key=figures.__getitem__), max(range(9), key=figures.__getitem__))
    slope = (found[last][1] - found[first][1]) / (figures[last] - figures[first])
    for (_, y), value in zip(found, figures, strict=True):
        assert y == pytest.approx(found[first][1] + slope * (value - figures[first]), abs=0.2)
    for (x, _), step in zip(found, steps, strict=True):
        assert x == pytest.approx(found[0][0] + (step - 1000) / 5000 * (found[6][0] - found[0][0]), abs=13)


@pytest.mark.slow
def test_one_measure_at_a_time(watched, folder):
    page = _open(watched, _write(folder, measure="task/colors"))
    assert page.input_value("#measure") == "task/colors"
    visible = """() => [...document.querySelectorAll("[data-measure]")]
        .filter(panel => !panel.hidden).map(panel => panel.dataset.measure)"""
    assert page.evaluate(visible) == ["task/colors"]
    page.select_option("#measure", "overall")
    assert page.evaluate(visible) == ["overall"]


@pytest.mark.slow
def test_hover_and_arrows_read_points_out(watched, folder):
    page = _open(watched, _write(folder))
    marks = page.locator("[data-measure='overall'] .mark")
    readout = page.locator("[data-measure='overall'] .readout")
    marks.nth(3).hover()
    assert readout.inner_text() == marks.nth(3).get_attribute("aria-label")
    assert re.match(
        r"step 3,000, step-3000: overall 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\], seed 0", readout.inner_text()
    )
    assert marks.nth(3).locator("title").text_content() == readout.inner_text()
    marks.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert readout.inner_text() == marks.nth(1).get_attribute("aria-label")
    assert (
        page.evaluate("document.querySelectorAll('.mark[tabindex=\"0\"]').length")
        == page.locator(".plot .scroll svg").count()
    )


@pytest.mark.slow
def test_hostile_names_stay_text(watched, tmp_path):
    for n in (1, 2):
        changes = {"checkpoint": HOSTILE.replace("1000", f"{n}000"), "checkpoint_digest": str(n)}
        write_run(tmp_path / "runs" / f"{n}<i>", make_suite(4), 0.5, benchmark="<u>&", **changes)
    path = write_history(make_history(tmp_path / "runs", order="name"), tmp_path / "out.html")
    page = _open(watched, path)
    assert page.locator("img, i, u, b, script").count() == 1
    assert page.locator("h2").first.inner_text() == "<u>&"
    assert page.locator("tbody th").first.get_attribute("title") == HOSTILE


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("number", [1, 2, 60])
def test_follows_the_colour_scheme_and_fits_a_phone(watched, tmp_path, scheme, number):
    write_training(tmp_path, [0.5] * number, per_task=2)
    watched.page.emulate_media(color_scheme=scheme)
    watched.page.set_viewport_size({"width": 390, "height": 800})
    page = _open(watched, _write(tmp_path))
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) > 380) == (scheme == "light")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("[data-measure='overall'] .mark").count() == number
