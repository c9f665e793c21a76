"""The answerer `server` with a local server: answers, every failure, and a server that stops."""

import base64
import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_chat_server import PIXELS, FakeChatServer, ask, pixels, serving
from hostile_replies import SPELLINGS
from PIL import Image

from sar_eval.answerers.server import ServerAnswerer, first_token_soft
from sar_eval.clients import json_client
from sar_eval.errors import BadInput, Incomplete
from sar_eval.images.files import decode_image
from sar_eval.spec import RunSpec
from sar_eval.stages.resolve import with_judge
from sar_eval.stages.resume import prepare
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import generation_row, verdict_from_row
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.types import Generation, Prompt


@pytest.fixture(autouse=True)
def short_waits(monkeypatch) -> None:
    monkeypatch.setattr(json_client, "BACKOFF_S", 0.01)


@pytest.fixture
def chat():
    with serving() as server:
        yield server


def test_questions_are_answered_from_the_image(chat: FakeChatServer) -> None:
    images = [(pixels(color), ["red?", "green?", "blue?"]) for color in PIXELS]
    with ServerAnswerer(url=chat.url + "/", model="judge-7b", concurrency=4) as answerer:
        batch = list(answerer.answer(images))
    assert [[a.yes for a in answers] for answers in batch] == np.eye(3, dtype=bool).tolist()
    assert batch[0][0].text == "**Yes**, I think."
    assert batch[0][0].soft == pytest.approx(0.6 / 0.8)
    assert batch[0][1].soft == pytest.approx(0.2 / 0.8)
    assert len(chat.requests) == 9
    first = next(body for body in chat.requests if body["messages"][0]["content"][1]["text"][0] == "r")
    assert first["messages"][0]["content"][1]["text"] == "red? Answer with yes or no."
    assert (first["temperature"], first["max_tokens"], first["top_logprobs"]) == (0, 16, 20)
    assert chat.keys == {None}


def test_the_image_is_sent_losslessly(chat: FakeChatServer) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (37, 53, 3), np.uint8)
    with ServerAnswerer(url=chat.url, model="judge-7b", prompt="{question}") as answerer:
        list(answerer.answer([(noise, ["red?"])]))
    url = chat.requests[0]["messages"][0]["content"][0]["image_url"]["url"]
    assert (decode_image(base64.b64decode(url.partition(",")[2])) == noise).all()


@pytest.mark.parametrize(
    ("question", "error", "attempts"),
    [
        ("hang", "no response within 1 s", 3),
        pytest.param("drip", "no response within 0.5 s", 3, marks=pytest.mark.slow),
        ("close", "no response: RemoteDisconnected", 3),
        ("cut", "the connection broke off", 3),
        ("500", "the server returned 500: refused with 500", 3),
        ("503", "the server returned 503: refused with 503", 3),
        ("429", "the server returned 429: refused with 429", 3),
        ("401", "the server returned 401: refused with 401", 1),
        ("404", "the server returned 404: refused with 404", 1),
        ("413", "the server returned 413: refused with 413", 1),
        ("400", "the server returned 400: refused with 400", 2),  # again without logprobs
        ("moved", "the server returned 307: Temporary Redirect", 1),
        ("html", "the response is no JSON: <html>a proxy's page</html>", 1),
        ("list", "the response has no choice: [1, 2]", 1),
        ("empty", "the response has no choice: {'choices': []}", 1),
        ("silent", "the response has no text (finish_reason 'length')", 1),
        ("blank", "the response has no text (finish_reason 'length')", 1),
        ("odd", "the response has no text (finish_reason None)", 1),
        ("nonsense", "neither yes nor no: 'a dog'", 1),
        ("both", "neither yes nor no: 'Yes and no.'", 1),
    ],
)
def test_each_failure_is_an_error_of_its_question_alone(
    chat: FakeChatServer, question: str, error: str, attempts: int
) -> None:
    red, bad, blue = ask(
        chat, "red?", question, "blue?", timeout_s={"hang": 1.0, "drip": 0.5}.get(question, 60.0)
    )
    assert (red.yes, red.error, blue.yes, blue.error) == (True, None, False, None)
    assert (bad.yes, bad.soft) == (None, None)
    assert (bad.error or "").startswith(error)
    assert chat.counts[question] == attempts


def test_transient_failures_are_retried(chat: FakeChatServer) -> None:
    busy, weak = ask(chat, "busy", "weak")
    assert (busy.error, weak.error) == (None, None)
    assert (chat.counts["busy"], chat.counts["weak"]) == (2, 3)


def test_backoff_is_exponential_or_retry_after(monkeypatch) -> None:
    waits: list[float] = []
    client = json_client.JsonClient("http://127.0.0.1:9/v1", api_key_env="", timeout_s=1.0, retries=5)
    monkeypatch.setattr(client.stop_retrying, "wait", lambda seconds: waits.append(seconds) or False)
    retry_after = iter([None, None, 7.0, 100.0, None])

    def refuse(path: str, payload: object) -> None:
        raise json_client.RequestError("busy", 429, next(retry_after, None))

    monkeypatch.setattr(client, "_request", refuse)
    with pytest.raises(json_client.RequestError):
        client.post("/chat/completions", {})
    assert waits == [0.01, 0.02, 7.0, 60.0, 0.16]
    waits.clear()
    retry_after = iter([1.0, 1e9])  # nobody waits for so long: no further attempt
    with pytest.raises(json_client.RequestError):
        client.post("/chat/completions", {})
    assert waits == [1.0]


def test_a_server_that_refuses_logprobs_is_asked_without(monkeypatch) -> None:
    with serving(logprobs=False) as server:
        answers = ask(server, "red?", "green?", "blue?", concurrency=1)
        assert [(a.yes, a.soft, a.error) for a in answers] == [
            (yes, None, None) for yes in (True, False, False)
        ]
        assert ["logprobs" in body for body in server.requests] == [True, False, False, False]
        assert ask(server, "red?", logprobs=False)[0].yes
        assert "logprobs" not in server.requests[-1]


def test_the_key_is_sent_and_never_stored(chat: FakeChatServer, monkeypatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "very-secret")
    assert ask(chat, "red?", api_key_env="JUDGE_KEY")[0].yes
    assert chat.keys == {"Bearer very-secret"}
    answerer = ServerAnswerer(url=chat.url, model="judge-7b", api_key_env="JUDGE_KEY")
    [quoted] = ask(chat, "quote", api_key_env="JUDGE_KEY")
    assert quoted.error == "the server returned 403: wrong: [key]"
    assert "very-secret" not in repr(vars(answerer)) + repr(vars(answerer._client)) + answerer.version
    monkeypatch.setenv("JUDGE_KEY", "two\nlines")
    with pytest.raises(BadInput, match="holds no key") as caught:
        ServerAnswerer(url=chat.url, model="judge-7b", api_key_env="JUDGE_KEY")
    assert "lines" not in str(caught.value)
    monkeypatch.setenv("JUDGE_KEY", "very-secret")
    chat.models_status = 401
    with pytest.raises(BadInput, match=r"401: bad key Bearer \[key\] \(is the key in JUDGE_KEY right\?\)"):
        answerer.__enter__()


def test_the_server_is_checked_on_enter(chat: FakeChatServer) -> None:
    with pytest.raises(BadInput, match=r"serves no model 'judge-8b', but 'judge-7b'"):
        ask(chat, "red?", model="judge-8b")
    with pytest.raises(
        BadInput, match=r"returned 404: Not Found \(is the address right\? It usually ends in"
    ):
        ask(chat, "red?", url=chat.url.removesuffix("/v1"))
    chat.models_status = 401
    with pytest.raises(BadInput, match=r"401: .* \(set api_key_env to its variable\)"):
        ask(chat, "red?")
    chat.close()
    with pytest.raises(BadInput, match=r"/v1/models: no response: ConnectionRefusedError"):
        ask(chat, "red?")


def test_answers_from_before_the_server_stops_are_yielded() -> None:
    with serving(stops_after=4) as server:
        batch = []
        images = [(pixels(color), ["red?", "blue?"]) for color in PIXELS]
        with ServerAnswerer(url=server.url, model="judge-7b", retries=1, concurrency=1) as answerer:
            answers = answerer.answer([*images, *images])
            with pytest.raises(Incomplete, match="run the same command again"):
                batch.extend(answers)
        assert len(batch) == 6
        assert [[a.error is None for a in answers] for answers in batch] == [[True] * 2] * 2 + [
            [False] * 2
        ] * 4
        assert all((a.error or "").startswith("not asked: http://127") for a in batch[-1])
        assert len(server.requests) == 5
    with serving() as back:
        answerer._client.url = back.url
        with answerer:
            assert next(answerer.answer(images[:1]))[0].yes


def test_soft_scores_need_yes_or_no_among_the_tokens() -> None:
    assert first_token_soft(None) is None
    assert first_token_soft([{"token": "The", "logprob": -0.1}, "x", {"token": 3}]) is None
    assert first_token_soft([{"token": " YES", "logprob": -0.5}]) == 1.0
    assert first_token_soft([{"token": "No", "logprob": 0.0}, {"token": "yes", "logprob": -9999.0}]) == 0.0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"url": ""}, "needs the server's address"),
        ({"url": "file:///etc/passwd"}, "needs the server's address"),
        ({"url": "http://me:word@host/v1"}, "nothing secret in the address"),
        ({"url": "http://host/v1?key=word"}, "nothing secret in the address"),
        ({"url": "http://host/v1#word"}, "nothing secret in the address"),
        ({"url": "http://me@host/v1"}, "nothing secret in the address"),
        ({"url": "http://host:99999/v1"}, "needs the server's address"),
        ({"url": "http://host:word/v1"}, "needs the server's address"),
        ({"url": "http://:80/v1"}, "needs the server's address"),
        ({"url": "http://host/v1\n"}, "needs the server's address"),
        ({"url": "http://h\u00f6st/v1"}, "needs the server's address"),
        ({"url": "http://[::1/v1"}, "needs the server's address"),
        ({"model": ""}, "needs the model's name"),
        ({"prompt": "what?"}, r"a text with \{question\}"),
        ({"api_key_env": "sk-123"}, "the name of an environment variable, never the key$"),
        ({"api_key_env": "hf_MyKey"}, "the environment variable that api_key_env names is not set"),
        ({"logprobs": "maybe"}, "true or false"),
        ({"retries": -1}, "a whole number >= 0"),
        ({"concurrency": 0}, "a whole number >= 1"),
        ({"max_tokens": 1.5}, "a whole number >= 1"),
        ({"timeout_s": 0}, "seconds above 0"),
        ({"timeout_s": "long"}, "seconds above 0"),
        ({"timeout_s": 1e300}, "at most 86,400"),
        ({"retries": 10**20}, "a whole number <= 100"),
        ({"concurrency": 10**9}, "a whole number <= 1,024"),
        ({"key": "x"}, "has no option 'key'; known are url, model"),
    ],
)
def test_options_are_checked_without_a_request(changed, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        ServerAnswerer(**{"url": "http://127.0.0.1:9/v1", "model": "m", **changed})
    assert not re.search(r"hf_MyKey|\bword\b|sk-123", str(caught.value)), "secrets are not shown"


def test_the_version_depends_on_model_prompt_and_max_tokens() -> None:
    options = {"url": "http://127.0.0.1:9/v1", "model": "judge-7b"}
    version = ServerAnswerer(**options).version
    assert version.startswith("1+judge-7b+")
    assert version.endswith("+chat-1")
    same = [{"url": "http://other/v1"}, {"retries": 9}, {"concurrency": 1}, {"logprobs": False}]
    other = [{"model": "judge-8b"}, {"prompt": "{question}"}, {"max_tokens": 1}]
    assert {ServerAnswerer(**options | change).version for change in same} == {version}
    assert len({ServerAnswerer(**options | change).version for change in other} | {version}) == 4


# The judge stage from the command line, with a server that stops.


@pytest.fixture
def drawn_run(spec: RunSpec, tmp_path: Path) -> RunFolder:
    """A run of five images in blocks of three, three red and two blue, with two questions each."""
    questions = write_questions([Question(1, "red?"), Question(2, "blue?")])
    prompts = [Prompt(f"p{i}", "an image", checks=questions) for i in range(5)]
    suite = tmp_path / "suite.jsonl"
    rows = [{"id": p.id, "text": p.text, "checks": p.checks} for p in prompts]
    suite.write_text("\n".join(map(json.dumps, rows)))
    changes = {"judge": "", "judge_options": {}, "fold": "", "images_per_prompt": 1, "batch_size": 3}
    run_spec = with_judge(replace(spec, suite=str(suite), **changes))
    folder = RunFolder(tmp_path / "run")
    with folder.lock():
        prepare(run_spec, folder)
    for block in (range(3), range(3, 5)):
        rows = []
        for i in block:
            buffer = io.BytesIO()
            Image.fromarray(pixels("red" if i < 3 else "blue")).save(buffer, "PNG")
            generation = Generation(f"p{i}/0", 0, image=buffer.getvalue())
            rows.append(generation_row(prompts[i], generation, run_spec.digest))
        folder.write_generations(block[0] // 3, rows, run_spec.digest)
    return folder


def judge_command(folder: RunFolder, server: FakeChatServer) -> list[object]:
    options = {"answerer": "server", "url": server.url, "model": "judge-7b", "retries": 1}
    options |= {"images_at_once": 1, "concurrency": 1, "timeout_s": 5}
    words = [word for name, value in options.items() for word in ("--judge-option", f"{name}={value}")]
    return ["judge", folder.path, "--judge", "vqa", "--workers", 1, "--json", *words]


@pytest.mark.slow
def test_a_run_continues_on_another_server(sar_eval, drawn_run: RunFolder) -> None:
    environment = {**os.environ, "JUDGE_KEY": "very-secret"}
    with serving(stops_after=5) as server:
        done = sar_eval(*judge_command(drawn_run, server), env=environment)
    assert done.returncode == 3, done.stderr
    assert "answerer 'server': http://127.0.0.1" in done.stderr
    assert "run the same command again to continue" in done.stderr
    assert "Traceback" not in done.stderr
    verdicts = {row["key"]: verdict_from_row(row) for row in drawn_run.verdicts("vqa").rows()}
    # Two images have both answers; the third has one, which is in its evidence.
    assert {key: verdict.score for key, verdict in verdicts.items()} == {
        "p0/0": 0.5,
        "p1/0": 0.5,
        "p2/0": None,
    }
    assert "question 2 ('blue?'): no response" in (verdicts["p2/0"].error or "")
    assert [row["yes"] for row in verdicts["p2/0"].evidence["questions"]] == [True, None]

    with serving() as another:
        key = ["--judge-option", "api_key_env=JUDGE_KEY"]
        again = sar_eval(*judge_command(drawn_run, another), *key, env=environment)
        assert again.returncode == 0, again.stderr
        assert len(another.requests) == 6  # two questions of each of three images
        assert another.keys == {"Bearer very-secret"}
    summary = json.loads(again.stdout)
    assert (summary["expected"], summary["judged"], summary["failed"]) == (5, 5, 0)
    assert {row["score"] for row in drawn_run.verdicts("vqa").rows()} == {0.5}
    assert "1+server+1+judge-7b+" in next(drawn_run.verdicts("vqa").rows())["judge_version"]
    assert "very-secret" not in (drawn_run.path / "run.json").read_text()
    assert "JUDGE_KEY" in (drawn_run.path / "run.json").read_text()


def test_a_missing_server_is_an_error_before_judging(sar_eval, drawn_run: RunFolder) -> None:
    with serving() as server:
        pass
    done = sar_eval(*judge_command(drawn_run, server))
    assert done.returncode == 2, done.stderr
    assert "/v1/models: no response: ConnectionRefusedError" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_key_is_in_no_file_and_not_on_the_terminal(sar_eval, drawn_run: RunFolder) -> None:
    """The server quotes it in answers, errors and reason phrases, in other spellings."""
    key = "sk-Se&cret/a<b+c=="
    questions = [f"{place}:{spelling}" for place in ("error", "answer", "reason") for spelling in SPELLINGS]
    checks = write_questions([Question(i + 1, text) for i, text in enumerate(questions)])
    prompts = [replace(prompt, checks=checks) for prompt in drawn_run.prompts()]
    manifest = drawn_run.read_manifest()
    drawn_run.write_manifest(replace(manifest, prompts=drawn_run.write_prompts(prompts)))
    with serving() as server:
        words = [*judge_command(drawn_run, server), "--judge-option", "api_key_env=JUDGE_KEY"]
        done = sar_eval(*words, env={**os.environ, "JUDGE_KEY": key})
        assert len(server.requests) > 40
    assert done.returncode == 3, done.stderr
    rows = list(drawn_run.verdicts("vqa").rows())
    texts = [done.stdout, done.stderr, *map(str, rows)]
    texts += [
        path.read_text() for path in drawn_run.path.rglob("*") if path.suffix in (".json", ".html", ".js")
    ]
    assert any("[key]" in text for text in texts)
    for spell in SPELLINGS.values():
        assert not [text for text in texts if spell(key) in text], spell(key)
