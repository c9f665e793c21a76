"""The examples of docs/rubric.md, run as a user runs them, against a local server."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from rubric_server import encoded, picture, serving

from sar_eval.clients import json_client
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import verdict_from_row
from sar_eval.suites.rubric.readers import compile_pattern
from sar_eval.types import Prompt
from tests.stored_runs import begin_run, store_generations

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
POSTERS = [json.loads(line) for line in (EXAMPLES / "posters.jsonl").read_text().splitlines()]
ASKED = {poster["id"]: f"The poster was ordered as: {poster['text']}" for poster in POSTERS}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch) -> None:
    monkeypatch.setattr(json_client, "BACKOFF_S", 0.01)


def score(sar_eval_here, server, recipe: Path, images: Path, out: Path, **options) -> tuple[int, str, dict]:
    options = {"url": server.url, "model": "judge-7b", "retries": 0, **options}
    words = [word for name, value in options.items() for word in ("--judge-option", f"{name}={value}")]
    code, output = sar_eval_here(
        "score", recipe, "--images", images, "--out", out, "--workers", 1, "--no-report", *words
    )
    rows = RunFolder(out).verdicts("rubric").rows() if code in (0, 3) else ()
    return code, output, {row["key"]: verdict_from_row(row) for row in rows}


@pytest.fixture
def posters(tmp_path: Path) -> Path:
    folder = tmp_path / "posters"
    folder.mkdir()
    for name, color in (("sale", "red"), ("lost", "blue")):
        (folder / f"{name}.png").write_bytes(encoded(color))
    return folder


@pytest.mark.slow
def test_a_rubric_of_one_s_own(sar_eval_here, posters: Path, tmp_path: Path) -> None:
    with serving() as server:
        server.replies = {
            ASKED["sale"]: ["Let me see. Legible: 8\nFaithful: 9"],
            ASKED["lost"]: ["Legible: 8, no, legible: 7", "Legible: 8/10\nFaithful: 5/10"],
        }
        code, output, verdicts = score(
            sar_eval_here, server, EXAMPLES / "posters.toml", posters, tmp_path / "run", concurrency=1
        )
    assert code == 0, output
    first, second = verdicts["sale/0"], verdicts["lost/0"]
    assert (first.score, second.score) == (pytest.approx(0.86), pytest.approx(0.62))
    assert first.evidence["values"] == {"legible": 8.0, "faithful": 9.0}
    assert second.evidence["tries"] == 2
    [system, user] = next(b["messages"] for b in server.requests if "SUMMER" in str(b["messages"]))
    assert "proofread" in system["content"]
    assert "It must say: SUMMER SALE\n" in user["content"][1]["text"]
    assert server.requests[0]["chat_template_kwargs"] == {"enable_thinking": False}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    overall = next(metric for metric in summary["metrics"] if metric["name"] == "overall")
    assert overall["value"] == pytest.approx(0.74)


@pytest.mark.slow
def test_prose_is_an_error_of_its_picture_and_the_run_incomplete(
    sar_eval_here, posters: Path, tmp_path: Path
) -> None:
    with serving() as server:
        server.replies = {text: ["Lovely!"] for text in ASKED.values()}
        code, output, verdicts = score(
            sar_eval_here, server, EXAMPLES / "posters.toml", posters, tmp_path / "run"
        )
    assert code == 3, output
    assert {v.error for v in verdicts.values()} == {"unread: no legible in 'Lovely!'"}
    assert verdicts["sale/0"].evidence["replies"] == ["Lovely!"] * 3


@pytest.mark.slow
def test_a_rubric_on_the_command_line_judges_a_finished_run(sar_eval_here, tmp_path: Path) -> None:
    prompts = [Prompt("a", "red"), Prompt("b", "blue")]
    spec, folder = begin_run(tmp_path / "run", prompts, judge="", fold="scores", images_per_prompt=1)
    store_generations(spec, folder, {"a/0": encoded("red"), "b/0": encoded("red")})
    with serving() as server:
        options = {"url": server.url, "model": "judge-7b", "encoding": "png", "resize": "[8, 8]"}
        options |= {"template": "{prompt}", "numbers.score": r"score: (\d)"}
        words = [word for name, value in options.items() for word in ("--judge-option", f"{name}={value}")]
        code, output = sar_eval_here("judge", tmp_path / "run", "--judge", "rubric", "--workers", 1, *words)
    assert code == 0, output
    scores = {row["key"]: row["score"] for row in folder.verdicts("rubric").rows()}
    assert scores == {"a/0": 1.0, "b/0": 0.0}


@pytest.mark.slow
def test_unifiedreward_reads_the_form_of_its_program(sar_eval_here, suite: Path, tmp_path: Path) -> None:
    """The text is not ours: another one stands for it, with its own checksum."""
    text = tmp_path / "text.txt"
    text.write_text("Rate this.\nText Caption: [{prompt}]")
    images = tmp_path / "images"
    images.mkdir()
    for line in suite.read_text().splitlines():
        (images / f"{json.loads(line)['id']}.png").write_bytes(encoded("red"))
    options = {"template_file": text, "template_sha256": hashlib.sha256(text.read_bytes()).hexdigest()}
    reply = "Alignment Score (1-5): 2.694700002670288\nCoherence Score (1-5): 2.5\nStyle Score (1-5): 5"
    with serving() as server:
        server.replies = {"Rate this.": [reply]}
        command = EXAMPLES / "unifiedreward.toml"
        code, output = sar_eval_here(
            *("score", command, "--suite", suite, "--images", images, "--out", tmp_path / "run"),
            *("--workers", 1, "--no-report", "--judge-option", f"url={server.url}"),
            *("--judge-option", "model=judge-7b"),
            *(word for name, value in options.items() for word in ("--judge-option", f"{name}={value}")),
        )
    assert code == 0, output
    verdict = verdict_from_row(next(RunFolder(tmp_path / "run").verdicts("rubric").rows()))
    assert verdict.score == pytest.approx((2.694700002670288 + 2.5 + 5) / 15)
    body = server.requests[0]
    assert "temperature" not in body
    assert body["max_tokens"] == 4096
    assert picture(body["messages"][0]["content"][0]["image_url"]["url"])[0] == "image/jpeg"


def test_a_missing_text_names_the_recipe_s_file(sar_eval_here, posters: Path, tmp_path: Path) -> None:
    code, output = sar_eval_here(
        *("score", EXAMPLES / "unifiedreward.toml", "--suite", EXAMPLES / "posters.jsonl"),
        *("--images", posters, "--out", tmp_path / "run"),
    )
    assert code == 2
    assert "template_file 'unifiedreward.txt' of judge 'rubric': no file unifiedreward.txt" in " ".join(
        output.split()
    )


def test_a_text_lies_beside_its_recipe(tmp_path: Path, monkeypatch) -> None:
    from sar_eval.recipe import load_recipe

    (tmp_path / "mine.txt").write_text("x")
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'suite = "shapes.jsonl"\n[judge_options]\ntemplate_file = "mine.txt"\nsystem_file = "no.txt"'
    )
    monkeypatch.chdir("/")
    options = load_recipe(str(recipe)).judge_options
    assert options == {"template_file": str((tmp_path / "mine.txt").resolve()), "system_file": "no.txt"}


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "rubric.md").read_text()
    [block] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    example = re.sub(r"(?m)^#.*\n", "", (EXAMPLES / "posters.toml").read_text())
    for paragraph in block.strip().split("\n\n"):
        assert paragraph in example


@pytest.mark.parametrize("name", ["posters", "unifiedreward"])
def test_patterns_of_examples_take_no_time_on_long_replies(name: str) -> None:
    from sar_eval.recipe import load_recipe

    patterns = load_recipe(str(EXAMPLES / f"{name}.toml")).judge_options["numbers"]
    for key, pattern in patterns.items():
        word = key.replace("_", " ")
        for filler in (" ", "*", f"{word} ", f"{word} score: ", f"{word}: 1 "):
            text = (word + filler * 20_000)[:20_000]
            assert len(list(compile_pattern(pattern, key).finditer(text))) >= 0
