"""What the stages do with engines and judges that misbehave, and with what an earlier start left."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from sar_eval.errors import SpecMismatch
from sar_eval.measures import scores_by_task
from sar_eval.runtime.blocks import Blocks
from sar_eval.spec import RunSpec
from sar_eval.stages.generate import BlockWriter, GenerateTask, _draw_block, begins_ahead
from sar_eval.stages.judge import _judge_block
from sar_eval.stages.resume import prepare
from sar_eval.stages.summarize import summarize
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import generation_from_row, verdict_from_row
from sar_eval.types import Draw, Generation, Verdict


class Scripted:
    """An engine and a judge that answer each key as they are told, and otherwise well."""

    version = "1"

    def __init__(self, **answers: object) -> None:
        self.answers = answers

    def generate(self, draws):
        for draw in draws:
            for answer in self.answers.get(draw.prompt.tag, [{"image": b"png"}]):
                yield Generation(draw.key, draw.seed, (1,), **answer)

    def judge(self, items):
        for prompt, generation in items:
            for answer in self.answers.get(prompt.tag, [{"score": 1.0, "passed": True}]):
                yield Verdict(generation.key, "shapes", "1", **answer)


class Ahead(Scripted):
    """Begins draws; after `breaks_after` images of a block it breaks."""

    def __init__(self, breaks_after: int = 1000) -> None:
        super().__init__()
        self.breaks_after, self.begun = breaks_after, list[str]()

    def begin(self, draws: Sequence[Draw]) -> Iterator[Future[list[Generation]]]:
        self.begun += [draw.key for draw in draws]
        for number, generation in enumerate(self.generate(draws)):
            if number >= self.breaks_after:
                raise RuntimeError("the card is gone")
            wave = Future[list[Generation]]()
            wave.set_result([generation])
            yield wave


@pytest.fixture
def folder(spec: RunSpec, tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    with run.lock():
        prepare(spec, run)
    return run


def _draw(spec: RunSpec, folder: RunFolder, engine: Scripted) -> None:
    for number, draws in enumerate(Blocks.of(folder.prompts(), spec)):
        with ThreadPoolExecutor(1) as executor:
            stored = _draw_block(engine, BlockWriter(spec, folder, number, draws), executor)
            assert isinstance(stored, Future) == begins_ahead(engine)
            if isinstance(stored, Future):
                stored.result()


def _judge(spec: RunSpec, folder: RunFolder, judge: Scripted) -> dict[str, Verdict]:
    for number, draws in enumerate(Blocks.of(folder.prompts(), spec)):
        _judge_block(judge, folder, spec, number, draws)
    return {row["key"]: verdict_from_row(row) for row in folder.verdicts("shapes").rows()}


def test_an_engine_that_gives_nothing_is_reported(spec: RunSpec, folder: RunFolder) -> None:
    _draw(spec, folder, Scripted(colors=[], counting=[{}]))
    found = {row["key"]: generation_from_row(row) for row in folder.generations.rows()}
    assert len(found) == 24
    silent = {key for key, generation in found.items() if generation.error == "the engine gave no image"}
    assert {key.split("-")[0] for key in silent} == {"colors", "counting"}
    assert len(silent) == 8


@pytest.mark.parametrize(
    ("answer", "score", "expected_error"),
    [
        ({"passed": True}, 1.0, None),
        ({"passed": False}, 0.0, None),
        ({}, None, "the judge gave no score"),
        ({"score": math.nan}, None, "the judge's score is nan"),
        ({"score": 0.5, "error": "broken"}, None, "broken"),
    ],
)
def test_every_verdict_has_a_score_or_an_error(
    spec: RunSpec, folder: RunFolder, answer: dict, score: float | None, expected_error: str | None
) -> None:
    _draw(spec, folder, Scripted())
    found = _judge(spec, folder, Scripted(colors=[answer]))
    verdict = found["colors-000/0"]
    assert (verdict.score, verdict.error) == (score, expected_error)
    summary = summarize(spec, folder)
    assert summary.complete == (expected_error is None)
    assert summary.judged == 24 - (4 if expected_error else 0)


def test_twice_the_same_key_is_a_fault(spec: RunSpec, folder: RunFolder) -> None:
    with pytest.raises(ValueError, match="twice"):
        _draw(spec, folder, Scripted(colors=[{"image": b"a"}, {"image": b"b"}]))
    _draw(spec, folder, Scripted())
    with pytest.raises(ValueError, match="twice"):
        _judge(spec, folder, Scripted(colors=[{"score": 1.0}, {"score": 0.0}]))


def test_giving_up_keeps_the_images_that_are_there(spec: RunSpec, folder: RunFolder) -> None:
    blocks = Blocks.of(folder.prompts(), spec)
    _draw(spec, folder, Scripted(colors=[{"error": "first"}]))
    number = next(i for i, block in enumerate(blocks) if any(d.prompt.tag == "colors" for d in block))
    failed = BlockWriter(spec, folder, number, blocks[number]).store_failure("given up")
    rows = folder.generations.read_block(number)
    assert failed == sum(d.prompt.tag == "colors" for d in blocks[number])
    assert {row["error"] for row in rows if not row["key"].startswith("colors")} <= {None}
    assert {row["error"] for row in rows if row["key"].startswith("colors")} == {"given up"}


def test_a_verdict_on_an_image_that_is_gone_does_not_count(spec: RunSpec, folder: RunFolder) -> None:
    _draw(spec, folder, Scripted())
    _judge(spec, folder, Scripted())
    folder.generations.paths()[0].unlink()
    summary = summarize(spec, folder, partial=True)
    assert (summary.generated, summary.judged, summary.failed) == (16, 16, 8)
    assert (summary.metrics[0].n, summary.partial) == (16, True)


def test_an_incomplete_run_has_no_scores_unless_they_are_asked_for(
    spec: RunSpec, folder: RunFolder
) -> None:
    _draw(spec, folder, Scripted())
    _judge(spec, folder, Scripted())
    whole = summarize(spec, folder, partial=True)
    assert (whole.complete, whole.partial, len(whole.metrics)) == (True, False, 11)
    folder.generations.paths()[0].unlink()
    holes = summarize(spec, folder)
    assert (holes.complete, holes.partial, holes.metrics) == (False, False, ())


def test_drawing_again_keeps_the_judge(spec: RunSpec, folder: RunFolder) -> None:
    from dataclasses import replace

    plain = replace(spec, judge="", judge_version="", judge_options={}, fold="", benchmark="free")
    with folder.lock():
        assert prepare(plain, folder).judge == "shapes"
        assert prepare(replace(spec, judge_options={"threshold": 0.9}), folder).judge_options == {
            "threshold": 0.9
        }
        with pytest.raises(SpecMismatch, match=r"seed: 0 there, 5 asked"):
            prepare(replace(spec, seed=5), folder)


def test_scores_are_grouped_by_task_and_prompt(spec: RunSpec, folder: RunFolder) -> None:
    prompts = folder.prompts()
    verdicts = {
        f"{p.id}/{i}": Verdict(f"{p.id}/{i}", "shapes", "1", float(i)) for p in prompts for i in (0, 1)
    }
    verdicts["colors-000/1"] = Verdict("colors-000/1", "shapes", "1", error="unreadable")
    tasks = {task.task: task for task in scores_by_task(prompts, verdicts)}
    counting, colors = tasks["counting"], tasks["colors"]
    assert (counting.sums.tolist(), counting.indices.tolist()) == ([0, 1, 0, 1], [0, 1, 0, 1])
    assert (colors.sums.tolist(), colors.starts.tolist()) == ([0, 0, 1], [0, 1, 3])
    assert colors.prompts == ["colors-000", "colors-001"]


def test_a_task_is_small_enough_to_be_sent_to_a_worker(spec: RunSpec, tmp_path: Path) -> None:
    import pickle

    assert len(pickle.dumps(GenerateTask(spec, tmp_path))) < 4000


def test_what_an_engine_gave_before_it_broke_is_kept_and_not_drawn_again(
    spec: RunSpec, folder: RunFolder
) -> None:
    with pytest.raises(RuntimeError, match="the card is gone"):
        _draw(spec, folder, Ahead(breaks_after=5))
    rows = list(folder.generations.rows())
    assert [row["error"] for row in rows] == [None] * 5 + ["the engine broke before this image"] * 3
    kept = {row["key"] for row in rows if row["error"] is None}
    engine = Ahead()
    _draw(spec, folder, engine)
    assert len(engine.begun) == 24 - 5
    assert kept.isdisjoint(engine.begun)
    assert [row["error"] for row in folder.generations.rows()] == [None] * 24


def test_a_block_that_broke_before_any_image_is_not_stored(spec: RunSpec, folder: RunFolder) -> None:
    with pytest.raises(RuntimeError):
        _draw(spec, folder, Ahead(breaks_after=0))
    assert not list(folder.generations.paths())


class PlainSubclass(Ahead):
    """Overrides `generate` alone: that is what must be called."""

    def generate(self, draws):
        for draw in draws:
            yield Generation(draw.key, draw.seed, (7,), b"png", provenance={"wave_size": 1})


def test_a_subclass_that_overrides_generate_alone_is_called(spec: RunSpec, folder: RunFolder) -> None:
    engine = PlainSubclass()
    assert begins_ahead(Ahead())
    assert not begins_ahead(engine)
    _draw(spec, folder, engine)
    assert {tuple(row["tokens"]) for row in folder.generations.rows()} == {(7,)}
    assert engine.begun == []


def test_rows_say_what_made_them(spec: RunSpec, folder: RunFolder) -> None:
    """Its engine, device and versions by the stage, what the engine knows better by the engine."""
    draws = Blocks.of(folder.prompts(), spec)[0]
    writer = BlockWriter(spec, folder, 0, draws, {"engine": "plain", "device": "cpu"})
    writer.store(PlainSubclass().generate(draws))
    provenance = [generation_from_row(row).provenance for row in folder.generations.rows()]
    assert provenance == [{"device": "cpu", "engine": "plain", "wave_size": 1}] * len(draws)
