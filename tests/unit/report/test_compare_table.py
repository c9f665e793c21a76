"""The comparing page's figures in words, its axes, and what it says of the runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from sar_eval.comparisons import Comparison, Difference, Pair, Published, RunFacts, Side
from sar_eval.report.compare_facts import fact_groups, published_lines
from sar_eval.report.compare_page import LONGEST_NAME, default_page
from sar_eval.report.compare_table import NONE, difference_table, make_axis, overview
from sar_eval.types import DrawProtocol

FOUND = Difference(
    measure="overall", scale=1, first=0.5, second=0.625, value=0.125, low=0.02, high=0.23, lower=0.03,
    upper=0.22, p=0.012, p_adjusted=0.03, won=6, lost=1, tied=3, prompts=10, draws=1040, detectable=0.15,
    prompts_needed=1400, images_needed=None,
)  # fmt: skip
FACTS = RunFacts(
    name="shapes-a", benchmark="shapes", fold="shapes", fold_version="1", suite_digest="s", prompts=10,
    images_per_prompt=4, checkpoint="org/a", checkpoint_digest="c", protocol=DrawProtocol("p", 64),
    engine="native", engine_version="2", dtype="float32", seed=0, judge="shapes", judge_version="1",
    judge_digest="j", judge_options={"threshold": 0.6}, spec_digest="d", expected=40, failed=0,
    sar_eval="1",
)  # fmt: skip


def make_side(letter: str, **changes) -> Side:
    facts = replace(FACTS, **changes)
    figures = {"overall": 0.5, "task/counting": 0.25}
    return Side(
        letter=letter, label=letter.lower(), path=f"runs/{letter}", is_baseline=False, facts=facts,
        figures=figures,
    )  # fmt: skip


def make_comparison(*sides: Side, differences=(FOUND,), **changes) -> Comparison:
    pair = Pair(first="A", second="B", shares_noise=True, differences=tuple(differences))
    return Comparison(benchmark="shapes", scale=1, sides=sides, pairs=(pair,), **changes)


@pytest.mark.parametrize(
    ("values", "low", "high", "labels"),
    [
        ([0.1, 0.02, 0.23], 0, 0.25, ["0", "+0.05", "+0.1", "+0.15", "+0.2", "+0.25"]),
        ([-1.3, -2.2, 0.4, None], -3, 1, ["-3", "-2", "-1", "0", "+1"]),
        ([-0.045, 0.05], -0.06, 0.06, ["", "-0.04", "", "0", "", "+0.04", ""]),
        ([0.0, None], -1, 1, ["-1", "0", "+1"]),
        ([], -1, 1, ["-1", "0", "+1"]),
        ([5e-324, 2e-17], 0, 1, ["0", "+1"]),  # as means are rounded
        ([3e8], 0, 3e8, ["0", "+1e+08", "+2e+08", "+3e+08"]),
    ],
)
def test_an_axis_has_round_ends_around_zero(values, low, high, labels) -> None:
    axis = make_axis(values)
    assert (axis.low, axis.high) == pytest.approx((low, high))
    assert [label for label, _ in axis.ticks] == labels
    assert axis.ticks[0][1] == 0
    assert axis.ticks[-1][1] == 100
    assert all(0 <= axis.place(value) <= 100 for value in values if value is not None)


def test_every_figure_has_its_meaning_in_words() -> None:
    row = difference_table(make_comparison(make_side("A"), make_side("B")).pairs[0]).overall
    text = {name: cell.text for name, cell in row.cells.items()}
    assert text == {
        "first": "0.500",
        "second": "0.625",
        "value": "+0.125",
        "interval": "[+0.020, +0.230]",
        "p": "0.030",
        "record": "6 · 1 · 3",
        "detectable": "0.150",
        "needed": f"1,400 / {NONE}",
    }
    assert row.outcome == "second-better"
    assert row.cells["value"].meaning == "B scores 0.125 higher than A"
    assert "alone it is 0.012" in row.cells["p"].meaning
    assert "higher on 6 prompts, lower on 1, and the same on 3" in row.cells["record"].meaning
    assert "no number of images" in row.cells["needed"].meaning


def test_what_cannot_be_said_is_a_dash() -> None:
    unknown = replace(
        FOUND, value=0.0, low=None, high=None, detectable=None, prompts_needed=None, p=1.0, p_adjusted=1.0
    )
    row = difference_table(Pair(first="A", second="B", shares_noise=True, differences=(unknown,))).overall
    assert [row.cells[n].text for n in ("interval", "detectable", "needed")] == [NONE] * 3
    assert (row.outcome, row.low, row.point) == ("undecided", None, 50)
    assert row.cells["value"].meaning == "B and A score the same"


def test_measures_stand_under_their_headings() -> None:
    names = ["overall", "task/a_b", "task/", "category/x", "reference/overall", "reference/category/x"]
    found = [replace(FOUND, measure=name) for name in names]
    table = difference_table(Pair(first="A", second="B", shares_noise=True, differences=tuple(found)))
    assert [title for title, _ in table.groups] == [
        *("", "By task", "By category", "By the official script's rules"),
        "By category, by the official script's rules",
    ]
    assert [(row.label, row.filter) for row in table.groups[1][1]] == [
        ("a b", "task=a_b"),
        ("untagged", ""),
    ]


def test_the_overview_has_all_pairs_on_one_axis() -> None:
    worse = replace(FOUND, value=-0.4, low=-0.5, high=-0.3)
    pairs = [
        Pair(first="A", second=letter, shares_noise=True, differences=(found,))
        for letter, found in (("B", FOUND), ("C", worse))
    ]
    axis, rows = overview(pairs)
    assert (axis.low, axis.high) == pytest.approx((-0.6, 0.4))
    assert [row.point for row in rows] == pytest.approx([72.5, 20])


def test_settings_that_differ_are_marked() -> None:
    other = DrawProtocol("p", 64, prefix="a ", guidance=2.0)
    groups = fact_groups([make_side("A"), make_side("B", protocol=other, judge_options={})])
    marked = {line.name: line.values for _, lines in groups for line in lines if line.differs}
    assert marked == {
        "prefix": ("", '"a "'),
        "guidance": ("1.0", "2.0"),
        "threshold": ("0.6", ""),
        "path": ("runs/A", "runs/B"),
    }


def test_of_imported_images_nothing_is_known() -> None:
    groups = dict(fact_groups([make_side("A", engine="none"), make_side("B")]))
    protocol = {line.name: line.values[0] for line in groups["Protocol"]}
    assert (protocol["name"], protocol["guidance"]) == ("p", "not known")
    assert {line.values[0] for line in groups["Drawing"] if line.name == "seed"} == {"not known"}


def test_published_scores_are_sorted_among_the_runs() -> None:
    score = Published(name="X", overall=0.51, tasks={"counting": 0.3}, source="a paper", conditions="64 px")
    tasks, lines = published_lines(make_comparison(make_side("A"), make_side("B"), published=(score,)))
    assert tasks == ["counting"]
    assert [line.name for line in lines] == ["X", "A (a)", "B (b)"]
    assert [line.tasks for line in lines] == [("0.3",), ("0.250",), ("0.250",)]
    assert published_lines(make_comparison(make_side("A"), make_side("B"))) == ([], [])


def test_the_page_has_a_place_of_its_own() -> None:
    sides = make_side("A", name="a/../b"), make_side("B", name="ü" * 300)
    path = default_page(make_comparison(*sides), Path("runs"))
    assert path.parts[:2] == ("runs", "compare")
    assert path.parts[2].startswith("a_.._b--___")
    assert len(path.parts[2]) == LONGEST_NAME
    other = default_page(make_comparison(sides[0], make_side("B", name="ü" * 301)), Path("runs"))
    assert other != path


def test_scorers_of_other_units_are_not_drawn_on_the_plot() -> None:
    scorer = replace(FOUND, measure="scorer/colourfulness", value=7.0, low=5.0, high=9.0)
    table = difference_table(make_comparison(differences=(FOUND, scorer)).pairs[0])
    assert table.axis == difference_table(make_comparison().pairs[0]).axis
    assert table.overall.point is not None
    ((title, (row,)),) = table.groups[1:]
    assert (title, row.label, row.point, row.low, row.high) == (
        "Scorers",
        "colourfulness",
        None,
        None,
        None,
    )
    assert row.cells["value"].text == "+7.000"
