"""The training page: plots lie where their figures are, warnings stand at the top, text stays text."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from sar_eval.errors import BadInput
from sar_eval.images.files import encode_png
from sar_eval.report.training_figures import curves, sections
from sar_eval.report.training_page import write_training_page
from sar_eval.report.training_plots import BINS, Across, intervals, lines, spread, stacked, written
from sar_eval.report.training_samples import FRAMES, read_page_samples
from sar_eval.storage import training_journal as stored
from sar_eval.storage.training_journal import HoldoutRow, StepRow
from tests.training_journals import HOSTILE, sample, write_journal


def page_of(folder: Path) -> str:
    """The page of a journal."""
    write_training_page(folder)
    return (folder / "training.html").read_text()


def points(text: str) -> list[tuple[float, float]]:
    """Of a polyline."""
    return [tuple(map(float, pair.split(","))) for pair in text.split()]


def curve(values: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Values at steps 1, 2, 3, ..."""
    return np.arange(1.0, len(values) + 1), np.array(values)


def test_points_lie_where_their_figures_are() -> None:
    plot = lines("t", "", {"": curve([0.0, 1.0, 0.5])}, Across(1, 3))
    (x0, y0), (x1, y1), (x2, y2) = points(plot.traces[0].line)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 > y2 > y1
    assert y2 - y1 == pytest.approx((y0 - y1) / 2, abs=0.2)
    assert plot.traces[0].last == "0.500"
    assert plot.traces[0].name == ""
    assert [strip.title for strip in plot.strips] == ["step 1: 0", "step 2: 1.00", "step 3: 0.500"]


def test_thousands_of_steps_are_thinned_and_no_spike_is_lost() -> None:
    values = [0.1, 0.2] * 2500
    values[1234], values[4321] = 0.4, -0.2
    plot = lines("t", "", {"": curve(values)}, Across(1, 5000))
    trace = plot.traces[0]
    assert len(points(trace.raw or trace.line)) == BINS
    assert len(plot.strips) == BINS
    band = [y for _, y in points(trace.band)]
    raw = [y for _, y in points(trace.raw or trace.line)]
    assert min(band) < min(raw) - 20
    assert max(band) > max(raw) + 20


def test_a_spike_is_cut_off_and_told() -> None:
    values = [1.0, 1.1, 0.9, 1.05] * 25
    values[50] = 500.0
    plot = lines("t", "", {"": curve(values)}, Across(1, 100))
    assert plot.note == "1 above the axis, up to 500"
    assert max(float(text) for _, text in plot.y_ticks) < 2
    heights = [y for _, y in points(plot.traces[0].line)]
    assert max(heights) - min(heights) < 60  # the running mean does not follow it
    assert lines("t", "", {"": curve([1.0, 500.0])}, Across(1, 2)).note == ""


def test_stages_are_stacked_the_largest_at_the_bottom_and_many_are_put_together() -> None:
    two = {"small": curve([1.0, 1.0]), "large": curve([3.0, 3.0])}
    plot = stacked("t", "", two, Across(1, 2))
    assert [(area.name, area.last) for area in plot.areas] == [("large", "3.00"), ("small", "1.00")]
    (_, top), _, _, (_, floor) = points(plot.areas[1].line)
    (_, below), *_ = points(plot.areas[0].line)
    assert floor == below
    assert plot.note == "4.00 in the mean"
    many = {f"s{n}": curve([float(n), 1.0]) for n in range(1, 10)}
    names = [area.name for area in stacked("t", "", many, Across(1, 2)).areas]
    assert names == ["s9", "s8", "s7", "s6", "s5", "other"]
    assert top < floor


def test_a_stage_that_some_steps_lack_adds_nothing_there() -> None:
    found = {"a": curve([1.0, 1.0, 1.0]), "b": (np.array([2.0]), np.array([5.0]))}
    plot = stacked("t", "", found, Across(1, 3))
    assert plot.note == "2.67 in the mean"


def test_intervals_are_whiskers() -> None:
    rows = [
        HoldoutRow(step=0, judge="a", value=0.5, low=0.4, high=0.6, n=9),
        HoldoutRow(step=10, judge="a", value=None, n=0),
        HoldoutRow(step=20, judge="a", value=0.7, low=0.6, high=0.8, n=9),
        HoldoutRow(step=20, judge="b", value=0.1, n=9),
    ]
    plot = intervals("t", "", rows, Across(0, 20))
    first, second, third = plot.whiskers
    assert first.low > first.y > first.high
    assert first.y - second.y == pytest.approx(first.low - first.y + second.y - second.high, abs=0.3)
    assert third.low == third.y == third.high
    assert second.title == "step 20, a: 0.700 [0.600, 0.800]"
    assert third.title == "step 20, b: 0.100"
    assert [trace.name for trace in plot.traces] == ["a", "b"]


def test_curves_leave_out_what_is_no_number() -> None:
    rows = [StepRow(1, {"a": 1.0, "b": math.nan}), StepRow(2, {"a": math.inf}), StepRow(3, {"a": 2.0})]
    found = curves(rows)
    assert list(found) == ["a"]
    assert found["a"][0].tolist() == [1, 3]


def test_every_figure_has_a_plot(tmp_path: Path) -> None:
    write_journal(tmp_path, 30)
    found = sections(stored.read_steps(tmp_path), stored.read_holdout(tmp_path))
    titles = {name: [plot.title for plot in part.plots] for name, part in found.items()}
    assert titles == {
        "Hold-out": ["Hold-out judges"],
        "Reward": ["Reward", "Reward: shapes"],
        "Policy": ["KL to the reference"],
        "Optimiser and time": ["Gradient norm", "Seconds a step"],
        "Other figures": [],
    }
    assert found["Reward"].constant == ["Groups with variance 0.750, shapes 0.500"]
    assert found["Other figures"].constant == [f"odd {HOSTILE} 1.00"]
    assert len(found["Policy"].plots[0].skips) == 1


def test_a_page_without_rewards_begins_with_the_loss(tmp_path: Path) -> None:
    """Of supervised training: points every 20 steps, evaluations of which the best is not the last."""
    stored.write_head(tmp_path, stored.JournalHead())
    figures = {"loss": 4.0, "learning_rate": 1e-4, "grad_norm": 0.5, "tokens_per_s": 1000.0}
    rows = [StepRow(n, {**figures, "loss": 100 / n, "mfu": 0.3 + n / 1e3}) for n in range(20, 420, 20)]
    stored.write_steps(tmp_path, rows)
    looks = [
        HoldoutRow(step=step, judge="shapes", value=value, low=value - 0.1, high=value + 0.1, n=9)
        for step, value in ((100, 0.25), (200, 0.75), (400, 0.5))
    ]
    stored.write_holdout(tmp_path, looks)
    found = sections(rows, looks)
    assert {name: [plot.title for plot in part.plots] for name, part in found.items()} == {
        "Hold-out": ["Hold-out judges"],
        "Loss": ["Loss"],
        "Optimiser and time": ["Model FLOPs utilisation"],
    }
    assert "nats a visual token" in found["Loss"].plots[0].about
    page = page_of(tmp_path)
    assert "400 steps, 3 hold-out evaluations" in page
    assert "<dt>Loss</dt>" in page.replace(' dir="auto"', "")
    assert "; best 0.750 at step 200" in page
    assert "Since step 100" in page


def test_the_page_says_first_what_must_be_known(tmp_path: Path) -> None:
    page = page_of(write_journal(tmp_path, 30))
    banners = re.findall(r'role="note" dir="auto"><p>(.*?)</p>', page)
    assert [banner.partition(" &lt;/script")[0] for banner in banners] == [
        "Stopped at step 30: a hold-out judge fell",
        "placebo: rewards are shuffled",
        "Hold-out judge falls fell: -0.060 [-0.070, -0.050] from step 0 to step 30",
        "1 of 30 steps changed no weight: step 5 (NaN",
    ]
    assert page.count('class="verdict worse"') == 3
    assert "<dt>Reward</dt>" in page.replace(' dir="auto"', "")


def test_groups_without_variance_are_told(tmp_path: Path) -> None:
    stored.write_head(tmp_path, stored.JournalHead())
    stored.write_steps(tmp_path, [StepRow(n, {"varied": 0.1}) for n in range(1, 21)])
    assert "Only 10% of the last groups had any variance" in page_of(tmp_path)


def test_text_of_a_run_stays_text_and_nothing_is_loaded(tmp_path: Path) -> None:
    page = page_of(write_journal(tmp_path, 30))
    assert HOSTILE not in page
    assert "<script" not in page
    assert "49" not in re.findall(r"recipe.*?</div>", page)[0]
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "default-src 'none'" in page
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)


def test_an_empty_journal_and_one_of_a_single_step_have_a_page(tmp_path: Path) -> None:
    stored.write_head(tmp_path, stored.JournalHead())
    assert "No step is recorded yet" in page_of(tmp_path)
    stored.write_steps(tmp_path, [StepRow(1, {"reward": 0.5, "seconds/train": 0.0})])
    assert "Seconds a step" in page_of(tmp_path)


def test_no_journal_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no file .*journal\.json"):
        write_training_page(tmp_path)


def test_filmstrips_are_spread_over_the_steps(tmp_path: Path) -> None:
    samples = read_page_samples(write_journal(tmp_path, 200))
    assert [strip.prompt for strip in samples.strips] == ["a red star", HOSTILE]
    steps = [frame.step for frame in samples.strips[0].frames]
    assert (len(steps), steps[0], steps[-1]) == (FRAMES, 0, 200)
    assert samples.extremes[0].step == 200
    [best], [worst] = samples.extremes[0].best, samples.extremes[0].worst
    assert best.picture.card.startswith("data:image/png;base64,")
    assert worst.picture.problem.startswith("too long")
    assert best.scores == ("shapes 1.000",)


def test_large_pictures_become_thumbnails(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    stored.write_samples(tmp_path, 1, [sample("watch", "x", 0, encode_png(noise))])
    [strip] = read_page_samples(tmp_path).strips
    picture = strip.frames[0].picture
    assert picture.card.startswith("data:image/webp")
    assert picture.size == (192, 192)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.4171, "0.417"),
        (153.0, "153"),
        (12.34, "12.3"),
        (1250.4, "1,250"),
        (2e-5, "2e-05"),
        (0.0, "0"),
        (-0.5, "-0.500"),
    ],
)
def test_figures_are_written_to_three_digits(value: float, text: str) -> None:
    assert written(value) == text


def test_spread_has_both_ends() -> None:
    assert spread(range(3), 5) == [0, 1, 2]
    assert spread(range(100), 4) == [0, 33, 66, 99]
