"""The history's plot: places of checkpoints, labels that do not touch, scales of other figures."""

from itertools import pairwise
from pathlib import Path

import pytest

from sar_eval.histories import Curve, Entry, Series
from sar_eval.report.history_plot import HEIGHT, WIDTH, Plot, plot_of
from sar_eval.stages.history import make_history
from sar_eval.types import Metric
from tests.history_folders import make_suite, write_run


@pytest.mark.parametrize(
    ("steps", "title"), [((1, 2, 3), "training step"), ((1, 2, 9000), "evenly spaced")]
)
def test_steps_too_close_to_draw_are_evenly_spaced(
    tmp_path: Path, steps: tuple[int, ...], title: str
) -> None:
    for step in steps:
        name = {"checkpoint": f"/x/step-{step}", "checkpoint_digest": str(step)}
        write_run(tmp_path / str(step), make_suite(2), 0.5, **name)
    (series,) = make_history(tmp_path).series
    plot = plot_of([(series, series.curves[0])])
    assert plot.x_title.endswith(title)
    first, second, third = (mark.x for mark in plot.traces[0].marks)
    assert second - first == pytest.approx(third - second, abs=0.2)


def test_labels_of_long_names_are_what_differs_and_do_not_touch(tmp_path: Path) -> None:
    for n in range(12):
        name = {"checkpoint": f"/x/{'long-' * 9}{n:02d}-of-a-sweep", "checkpoint_digest": str(n)}
        write_run(tmp_path / str(n), make_suite(2), 0.5, **name)
    (series,) = make_history(tmp_path, order="name").series
    ticks = plot_of([(series, series.curves[0])]).x_ticks
    assert [label for _, label in ticks] == [f"{n:02d}" for n in range(12)]
    assert all(b[0] - a[0] > 7 * max(len(a[1]), len(b[1])) for a, b in pairwise(ticks))


def _plot(*figures: Metric, scale: int = 1) -> Plot:
    entries = tuple(
        Entry(checkpoint="", label="", path="", step=n, date="", seed=0, level=n)
        for n in range(len(figures))
    )
    curve = Curve(
        measure="overall",
        scale=scale,
        figures=figures,
        changes=(None,) * len(figures),
        level_changes=(),
        means=(),
    )
    series = Series(benchmark="b", differs="", entries=entries, curves=(curve,), order="step")
    return plot_of([(series, curve)])


@pytest.mark.parametrize(
    ("values", "scale", "labels"),
    [
        ((0.5,), 1, ["0.46", "0.48"]),
        ((0.0, 1.0), 1, ["0.0", "0.2"]),
        ((12.5, 80.0), 100, ["20", "40"]),
        ((-3.0, 40_000.0), 1, ["0", "10000"]),
        ((1.0, 1.0), 1, ["0.95", "0.96"]),
    ],
)
def test_axes_have_round_numbers_and_hold_all_points(
    values: tuple[float, ...], scale: int, labels: list[str]
) -> None:
    plot = _plot(*(Metric("overall", v, v, v, 1, scale) for v in values), scale=scale)
    assert [label for _, label in plot.y_ticks][:2] == labels
    assert all(0 < mark.y < HEIGHT and 0 < mark.x < WIDTH for mark in plot.traces[0].marks)


def test_a_figure_without_a_value_has_no_point() -> None:
    plot = _plot(Metric("overall", None, None, None, 0), Metric("overall", 0.5, None, None, 1))
    (mark,) = plot.traces[0].marks
    assert mark.low == mark.y == mark.high
    assert plot.traces[0].points.count(",") == 1


@pytest.mark.parametrize("names", [["a" * 40, "b" * 40], ["a" * 40], ["long-" * 9, "long-" * 9 + "x"]])
def test_names_that_stay_long_are_cut(names: list[str]) -> None:
    entries = tuple(
        Entry(checkpoint=name, label=name, path="", step=None, date="", seed=0, level=n)
        for n, name in enumerate(names)
    )
    figures = (Metric("overall", 0.5, 0.4, 0.6, 1),) * len(names)
    curve = Curve(
        measure="overall",
        scale=1,
        figures=figures,
        changes=(None,) * len(names),
        level_changes=(),
        means=(),
    )
    series = Series(benchmark="b", differs="", entries=entries, curves=(curve,), order="name")
    labels = [label for _, label in plot_of([(series, curve)]).x_ticks]
    assert len(set(labels)) == len(names)
    assert all(0 < len(label) <= 16 for label in labels)
