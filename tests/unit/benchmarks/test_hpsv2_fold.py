"""HPSv2's plain means, and the official means of means beside them."""

from statistics import pstdev

import pytest

from sar_eval.benchmarks.hpsv2 import HpsFold
from sar_eval.stats.differences import differences
from sar_eval.stats.intervals import metric_of
from sar_eval.suites.hpsv2.suite import chunk_spread, chunk_weights
from sar_eval.types import Metric, Prompt, Verdict

STYLES = {"anime": 3, "photo": 81}
PROMPTS = [Prompt(f"{style}-{n:05d}", "text", style) for style, each in STYLES.items() for n in range(each)]


def _verdicts(missing: tuple[str, ...] = ()) -> dict[str, Verdict]:
    """Scores 0.2 to 0.3, and 1 for the last photo."""
    scores = {p.id: 0.2 + n % 11 / 100 for n, p in enumerate(PROMPTS)} | {"photo-00080": 1.0}
    return {
        f"{name}/0": Verdict(f"{name}/0", "score", "1", score=score)
        for name, score in scores.items()
        if name not in missing
    }


def _figures(verdicts: dict[str, Verdict]) -> dict[str, Metric]:
    return {m.name: metric_of(m) for m in HpsFold().fold(PROMPTS, verdicts)}


def test_the_headline_is_over_pictures_and_styles_over_styles() -> None:
    verdicts = _verdicts()
    figures = _figures(verdicts)
    scores = [v.score for v in verdicts.values() if v.score is not None]
    assert figures["overall"].value == pytest.approx(100 * sum(scores) / 84)
    assert figures["styles"].value == pytest.approx(
        (figures["style/anime"].value + figures["style/photo"].value) / 2
    )
    assert (figures["overall"].n, figures["style/anime"].n) == (84, 3)


def test_a_last_run_of_one_picture_weighs_as_much_as_eighty_officially_and_not_here() -> None:
    photos = [v.score for key, v in _verdicts().items() if key.startswith("photo") and v.score is not None]
    first = sum(photos[:80]) / 80
    figures = _figures(_verdicts())
    assert figures["reference/style/photo"].value == pytest.approx(100 * (first + 1.0) / 2)
    assert figures["reference/style/photo_std"].value == pytest.approx(100 * pstdev([first, 1.0]))
    assert figures["style/photo"].value == pytest.approx(100 * sum(photos) / 81)
    assert figures["reference/style/anime"].value == pytest.approx(figures["style/anime"].value)


def test_a_missing_picture_shifts_the_official_runs() -> None:
    """Without one of the first 80, the last is no run of its own: quirk off by chance."""
    figures = _figures(_verdicts(("photo-00007",)))
    assert figures["reference/style/photo"].value == pytest.approx(figures["style/photo"].value)
    assert figures["reference/style/photo_std"].value == 0


def test_runs_with_other_gaps_are_compared_on_what_both_have() -> None:
    runs = [HpsFold().fold(PROMPTS, _verdicts(gap)) for gap in ((), ("photo-00007",))]
    found = {d.measure: d for d in differences(*runs)}
    assert (found["overall"].draws, found["overall"].value) == (83, pytest.approx(0))
    assert "reference/style/photo_std" not in found  # no mean of scores


def test_the_scores_have_no_bounds_and_an_interval_of_their_own() -> None:
    figures = _figures(_verdicts())
    assert all(figure.bounds is None for figure in figures.values())
    assert figures["style/anime"].low < figures["style/anime"].value < figures["style/anime"].high
    assert figures["reference/style/photo_std"].low is None


def test_only_the_first_of_several_pictures_counts_officially() -> None:
    prompt = PROMPTS[:1]
    verdicts = {
        f"anime-00000/{i}": Verdict(f"anime-00000/{i}", "score", "1", score=i / 10) for i in (1, 2, 3)
    }
    figures = {m.name: metric_of(m) for m in HpsFold().fold(prompt, verdicts)}
    assert (figures["overall"].value, figures["reference/style/anime"].value) == (
        pytest.approx(20),
        pytest.approx(10),
    )


def test_nothing_scored() -> None:
    assert _figures({})["overall"].value is None


def test_weights_and_spread_of_runs() -> None:
    assert chunk_weights(80) == [1.0] * 80
    assert chunk_weights(82) == [1.0] * 80 + [40.0, 40.0]
    assert chunk_weights(0) == []
    assert chunk_spread([0.25] * 200) == 0
