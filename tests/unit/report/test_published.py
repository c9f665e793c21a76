"""The published scores: every figure has a source and makes sense."""

import pytest

from sar_eval.report.published import PublishedScore, published
from sar_eval.suites.shapes.vocabulary import TASKS


@pytest.mark.parametrize(("benchmark", "top"), [("geneval", 1), ("dpg", 100)])
def test_every_figure_has_a_source_and_a_scale(benchmark, top) -> None:
    rows = published(benchmark)
    assert len(rows) > 10
    assert [row.overall for row in rows] == sorted((row.overall for row in rows), reverse=True)
    for row in rows:
        assert row.source
        assert 0 < row.overall <= top
        assert row.overall > top / 5
        assert set(row.protocol) == {"rewriter", "resolution", "guidance", "images_per_prompt"}


def test_an_overall_score_is_the_mean_of_its_tasks() -> None:
    """Each figure is rounded to two digits at its source."""
    for row in published("geneval"):
        if row.tasks:
            assert tuple(row.tasks) == TASKS
            assert sum(row.tasks.values()) / 6 == pytest.approx(row.overall, abs=0.0101), row.model


def test_no_figure_stands_twice() -> None:
    keys = [
        (row.model, row.source, row.conditions) for name in ("geneval", "dpg") for row in published(name)
    ]
    for name in ("geneval", "dpg"):
        keys = [(row.model, row.source, row.conditions) for row in published(name)]
        assert len(keys) == len(set(keys))


def test_conditions_in_words() -> None:
    protocol = {"rewriter": True, "resolution": 1024, "guidance": None, "images_per_prompt": 4}
    row = PublishedScore("m", "geneval", 0.5, {}, "s", protocol)
    assert row.conditions == "rewritten prompts, 1024 pixels, 4 images a prompt"
    assert PublishedScore("m", "geneval", 0.5, {}, "s", {}).conditions == "not told"
    assert published("shapes") == []
