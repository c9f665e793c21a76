"""Runs in rounds: what they decide, that they stop, and that they are still the same runs."""

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sar_eval.comparisons import Round
from sar_eval.errors import BadInput, Incomplete, SpecMismatch
from sar_eval.measures import Measure, scores_by_task
from sar_eval.report.page import write_report
from sar_eval.runtime.drawing_order import draw_in_order
from sar_eval.runtime.local import LocalRuntime
from sar_eval.spec import RunSpec
from sar_eval.stages.export import export
from sar_eval.stages.gate import Asked
from sar_eval.stages.join import join
from sar_eval.stages.measure import score_run
from sar_eval.stages.resume import open_blocks, prepare
from sar_eval.stages.sequential import Workers, answer, drawing_order, run_in_rounds, stop_here
from sar_eval.stages.summarize import summarize
from sar_eval.stages.verify import verify
from sar_eval.storage.files import write_bytes
from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import DrawingOrder, Prompt, Verdict, make_draw
from tests.stored_runs import begin_run, make_spec, store_generations, store_verdicts

pytestmark = pytest.mark.slow

TASKS, EACH, IMAGES = ("colors", "counting", "position"), 30, 2
SUITE = [
    Prompt(f"{task}-{number:03d}", f"{task} {number}", task, split=("seen", "unseen")[number % 2])
    for number in range(EACH)
    for task in TASKS
]
ORDER = DrawingOrder(seed=0, by_tag=True)
KEYS = [make_draw(prompt, index, 0).key for prompt in SUITE for index in range(IMAGES)]
PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde\x00"
    b"\x00\x00\x0cIDATx\x9cc\xf8\xcf\xc0\x00\x00\x03\x01\x01\x00\xc9\xfe\x92\xef\x00\x00\x00\x00IEND\xaeB`\x82"
)
ASKED = Asked(tolerance=0.01)
NO_WORKERS = Workers(LocalRuntime(()), LocalRuntime(()))


def _scores(share: float, seed: int = 0) -> dict[str, float]:
    rng = random.Random(seed)
    return {key: float(rng.random() < share) for key in KEYS}


def _stored(
    path: Path, scores: Mapping[str, float], *, order: DrawingOrder | None = ORDER, **changes: object
) -> tuple[RunSpec, RunFolder]:
    """A run of which everything is drawn, and judged where there is a score."""
    spec, folder = begin_run(path, SUITE, **{"images_per_prompt": IMAGES, "batch_size": 36, **changes})
    folder.write_manifest(replace(folder.read_manifest(), order=order))
    store_generations(spec, folder, dict.fromkeys(KEYS, PNG))
    store_verdicts(spec, folder, scores)
    return spec, folder


def _baseline(scores: Mapping[str, float]) -> Measure:
    verdicts = {key: Verdict(key, "shapes", "1", score) for key, score in scores.items()}
    return Measure("overall", scores_by_task(SUITE, verdicts))


def _keep_blocks(folder: RunFolder, number: int) -> None:
    """Remove what was drawn after the first blocks."""
    for table in (folder.generations, folder.verdicts("shapes")):
        for block, part in table.parts().items():
            if block >= number:
                part.path.unlink()


def _looks(spec: RunSpec, folder: RunFolder, baseline: Measure) -> list[Round]:
    return list(run_in_rounds(spec, folder, baseline, ASKED, NO_WORKERS))


@pytest.fixture
def stopped(tmp_path: Path) -> tuple[RunSpec, RunFolder]:
    """A run that is clearly worse, stopped after the first round that shows it."""
    spec, folder = _stored(tmp_path / "worse", _scores(0.1))
    last = _looks(spec, folder, _baseline(_scores(0.9)))[-1]
    _keep_blocks(folder, open_blocks(spec, folder).blocks_of(last.prompts))
    stop_here(spec, folder, last, "A loss is shown.")
    return spec, folder


def test_a_clear_loss_fails_early_and_a_clear_gain_passes(tmp_path: Path) -> None:
    low, high = (_baseline(_scores(share)) for share in (0.1, 0.9))
    for share, baseline, decision in ((0.1, high, "fail"), (0.9, low, "pass")):
        found = _looks(*_stored(tmp_path / decision, _scores(share, seed=1)), baseline)
        assert [look.decision for look in found] == ["open"] * (len(found) - 1) + [decision]
        assert found[-1].prompts <= len(SUITE) / 3


def test_equal_runs_go_on_to_the_end(tmp_path: Path) -> None:
    spec, folder = _stored(tmp_path / "run", _scores(0.5, seed=2))
    found = _looks(spec, folder, _baseline(_scores(0.5, seed=1)))
    assert [look.prompts for look in found] == [18, 36, 54, 72, 90]  # whole blocks
    assert {look.decision for look in found} == {"open"}
    assert found[-1].low < 0 < found[-1].high


def test_the_whole_run_has_the_figures_of_a_plain_one(tmp_path: Path) -> None:
    """Folds see prompts in the order of the suite: scores of many digits add up to the same."""
    rng = random.Random(3)
    scores = {key: rng.random() for key in KEYS}
    runs = [_stored(tmp_path / str(order), scores, order=order) for order in (None, ORDER)]
    plain, mixed = (summarize(spec, folder) for spec, folder in runs)
    assert mixed == plain
    assert mixed.complete
    assert runs[0][0].digest == runs[1][0].digest
    ids = [[draw.prompt.id for draws in open_blocks(*run) for draw in draws] for run in runs]
    assert sorted(ids[0]) == sorted(ids[1]) != ids[0] != ids[1]


def test_a_stopped_run_is_neither_complete_nor_failed(stopped: tuple[RunSpec, RunFolder]) -> None:
    spec, folder = stopped
    summary = summarize(spec, folder)
    assert summary.stopped == "A loss is shown."
    assert (summary.partial, summary.complete, summary.failed, summary.problems) == (True, False, 0, ())
    assert 0 < summary.generated == summary.judged < summary.expected == len(KEYS)
    assert summary.metrics[0].n == summary.judged
    page = write_report(spec, folder).read_text()
    assert "This run stopped on purpose." in page
    assert "This run is incomplete" not in page
    assert verify(spec, folder).intact


def test_a_stopped_run_is_exported_and_joined(stopped: tuple[RunSpec, RunFolder], tmp_path: Path) -> None:
    spec, folder = stopped
    drawn = summarize(spec, folder).generated
    assert export(folder, "folder", tmp_path / "files") == drawn
    out = RunFolder(tmp_path / "joined")
    joined = join([folder], out)
    assert (joined.drawn, joined.judged, joined.expected) == (drawn, drawn, drawn)
    assert out.read_manifest().order == ORDER
    assert summarize(spec, out) == summarize(spec, folder)


def test_holes_before_the_stop_and_draws_after_it_make_a_run_incomplete(
    stopped: tuple[RunSpec, RunFolder], tmp_path: Path
) -> None:
    spec, folder = stopped
    blocks, number = open_blocks(spec, folder), len(folder.generations.parts())
    _, whole = _stored(tmp_path / "whole", _scores(0.1))
    folder.generations.adopt(whole.generations.parts()[number])  # drawn later, by a plain resume
    assert summarize(spec, folder).stopped == ""
    assert summarize(spec, folder).failed == len(KEYS) - sum(map(blocks.draws_in, range(number)))
    _keep_blocks(folder, number)
    folder.generations.parts()[0].path.unlink()
    summary = summarize(spec, folder)
    assert (summary.failed, summary.partial, summary.metrics) == (36, False, ())


def test_a_broken_off_run_comes_to_the_same_rounds(tmp_path: Path) -> None:
    baseline = _baseline(_scores(0.9))
    whole = _looks(*_stored(tmp_path / "whole", _scores(0.8, seed=4)), baseline)
    spec, folder = _stored(tmp_path / "broken", _scores(0.8, seed=4))
    rounds = run_in_rounds(spec, folder, baseline, ASKED, NO_WORKERS)
    assert [next(rounds), next(rounds)] == whole[:2]
    rounds.close()
    assert _looks(spec, folder, baseline) == whole


def test_a_draw_without_a_result_is_not_left_out(tmp_path: Path) -> None:
    baseline, scores = _baseline(_scores(0.9)), _scores(0.1)
    first = SUITE[draw_in_order(SUITE, ORDER)[0]].id
    spec, folder = _stored(tmp_path / "run", {k: v for k, v in scores.items() if k != f"{first}/1"})
    with pytest.raises(Incomplete, match=rf"1 images of this round have no result \({first}/1: \?\)"):
        _looks(spec, folder, baseline)
    spec, folder = _stored(tmp_path / "odd", {**scores, f"{first}/1": 3.5})
    with pytest.raises(BadInput, match="this run has scores outside 0 and 1"):
        _looks(spec, folder, baseline)


def test_baselines_that_no_bet_can_be_made_on(tmp_path: Path) -> None:
    lines = "".join(f"{p.id},{p.text},{p.tag},{p.split}\n" for p in SUITE)
    write_bytes(tmp_path / "suite.csv", f"id,text,tag,split\n{lines}".encode())
    spec = make_spec(SUITE, suite=str(tmp_path / "suite.csv"), images_per_prompt=IMAGES, seed=3)
    scores = _scores(0.5)
    good = _baseline(scores)
    assert drawing_order(spec, good) == DrawingOrder(seed=3, by_tag=True)
    single = replace(good, strata=good.strata[:1])
    with pytest.raises(BadInput, match=r"no score of 60 of 90 prompts \(counting-000, ...\)"):
        drawing_order(spec, single)
    with pytest.raises(BadInput, match="the baseline has scores outside 0 and 1"):
        drawing_order(spec, _baseline(scores | {KEYS[0]: -0.5}))
    del scores[KEYS[0]]
    with pytest.raises(BadInput, match="prompts do not weigh the same"):
        drawing_order(spec, _baseline(scores))


def test_the_question_decides_what_an_undecided_run_is_worth(tmp_path: Path) -> None:
    baseline = score_run(*_stored(tmp_path / "base", _scores(0.5, seed=5)))
    for share, not_shown, worse in (
        (0.95, ("yes", True), ("no", True)),
        (0.1, ("no", False), ("yes", False)),
        (0.5, ("undecided", False), ("undecided", True)),
    ):
        spec, folder = _stored(tmp_path / str(share), _scores(share, seed=6))
        found = _looks(spec, folder, baseline.measures[0])
        for fail_if, expected in (("not-shown", not_shown), ("worse", worse)):
            result = answer(spec, folder, baseline, replace(ASKED, fail_if=fail_if), found)
            [question] = result.questions
            assert (question.answer, question.passed) == expected
            assert question.passed is result.passed
            assert question.value == pytest.approx(question.figure - question.baseline)
            assert question.lower < question.value < question.upper


def test_a_tolerance_that_allows_everything_is_refused(tmp_path: Path) -> None:
    spec, folder = begin_run(tmp_path / "run", SUITE)
    for limit, scale in ((1.0, 1), (100.0, 100)):
        baseline = replace(_baseline(_scores(0.5)), scale=scale)
        with pytest.raises(BadInput, match=f"--tolerance is {scale}: no run loses more than {scale}"):
            next(run_in_rounds(spec, folder, baseline, Asked(tolerance=limit), NO_WORKERS))


def test_a_folder_keeps_its_order(suite: Path, spec: RunSpec, tmp_path: Path) -> None:
    plain, mixed = RunFolder(tmp_path / "plain"), RunFolder(tmp_path / "mixed")
    prepare(spec, plain)
    with pytest.raises(SpecMismatch, match="in the order of its suite, but --sequential draws"):
        prepare(spec, plain, order=ORDER)
    prepare(spec, mixed, order=ORDER)
    assert prepare(spec, mixed, order=ORDER) == prepare(spec, mixed) == spec
    assert mixed.read_manifest().order == ORDER
    with pytest.raises(SpecMismatch, match="a sequential run in another order"):
        prepare(spec, mixed, order=replace(ORDER, by_tag=False))
