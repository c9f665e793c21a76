"""The judge `vqa`: scores, evidence, errors, and failures of the answerer."""

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
from sar_eval.runtime.local import LocalRuntime
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
EXAMPLE = HERE.parents[2] / "docs" / "examples" / "brightness_answerer.py"
READING = f"{HERE / 'vqa_answerers.py'}:READING"
FAILING = f"{HERE / 'vqa_answerers.py'}:FAILING"
COLORS = {"red": (200, 10, 20), "green": (10, 200, 30), "blue": (30, 20, 200)}


def png(color: str) -> bytes:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:] = COLORS[color]
    pixels[0, 0] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def prompt_with(*texts: str, number: int = 0) -> Prompt:
    """A prompt with these questions; each question's parent is the one before."""
    questions = [Question(i, text, (i - 1,) if i > 1 else ()) for i, text in enumerate(texts, 1)]
    return Prompt(f"p{number}", "an image", checks=write_questions(questions))


def item(prompt: Prompt, color: str, index: int = 0) -> tuple[Prompt, Generation]:
    return prompt, Generation(f"{prompt.id}/{index}", 0, image=png(color))


def verdicts_of(items, **options):
    with VqaJudge(answerer=READING, **options) as judge:
        return list(judge.judge(items))


def test_an_image_is_scored_by_its_questions_with_evidence() -> None:
    [verdict] = verdicts_of(
        [item(prompt_with("is it red?", "long: is it red?", "is it blue?", "red again?"), "red")]
    )
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


def test_reasons_list_three_questions_and_count_the_rest() -> None:
    [verdict] = verdicts_of([item(prompt_with(*(f"blue {i}?" for i in range(5))), "red")])
    assert (verdict.score, verdict.reason) == (0.0, "not yes: blue 0?; blue 1?; blue 2?; and 2 more")
    [good] = verdicts_of([item(prompt_with("red?"), "red")])
    assert (good.score, good.reason) == (1.0, "")


def test_an_image_with_an_unanswered_question_has_no_score() -> None:
    prompt = prompt_with("red?", "nothing", "maybe", "red?")
    [verdict] = verdicts_of([item(prompt, "red")])
    assert verdict.score is None
    assert verdict.error == (
        "question 2 ('nothing'): timed out; question 3 ('maybe'): neither yes nor no: 'maybe'"
    )
    rows = verdict.evidence["questions"]
    assert [row["yes"] for row in rows] == [True, None, None, True]
    assert [row.get("error") for row in rows][:2] == [None, "timed out"]
    assert all("counted" not in row for row in rows)


def test_unreadable_images_and_prompts_without_questions_have_an_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    prompt = prompt_with("red?")
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
    by_key = {v.key: v for v in verdicts_of(items, log=str(log))}
    assert [by_key[f"p0/{i}"].error.split(":")[0] for i in range(5)] == [
        "unreadable image",
        "blank image",
        "no image",
        "prompt 'p0'",
        "prompt 'p0'",
    ]
    assert by_key["p0/5"].score == 1.0
    assert log.read_text() == "1\n"
    assert verdicts_of([]) == []


@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_the_answerer_gets_images_at_once(at_once: int, tmp_path: Path) -> None:
    items = [
        item(prompt_with("is it red?", "is it blue?", number=i), color) for i, color in enumerate(COLORS)
    ]
    verdicts = verdicts_of(items, images_at_once=at_once, log=str(tmp_path / "log"))
    assert [(v.key, v.score) for v in verdicts] == [("p0/0", 0.5), ("p1/0", 0.0), ("p2/0", 0.0)]
    assert (tmp_path / "log").read_text().split() == {1: ["1"] * 3, 3: ["3"], 8: ["3"]}[at_once]


def test_the_documented_example_works() -> None:
    with VqaJudge(answerer=f"{EXAMPLE}:ANSWERER", limit=0.2) as judge:
        [verdict] = judge.judge([item(prompt_with("is it bright?"), "red")])
    assert (verdict.score, judge.answerer_name) == (1.0, "brightness_answerer")
    assert judge.version == "1+brightness_answerer+1"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"answerer": "mplgu"}, UnknownName, "unknown answerer 'mplgu'"),
        ({"answerer": 3}, BadInput, "a name or path.py:NAME"),
        ({"answerer": READING, "images_at_once": 0}, BadInput, "images_at_once 0"),
        ({"answerer": READING, "images_at_once": True}, BadInput, "images_at_once True"),
        ({"answerer": READING, "lgo": "x"}, BadInput, "does not take the options {'lgo': 'x'}"),
    ],
)
def test_options_are_checked(options, error, message: str) -> None:
    with pytest.raises(error, match=message):
        VqaJudge(**options)


def test_speed_options_do_not_change_the_judges_digest(spec: RunSpec) -> None:
    def digest(**options: object) -> str:
        judge_options = {"answerer": "server", "url": "http://a/v1", "model": "m", **options}
        return with_judge(replace(spec, judge="vqa", judge_options=judge_options)).judge_digest

    assert digest(url="http://b/v1", retries=9, images_at_once=1) == digest()
    assert digest(model="n") != digest()
    assert digest(max_tokens=8) != digest()


def test_moved_weights_do_not_change_the_judges_digest(spec: RunSpec, tmp_path: Path) -> None:
    first, second = (write_tiny_mplug(tmp_path / name) for name in ("here", "there"))

    def digest(folder: Path) -> str:
        options = {"answerer": "mplug", "weights": str(folder)}
        return with_judge(replace(spec, judge="vqa", judge_options=options)).judge_digest

    assert digest(first) == digest(second)
    (second / "vocab.txt").write_text((second / "vocab.txt").read_text() + "more\n")
    assert digest(first) != digest(second)


def test_an_answerer_is_found_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(EXAMPLE.read_text())
    recipe = tmp_path / "mine.toml"
    recipe.write_text("suite = 's.jsonl'\njudge = 'vqa'\n[judge_options]\nanswerer = 'mine.py:ANSWERER'")
    assert load_recipe(str(recipe)).judge_options == {"answerer": f"{tmp_path / 'mine.py'}:ANSWERER"}


# An answerer that fails.


@pytest.fixture
def run(spec: RunSpec, tmp_path: Path) -> tuple[RunSpec, RunFolder]:
    """A run with six images in two blocks: red red red, blue red green."""
    prompts = [prompt_with("is it red?", "is it green?", number=i) for i in range(6)]
    suite = tmp_path / "suite.jsonl"
    rows = [{"id": p.id, "text": p.text, "checks": p.checks} for p in prompts]
    suite.write_text("\n".join(map(json.dumps, rows)))
    log, fail_file = str(tmp_path / "log"), str(tmp_path / "fail")
    options = {"answerer": FAILING, "images_at_once": 2, "log": log, "fail_file": fail_file}
    changes = {"suite": str(suite), "judge": "vqa", "judge_options": options, "fold": "", "batch_size": 3}
    run_spec = with_judge(replace(spec, images_per_prompt=1, **changes))
    folder = RunFolder(tmp_path / "run")
    with folder.lock():
        prepare(run_spec, folder)
    colors = ["red", "red", "red", "blue", "red", "green"]
    for block, numbers in enumerate([(0, 1, 2), (3, 4, 5)]):
        items = [item(prompts[i], colors[i]) for i in numbers]
        rows = [generation_row(p, g, run_spec.digest) for p, g in items]
        folder.write_generations(block, rows, run_spec.digest)
    return run_spec, folder


def stored_verdicts(folder: RunFolder) -> dict[str, tuple[float | None, str | None]]:
    """Score and error by draw key."""
    stored = (verdict_from_row(row) for row in folder.verdicts("vqa").rows())
    return {verdict.key: (verdict.score, verdict.error) for verdict in stored}


def test_verdicts_from_before_a_failure_are_kept(run, tmp_path: Path) -> None:
    spec, folder = run
    (tmp_path / "fail").touch()
    with folder.lock():
        judge_stage(spec, folder, LocalRuntime([WorkerSlot(0)]))
    verdicts = stored_verdicts(folder)
    assert {key: score for key, (score, _) in verdicts.items()} == {
        **{f"p{i}/0": 0.5 for i in (0, 1, 2, 4)},
        "p3/0": 0.0,
        "p5/0": None,
    }
    assert verdicts["p5/0"][1] == "given up after 3 tries: ConnectionError: the network is gone"
    # Two batches for each block; then, twice, only the image without a verdict.
    assert (tmp_path / "log").read_text().split() == ["2", "1", "2", "1", "1", "1"]
    summary = summarize(spec, folder)
    assert (summary.complete, summary.judged, summary.failed) == (False, 5, 1)
    assert summary.problems == (f"p5/0: {verdicts['p5/0'][1]}",)

    (tmp_path / "fail").unlink()
    (tmp_path / "log").unlink()
    with folder.lock():
        judge_stage(spec, folder, LocalRuntime([WorkerSlot(0)]))
    assert stored_verdicts(folder)["p5/0"] == (0.0, None)
    assert (tmp_path / "log").read_text().split() == ["1"]
    assert summarize(spec, folder).complete
