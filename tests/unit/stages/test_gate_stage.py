"""What a gate asks of measures: units, numbers needed, baselines that do not fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sar_eval.comparisons import RunFacts
from sar_eval.errors import BadInput, Incomplete
from sar_eval.measures import Measure, stratum
from sar_eval.stages.compare import Allowed
from sar_eval.stages.gate import Asked, check_fit, gate
from sar_eval.stages.measure import ScoredRun
from sar_eval.types import DrawProtocol

FACTS = RunFacts(
    name="run",
    benchmark="b",
    fold="f",
    fold_version="1",
    suite_digest="s",
    prompts=60,
    images_per_prompt=4,
    checkpoint="demo:sft",
    checkpoint_digest="0",
    protocol=DrawProtocol("shapes", 64),
    engine="native",
    engine_version="1",
    dtype="float32",
    seed=0,
    judge="j",
    judge_version="1",
    judge_digest="d",
    spec_digest="0",
    expected=240,
    failed=0,
    sar_eval="0",
)


def scored(
    share: float, seed: int, scale: int = 1, images: int = 4, name: str = "overall", prompts: int = 60
) -> ScoredRun:
    """A run in which every image is right with this probability."""
    draws = np.random.default_rng(seed).random((prompts, images)) < share
    rows = ((f"p{p}", i, float(draws[p, i]), 1.0) for p in range(prompts) for i in range(images))
    measures = (Measure(name, (stratum(rows),), scale), Measure("effect/x", (), scale, is_effect=True))
    facts = replace(FACTS, images_per_prompt=images, expected=prompts * images, prompts=prompts)
    return ScoredRun(path=Path("run"), facts=facts, measures=measures)


@pytest.mark.parametrize(("scale", "tolerance"), [(1, 0.01), (100, 1.0)])
def test_the_default_tolerance_is_a_hundredth_of_the_scale(scale: int, tolerance: float) -> None:
    found = gate(scored(0.9, 1, scale), scored(0.3, 0, scale), Asked(), Allowed()).questions[0]
    assert (found.limit, found.passed, found.scale) == (tolerance, True, scale)
    assert found.value == pytest.approx(0.6 * scale, abs=0.1 * scale)
    assert found.lower is not None
    assert -tolerance < found.lower < found.value


def resampled(run: ScoredRun, prompts: np.ndarray) -> ScoredRun:
    """The run on a suite of these of its prompts, each as often as it is named."""
    (task,) = run.measures[0].strata
    scores = task.sums.reshape(len(task.prompts), -1)[prompts]
    rows = ((f"p{p}", i, score, 1.0) for p, row in enumerate(scores) for i, score in enumerate(row))
    return replace(run, measures=(Measure("overall", (stratum(rows),)),))


@pytest.mark.slow
def test_as_many_prompts_as_it_says_answer_in_80_percent() -> None:
    """Suites of so many prompts of the same kinds, whose true difference is the observed one."""
    asked, rng = Asked(tolerance=0.08), np.random.default_rng(0)
    run, baseline = scored(0.7, 1), scored(0.7, 2)
    found = gate(run, baseline, asked, Allowed()).questions[0]
    assert found.answer == "undecided"
    assert found.prompts_needed is not None
    passed = []
    for _ in range(60):
        prompts = rng.integers(0, 60, found.prompts_needed)
        held = gate(resampled(run, prompts), resampled(baseline, prompts), asked, Allowed())
        passed.append(held.passed)
    assert 0.65 <= np.mean(passed) <= 0.92


def test_numbers_needed_follow_the_margin() -> None:
    runs = scored(0.7, 1), scored(0.7, 2)
    found = {
        t: gate(*runs, Asked(tolerance=t), Allowed()).questions[0].prompts_needed for t in (0.02, 0.06)
    }
    value = gate(*runs, Asked(), Allowed()).questions[0].value
    assert found[0.02] is not None
    assert found[0.06] is not None
    assert found[0.02] / found[0.06] == pytest.approx(((0.06 + value) / (0.02 + value)) ** 2, rel=0.05)


def test_scores_of_one_prompt_decide_nothing() -> None:
    """Rewards of any size: their spread is not known."""
    one = stratum([("p", 0, 7.5, 1.0)])
    run = replace(scored(0.5, 0), measures=(Measure("overall", (one,)),))
    worse = replace(run, measures=(Measure("overall", (stratum([("p", 0, 3.0, 1.0)]),)),))
    found = gate(worse, run, Asked(), Allowed()).questions[0]
    assert (found.lower, found.upper, found.answer, found.passed) == (None, None, "undecided", False)
    assert gate(worse, run, Asked(fail_if="worse"), Allowed()).passed


def test_the_headline_is_the_first_measure() -> None:
    found = gate(scored(0.9, 0, name="reward"), scored(0.2, 0, name="reward"), Asked(), Allowed())
    assert [q.measure for q in found.questions] == ["reward"]


@pytest.mark.parametrize(
    ("facts", "asked", "allowed", "error", "message"),
    [
        ({"suite_digest": "t"}, Asked(), Allowed(), BadInput, "have other prompts"),
        ({"judge_digest": "e", "judge_version": "2"}, Asked(), Allowed(), BadInput, "have other judges"),
        (
            {"protocol": DrawProtocol("x", 32)},
            Asked(),
            Allowed(),
            BadInput,
            "resolution is 32 and 64|64 and 32",
        ),
        (
            {"images_per_prompt": 1, "expected": 60},
            Asked(),
            Allowed(),
            BadInput,
            r"new is of 1 images of each prompt, run of 4: draw as many \(-n\), or --allow-missing 0.75",
        ),
        ({"images_per_prompt": 8, "expected": 480}, Asked(), Allowed(), BadInput, "run is of 4 images"),
        ({}, Asked(measures=("overal",)), Allowed(), BadInput, "did you mean 'overall'"),
        ({}, Asked(measures=("effect/x",)), Allowed(), BadInput, "there is no such measure to ask of"),
        ({}, Asked(floors={"x": 0.5}), Allowed(), BadInput, "--floor 'x'"),
    ],
)
def test_a_baseline_that_does_not_fit_is_refused_before_the_run(
    facts: dict, asked: Asked, allowed: Allowed, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_fit(replace(FACTS, **facts), Path("new"), scored(0.5, 0), asked, allowed)


def test_a_baseline_with_holes_or_of_fewer_images_if_allowed() -> None:
    baseline = scored(0.5, 0)
    holes = replace(baseline, facts=replace(baseline.facts, failed=24))
    with pytest.raises(Incomplete, match="run is incomplete: 24 of 240"):
        check_fit(FACTS, Path("new"), holes, Asked(), Allowed())
    check_fit(FACTS, Path("new"), holes, Asked(), Allowed(missing=0.1))
    fewer = replace(FACTS, images_per_prompt=1, expected=60)
    check_fit(fewer, Path("new"), baseline, Asked(), Allowed(missing=0.75))
