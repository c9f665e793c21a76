"""The tables of `run` and `summarize` on a terminal of 80 columns: complete figures, unbroken labels."""

import io

import pytest
from rich.console import Console

from sar_eval.cli.progress import quirk_table, score_table
from sar_eval.suites.dpg.suite import CATEGORIES
from sar_eval.suites.shapes.vocabulary import TASKS
from sar_eval.types import Metric, Summary

SHAPES = (
    *(Metric(name, 1.0, 0.995, 1.0, 99_999) for name in ("overall", "correct_images", "correct_prompts")),
    *(Metric(f"task/{task}", 0.5, 0.25, 0.75, 99_999) for task in TASKS),
    *(Metric(f"split/{split}", None, None, None, 0) for split in ("seen", "unseen")),
)
DETAILS = [
    f"{category} - {detail}" if detail else category
    for category, details in CATEGORIES.items()
    for detail in details
]
NAMES = ["overall", *(f"category/{name}" for name in CATEGORIES), *(f"detail/{name}" for name in DETAILS)]
DPG = (
    Metric("overall", 91.384, 84.861, 96.019, 99_999, 100),
    Metric("soft", 91.384, 84.861, 96.019, 99_999, 100),
    *(Metric(name, 99.996, 97.881, 100.0, 99_999, 100) for name in NAMES[1:]),
    *(Metric(f"reference/{name}", 100.0, 99.812, 100.0, 99_999, 100) for name in NAMES),
    Metric("quirk/failing_prompts_dropped", -12.345, -23.456, -10.0, 1065, 100),
)


def _lines(table: object, width: int = 80) -> list[str]:
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None).print(table)
    return buffer.getvalue().splitlines()


def _rows(lines: list[str]) -> list[list[str]]:
    """Cells of the table's body, without the rules between sections."""
    return [[cell.strip() for cell in line[1:-1].split("│")] for line in lines if line.startswith("│")]


def _summary(metrics: tuple[Metric, ...]) -> Summary:
    return Summary("d", "dpg", "demo:sft", {}, 12, 12, 12, 0, metrics, (), {})


@pytest.mark.parametrize("metrics", [SHAPES, DPG], ids=["shapes", "dpg"])
def test_score_tables_fit_80_columns(metrics: tuple[Metric, ...]) -> None:
    lines = _lines(score_table(_summary(metrics)))
    assert max(map(len, lines)) <= 80
    assert not any("\N{HORIZONTAL ELLIPSIS}" in line for line in lines)
    assert _rows(lines) == _rows(_lines(score_table(_summary(metrics)), 200)), "one line per metric"


def test_rows_of_shapes_are_complete() -> None:
    rows = _rows(_lines(score_table(_summary(SHAPES))))
    assert [row[0] for row in rows] == [
        *("overall", "correct images", "correct prompts"),
        *("single object", "two object", "counting", "colors", "position", "color attr"),
        *("seen", "unseen"),
    ]
    assert rows[0][1:] == ["1.000", "0.995 to 1.000", "99999"]
    assert rows[-1][1:] == ["-", "-", "0"]


def test_rows_of_dpg_are_complete_and_details_follow_their_category() -> None:
    lines = _lines(score_table(_summary(DPG)))
    rows = _rows(lines)
    labels = [label for category, details in CATEGORIES.items() for label in (category, *details)]
    assert [row[0] for row in rows] == ["overall", "soft", *(label or "global" for label in labels)]
    assert rows[0][1:] == ["91.38", "84.86-96.02", "99999", "100.00", "99.81-100.00"]
    assert rows[1][1:] == ["91.38", "84.86-96.02", "99999", "-", "-"]
    assert {tuple(row[1:]) for row in rows[2:]} == {
        ("100.00", "97.88-100.00", "99999", "100.00", "99.81-100.00")
    }
    for detail in ("whole", "texture", "non-spatial", "count"):
        assert any(line.startswith(f"│   {detail} ") for line in lines), "indented"


def test_a_detail_of_an_unknown_category_has_its_full_label() -> None:
    metrics = (
        Metric("overall", 50.0, 40.0, 60.0, 4, 100),
        Metric("detail/mood - calm", 1.0, 0.0, 2.0, 3, 100),
    )
    assert [row[0] for row in _rows(_lines(score_table(_summary(metrics))))] == ["overall", "mood - calm"]


def test_scorers_stand_under_a_rule_and_are_named_as_such() -> None:
    metrics = (*SHAPES, Metric("scorer/clip:hessel", 0.7, 0.6, 0.8, 12, bounds=None))
    lines = _lines(score_table(_summary(metrics)))
    row = next(number for number, line in enumerate(lines) if "scorer clip:hessel" in line)
    assert lines[row - 1].startswith("├")


def test_the_quirk_table_fits_80_columns() -> None:
    lines = _lines(quirk_table(_summary(DPG)))
    assert max(map(len, lines)) <= 80
    assert _rows(lines) == [["failing prompts dropped", "-12.35", "-23.46 to -10.00", "1065"]]
