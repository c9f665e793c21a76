"""The judge that asks questions: what it asks, counts and keeps, and what it does when nobody answers."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sar_eval.errors import BadInput, UnknownName
from sar_eval.judges.vqa import VqaJudge
from sar_eval.recipe import load_recipe
from sar_eval.runtime.slots import WorkerSlot
from sar_eval.spec import RunSpec
from sar_eval.stages.judge import judge as judge_stage
from sar_eval.stages.resolve import with_judge
from sar_eval.stages.resume import prepare
from sar_eval.stages.summarize import summarize
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import generation_row, verdict_from_row
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.types import Generation, Prompt
from tests.mplug_files import write_tiny_mplug

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "docs" / "examples" / "brightness_answerer.py"
READING = f"{HERE / 'vqa_answerers.py'}:READING"
DYING = f"{HERE / 'vqa_answerers.py'}:DYING"
COLORS = {"red": (200, 10, 20), "green": (10, 200, 30), "blue": (30, 20, 200)}


def png(color: str) -> bytes:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:] = COLORS[color]
    pixels[0, 0] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def ask(*texts: str, number: int = 0) -> Prompt:
    """A prompt with these questions; each one's parent is the one before."""
    questions = [Question(i, text, (i - 1,) if i > 1 else ()) for i, text in enumerate(texts, 1)]
    return Prompt(f"p{number}", "an image", checks=write_questions(questions))


def item(prompt: Prompt, color: str, index: int = 0) -> tuple[Prompt, Generation]:
    return prompt, Generation(f"{prompt.id}/{index}", 0, image=png(color))


def judged(items, **options):
    with VqaJudge(answerer=READING, **options) as judge:
        return list(judge.judge(items))


def test_a_image_is_scored_by_its_questions_with_evidence() -> None:
    [verdict] = judged([item(ask("is it red?", "long: is it red?", "is it blue?", "red again?"), "red")])
    assert (verdict.judge, verdict.judge_version) == ("vqa", "1+vqa_answerers+reading-1")
    assert (verdict.score, verdict.error, verdict.passed) == (0.5, None, None)
    assert verdict.reason == "not yes: is it blue?"
    assert verdict.evidence["answerer"] == "vqa_answerers"
    assert verdict.evidence["truncated"] == 1
    assert verdict.evidence["questions"] == [
        {
            "id": i,
            "question": text,
            "answer": "yes" if yes else "no",
            "yes": yes,
            "soft": 0.9 if yes else 0.2,
            "truncated": i == 2,
            "zeroed_by": zeroed,
            "counted": counted,
        }
        for i, text, yes, zeroed, counted in (
            (1, "is it red?", True, [], 1),
            (2, "long: is it red?", True, [], 1),
            (3, "is it blue?", False, [], 0),
            (4, "red again?", True, [3], 0),
        )
    ]
    assert json.loads(json.dumps(verdict.evidence)) == verdict.evidence


def test_reasons_name_some_and_count_the_rest() -> None:
    [verdict] = judged([item(ask(*(f"blue {i}?" for i in range(5))), "red")])
    assert (verdict.score, verdict.reason) == (0.0, "not yes: blue 0?; blue 1?; blue 2?; and 2 more")
    [good] = judged([item(ask("red?"), "red")])
    assert (good.score, good.reason) == (1.0, "")


def test_a_question_without_an_answer_leaves_its_image_unscored() -> None:
    prompt = ask("red?", "nothing", "maybe", "red?")
    [verdict] = judged([item(prompt, "red")])
    assert verdict.score is None
    assert verdict.error == (
        "question 2 ('nothing'): timed out; question 3 ('maybe'): neither yes nor no: 'maybe'"
    )
    rows = verdict.evidence["questions"]
    assert [row["yes"] for row in rows] == [True, None, None, True]
    assert [row.get("error") for row in rows][:2] == [None, "timed out"]
    assert all("counted" not in row for row in rows)


def test_images_that_nobody_can_be_asked_about_say_why(tmp_path: Path) -> None:
    log = tmp_path / "log"
    prompt = ask("red?")
    blank = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(blank, "PNG")
    items = [
        (prompt, Generation("p0/0", 0, image=b"no image")),
        (prompt, Generation("p0/1", 0, image=blank.getvalue())),
        (prompt, Generation("p0/2", 0, error="engine fell over")),
        (replace(prompt, checks=None), Generation("p0/3", 0, image=png("red"))),
        (replace(prompt, checks={"questions": []}), Generation("p0/4", 0, image=png("red"))),
        item(prompt, "red", 5),
    ]
    found = {v.key: v for v in judged(items, log=str(log))}
    assert [found[f"p0/{i}"].error.split(":")[0] for i in range(5)] == [
        "unreadable image",
        "blank image",
        "no image",
        "prompt 'p0'",
        "prompt 'p0'",
    ]
    assert found["p0/5"].score == 1.0
    assert log.read_text() == "1\n"
    assert judged([]) == []


@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_images_are_given_to_the_answerer_together(at_once: int, tmp_path: Path) -> None:
    items = [item(ask("is it red?", "is it blue?", number=i), color) for i, color in enumerate(COLORS)]
    found = judged(items, images_at_once=at_once, log=str(tmp_path / "log"))
    assert [(v.key, v.score) for v in found] == [("p0/0", 0.5), ("p1/0", 0.0), ("p2/0", 0.0)]
    assert (tmp_path / "log").read_text().split() == {1: ["1"] * 3, 3: ["3"], 8: ["3"]}[at_once]


def test_the_documented_example_answers() -> None:
    with VqaJudge(answerer=f"{EXAMPLE}:ANSWERER", limit=0.2) as judge:
        [verdict] = judge.judge([item(ask("is it bright?"), "red")])
    assert (verdict.score, judge.name) == (1.0, "brightness_answerer")
    assert judge.version == "1+brightness_answerer+1"


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"answerer": "mplgu"}, UnknownName, "unknown answerer 'mplgu'"),
        ({"answerer": 3}, BadInput, "a name or path.py:NAME"),
        ({"answerer": READING, "images_at_once": 0}, BadInput, "images_at_once 0"),
        ({"answerer": READING, "images_at_once": True}, BadInput, "images_at_once True"),
        ({"answerer": READING, "lgo": "x"}, BadInput, "does not take the options {'lgo': 'x'}"),
    ],
)
def test_options_are_checked(options, error, why: str) -> None:
    with pytest.raises(error, match=why):
        VqaJudge(**options)


def test_how_an_answerer_is_reached_does_not_make_another_judge(spec: RunSpec) -> None:
    def digest(**options: object) -> str:
        asked = {"answerer": "server", "url": "http://a/v1", "model": "m", **options}
        return with_judge(replace(spec, judge="vqa", judge_options=asked)).judge_digest

    assert digest(url="http://b/v1", retries=9, images_at_once=1) == digest()
    assert digest(model="n") != digest()
    assert digest(max_tokens=8) != digest()


def test_moved_weights_with_the_same_bytes_are_the_same_judge(spec: RunSpec, tmp_path: Path) -> None:
    first, second = (write_tiny_mplug(tmp_path / name) for name in ("here", "there"))

    def judged(folder: Path) -> RunSpec:
        options = {"answerer": "mplug", "weights": str(folder)}
        return with_judge(replace(spec, judge="vqa", judge_options=options))

    assert judged(first).judge_digest == judged(second).judge_digest
    (second / "vocab.txt").write_text((second / "vocab.txt").read_text() + "more\n")
    assert judged(first).judge_digest != judged(second).judge_digest


def test_an_answerer_is_found_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(EXAMPLE.read_text())
    recipe = tmp_path / "mine.toml"
    recipe.write_text("suite = 's.jsonl'\njudge = 'vqa'\n[judge_options]\nanswerer = 'mine.py:ANSWERER'")
    assert load_recipe(str(recipe)).judge_options == {"answerer": f"{tmp_path / 'mine.py'}:ANSWERER"}


# A judge that fails midway.


@pytest.fixture
def run(spec: RunSpec, tmp_path: Path) -> tuple[RunSpec, RunFolder]:
    """Six images in two blocks, drawn: red red red, blue red green."""
    prompts = [ask("is it red?", "is it green?", number=i) for i in range(6)]
    suite = tmp_path / "asked.jsonl"
    rows = [{"id": p.id, "text": p.text, "checks": p.checks} for p in prompts]
    suite.write_text("\n".join(map(json.dumps, rows)))
    log, sick = str(tmp_path / "log"), str(tmp_path / "sick")
    options = {"answerer": DYING, "images_at_once": 2, "log": log, "sick": sick}
    plain = replace(spec, suite=str(suite), judge="vqa", judge_options=options, fold="", batch_size=3)
    chosen = with_judge(replace(plain, images_per_prompt=1))
    folder = RunFolder(tmp_path / "run")
    with folder.lock():
        prepare(chosen, folder)
    colors = ["red", "red", "red", "blue", "red", "green"]
    for block, numbers in enumerate([(0, 1, 2), (3, 4, 5)]):
        items = [item(prompts[i], colors[i]) for i in numbers]
        folder.generations.write(block, [generation_row(p, g, chosen.digest) for p, g in items])
    return chosen, folder


def verdicts(folder: RunFolder) -> dict[str, tuple[float | None, str | None]]:
    found = (verdict_from_row(row) for row in folder.verdicts("vqa").rows())
    return {v.key: (v.score, v.error) for v in found}


def test_what_was_answered_before_a_failure_is_kept_and_not_asked_again(run, tmp_path: Path) -> None:
    spec, folder = run
    (tmp_path / "sick").touch()
    with folder.lock():
        judge_stage(spec, folder, [WorkerSlot(0)])
    found = verdicts(folder)
    assert {key: score for key, (score, _) in found.items()} == {
        **{f"p{i}/0": 0.5 for i in (0, 1, 2, 4)},
        "p3/0": 0.0,
        "p5/0": None,
    }
    assert found["p5/0"][1] == "given up after 3 tries: ConnectionError: the network is gone"
    # Two batches for the first block and two for the second; then, twice, only what has no verdict.
    assert (tmp_path / "log").read_text().split() == ["2", "1", "2", "1", "1", "1"]
    summary = summarize(spec, folder)
    assert (summary.complete, summary.judged, summary.failed) == (False, 5, 1)
    assert summary.problems == (f"p5/0: {found['p5/0'][1]}",)

    (tmp_path / "sick").unlink()
    (tmp_path / "log").unlink()
    with folder.lock():
        judge_stage(spec, folder, [WorkerSlot(0)])
    assert verdicts(folder)["p5/0"] == (0.0, None)
    assert (tmp_path / "log").read_text().split() == ["1"]
    assert summarize(spec, folder).complete
