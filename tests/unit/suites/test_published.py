"""The published scores have sources and plausible values."""

import pytest

from sar_eval.suites.published import PublishedScore, read_published
from sar_eval.suites.shapes.vocabulary import TASKS


@pytest.mark.parametrize(("benchmark", "top"), [("geneval", 1), ("dpg", 100)])
def test_every_score_has_a_source_and_is_on_its_scale(benchmark, top) -> None:
    rows = read_published(benchmark)
    assert len(rows) > 10
    assert [row.overall for row in rows] == sorted((row.overall for row in rows), reverse=True)
    for row in rows:
        assert row.source
        assert 0 < row.overall <= top
        assert row.overall > top / 5
        assert set(row.protocol) == {"rewriter", "resolution", "guidance", "images_per_prompt"}


def test_an_overall_score_is_the_mean_of_its_tasks() -> None:
    """Each figure is rounded to two digits at its source."""
    for row in read_published("geneval"):
        if row.tasks:
            assert tuple(row.tasks) == TASKS
            assert sum(row.tasks.values()) / 6 == pytest.approx(row.overall, abs=0.0101), row.model


def test_no_score_is_listed_twice() -> None:
    for name in ("geneval", "dpg"):
        keys = [(row.model, row.source, row.conditions) for row in read_published(name)]
        assert len(keys) == len(set(keys))


def test_conditions_in_words() -> None:
    protocol = {"rewriter": True, "resolution": 1024, "guidance": None, "images_per_prompt": 4}
    row = PublishedScore("m", "geneval", 0.5, {}, "s", protocol)
    assert row.conditions == "rewritten prompts, 1024 pixels, 4 images per prompt"
    assert PublishedScore("m", "geneval", 0.5, {}, "s", {}).conditions == "not stated"
    assert read_published("shapes") == []
