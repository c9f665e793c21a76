"""The answerer `server` against a real server on this machine: every way it can fail, and its death."""

import base64
import io
import json
import os
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest
from chat_stand_in import Chat, serving
from PIL import Image

from sar_eval.answerers.server import ServerAnswerer, first_token_soft
from sar_eval.errors import BadInput, Incomplete
from sar_eval.images.files import decode_image
from sar_eval.networks import chat_server
from sar_eval.spec import RunSpec
from sar_eval.stages.resolve import with_judge
from sar_eval.stages.resume import prepare
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import generation_row, verdict_from_row
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.types import Generation, Prompt

COLORS = {"red": (200, 10, 20), "green": (10, 200, 30), "blue": (30, 20, 200)}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch) -> None:
    monkeypatch.setattr(chat_server, "BACKOFF_S", 0.01)


@pytest.fixture
def chat():
    with serving() as server:
        yield server


def pixels(color: str) -> np.ndarray:
    image = np.full((8, 8, 3), COLORS[color], np.uint8)
    image[0, 0] = 0
    return image


def ask(server: Chat, *questions: str, color: str = "red", **options):
    told = {"url": server.url, "model": "judge-7b", "retries": 2, "timeout_s": 5.0, **options}
    with ServerAnswerer(**told) as answerer:
        [answers] = answerer.answer([(pixels(color), questions)])
    return list(answers)


def test_questions_are_answered_from_the_image(chat: Chat) -> None:
    images = [(pixels(color), ["red?", "green?", "blue?"]) for color in COLORS]
    with ServerAnswerer(url=chat.url + "/", model="judge-7b", concurrency=4) as answerer:
        found = list(answerer.answer(images))
    assert [[a.yes for a in answers] for answers in found] == np.eye(3, dtype=bool).tolist()
    assert found[0][0].text == "**Yes**, I think."
    assert found[0][0].soft == pytest.approx(0.6 / 0.8)
    assert found[0][1].soft == pytest.approx(0.2 / 0.8)
    assert len(chat.sent) == 9
    first = next(body for body in chat.sent if body["messages"][0]["content"][1]["text"][0] == "r")
    assert first["messages"][0]["content"][1]["text"] == "red? Answer with yes or no."
    assert (first["temperature"], first["max_tokens"], first["top_logprobs"]) == (0, 16, 20)
    assert chat.keys == {None}


def test_the_image_arrives_as_it_is(chat: Chat) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (37, 53, 3), np.uint8)
    with ServerAnswerer(url=chat.url, model="judge-7b", prompt="{question}") as answerer:
        list(answerer.answer([(noise, ["red?"])]))
    url = chat.sent[0]["messages"][0]["content"][0]["image_url"]["url"]
    assert (decode_image(base64.b64decode(url.partition(",")[2])) == noise).all()


@pytest.mark.parametrize(
    ("question", "told", "tries"),
    [
        ("hang", "no reply within 0.5 s", 3),
        pytest.param("drip", "no reply within 0.5 s", 3, marks=pytest.mark.slow),
        ("close", "no reply: RemoteDisconnected", 3),
        ("cut", "the connection broke off", 3),
        ("500", "the server answers 500: refused with 500", 3),
        ("503", "the server answers 503: refused with 503", 3),
        ("429", "the server answers 429: refused with 429", 3),
        ("401", "the server answers 401: refused with 401", 1),
        ("404", "the server answers 404: refused with 404", 1),
        ("413", "the server answers 413: refused with 413", 1),
        ("400", "the server answers 400: refused with 400", 2),  # again without logprobs
        ("moved", "the server answers 307: Temporary Redirect", 1),
        ("html", "the reply is no JSON: <html>a proxy's page</html>", 1),
        ("list", "the reply has no choice: [1, 2]", 1),
        ("empty", "the reply has no choice: {'choices': []}", 1),
        ("silent", "the reply has no text (finish_reason 'length')", 1),
        ("blank", "the reply has no text (finish_reason 'length')", 1),
        ("odd", "the reply has no text (finish_reason None)", 1),
        ("nonsense", "neither yes nor no: 'a dog'", 1),
        ("both", "neither yes nor no: 'Yes and no.'", 1),
    ],
)
def test_each_failure_is_told_and_harms_no_other_question(
    chat: Chat, question: str, told: str, tries: int
) -> None:
    red, bad, blue = ask(chat, "red?", question, "blue?", timeout_s=0.5)
    assert (red.yes, red.error, blue.yes, blue.error) == (True, None, False, None)
    assert (bad.yes, bad.soft) == (None, None)
    assert (bad.error or "").startswith(told)
    assert chat.asked[question] == tries


def test_what_passes_by_itself_is_asked_again(chat: Chat) -> None:
    busy, weak = ask(chat, "busy", "weak")
    assert (busy.error, weak.error) == (None, None)
    assert (chat.asked["busy"], chat.asked["weak"]) == (2, 3)


def test_waits_grow_and_follow_the_server(monkeypatch) -> None:
    from email.message import Message

    waits: list[float] = []
    server = chat_server.ChatServer("http://127.0.0.1:9/v1", api_key_env="", timeout_s=1.0, retries=5)
    monkeypatch.setattr(server.gone, "wait", lambda seconds: waits.append(seconds) or False)
    asked = iter([None, None, 7.0, 1e9, None])

    def refuse(path: str, payload: object) -> None:
        raise chat_server.Trouble("busy", 429, next(asked, None))

    monkeypatch.setattr(server, "_once", refuse)
    with pytest.raises(chat_server.Trouble):
        server.complete({})
    assert waits == [0.01, 0.02, 7.0, 60.0, 0.16]
    headers = Message()
    headers["Retry-After"] = formatdate(4e9, usegmt=True)
    assert (chat_server._wait_s(headers) or 0) > 1e9
    headers.replace_header("Retry-After", "soon")
    assert chat_server._wait_s(headers) is None


def test_a_server_that_gives_no_probabilities_is_asked_without(monkeypatch) -> None:
    with serving(logprobs=False) as server:
        answers = ask(server, "red?", "green?", "blue?", concurrency=1)
        assert [(a.yes, a.soft, a.error) for a in answers] == [
            (yes, None, None) for yes in (True, False, False)
        ]
        assert ["logprobs" in body for body in server.sent] == [True, False, False, False]
        assert ask(server, "red?", logprobs=False)[0].yes
        assert "logprobs" not in server.sent[-1]


def test_the_key_is_sent_and_never_stored(chat: Chat, monkeypatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "very-secret")
    assert ask(chat, "red?", api_key_env="JUDGE_KEY")[0].yes
    assert chat.keys == {"Bearer very-secret"}
    answerer = ServerAnswerer(url=chat.url, model="judge-7b", api_key_env="JUDGE_KEY")
    [quoted] = ask(chat, "quote", api_key_env="JUDGE_KEY")
    assert quoted.error == "the server answers 403: wrong: [key]"
    assert "very-secret" not in repr(vars(answerer)) + repr(vars(answerer._server)) + answerer.version
    monkeypatch.setenv("JUDGE_KEY", "two\nlines")
    with pytest.raises(BadInput, match="holds no key") as told:
        ServerAnswerer(url=chat.url, model="judge-7b", api_key_env="JUDGE_KEY")
    assert "lines" not in str(told.value)
    monkeypatch.setenv("JUDGE_KEY", "very-secret")
    chat.models_status = 401
    with pytest.raises(BadInput, match=r"401: bad key Bearer \[key\] \(is the key in JUDGE_KEY right\?\)"):
        answerer.__enter__()


def test_the_door_is_checked_before_anything_is_asked(chat: Chat) -> None:
    with pytest.raises(BadInput, match=r"serves no model 'judge-8b', but 'judge-7b'"):
        ask(chat, "red?", model="judge-8b")
    with pytest.raises(
        BadInput, match=r"answers 404: Not Found \(is the address right\? It usually ends in"
    ):
        ask(chat, "red?", url=chat.url.removesuffix("/v1"))
    chat.models_status = 401
    with pytest.raises(BadInput, match=r"name the variable with the key: api_key_env"):
        ask(chat, "red?")
    chat.close_door()
    with pytest.raises(BadInput, match=r"/v1/models: no reply: ConnectionRefusedError"):
        ask(chat, "red?")


def test_a_server_that_dies_gives_what_it_gave_and_ends_the_run() -> None:
    with serving(dies_after=4) as server:
        given = []
        images = [(pixels(color), ["red?", "blue?"]) for color in COLORS]
        with ServerAnswerer(url=server.url, model="judge-7b", retries=1, concurrency=1) as answerer:
            answers = answerer.answer([*images, *images])
            with pytest.raises(Incomplete, match="run the same command again"):
                given.extend(answers)
        assert len(given) == 6
        assert [[a.error is None for a in answers] for answers in given] == [[True] * 2] * 2 + [
            [False] * 2
        ] * 4
        assert all((a.error or "").startswith("not asked: http://127") for a in given[-1])
        assert len(server.sent) == 5
    with serving() as back:
        answerer._server.url = back.url
        with answerer:
            assert next(answerer.answer(images[:1]))[0].yes


def test_soft_scores_need_one_of_the_two_words() -> None:
    assert first_token_soft(None) is None
    assert first_token_soft([{"token": "The", "logprob": -0.1}, "x", {"token": 3}]) is None
    assert first_token_soft([{"token": " YES", "logprob": -0.5}]) == 1.0
    assert first_token_soft([{"token": "No", "logprob": 0.0}, {"token": "yes", "logprob": -9999.0}]) == 0.0


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"url": ""}, "needs the server's address"),
        ({"url": "file:///etc/passwd"}, "needs the server's address"),
        ({"url": "http://me:word@host/v1"}, "nothing secret in the address"),
        ({"url": "http://host/v1?key=word"}, "nothing secret in the address"),
        ({"url": "http://[::1/v1"}, "needs the server's address"),
        ({"model": ""}, "needs the model's name"),
        ({"prompt": "what?"}, r"a text with \{question\}"),
        ({"api_key_env": "sk-123"}, "the name of an environment variable, never the key$"),
        ({"api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE, which api_key_env names, holds no key"),
        ({"logprobs": "maybe"}, "true or false"),
        ({"retries": -1}, "a whole number >= 0"),
        ({"concurrency": 0}, "a whole number >= 1"),
        ({"max_tokens": 1.5}, "a whole number >= 1"),
        ({"timeout_s": 0}, "seconds above 0"),
        ({"timeout_s": "long"}, "seconds above 0"),
        ({"key": "x"}, "has no option 'key'; known are url, model"),
    ],
)
def test_options_are_checked_without_asking_anybody(changed, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        ServerAnswerer(**{"url": "http://127.0.0.1:9/v1", "model": "m", **changed})


def test_the_version_is_of_the_model_and_the_way_of_asking() -> None:
    here = {"url": "http://127.0.0.1:9/v1", "model": "judge-7b"}
    version = ServerAnswerer(**here).version
    assert version.startswith("1+judge-7b+")
    assert version.endswith("+chat-1")
    same = [{"url": "http://other/v1"}, {"retries": 9}, {"concurrency": 1}, {"logprobs": False}]
    other = [{"model": "judge-8b"}, {"prompt": "{question}"}, {"max_tokens": 1}]
    assert {ServerAnswerer(**here | change).version for change in same} == {version}
    assert len({ServerAnswerer(**here | change).version for change in other} | {version}) == 4


# The judge stage, by the command line, with a server that dies.


@pytest.fixture
def drawn(spec: RunSpec, tmp_path: Path) -> RunFolder:
    """Five images in blocks of three, two questions each; three red, two blue."""
    questions = write_questions([Question(1, "red?"), Question(2, "blue?")])
    prompts = [Prompt(f"p{i}", "an image", checks=questions) for i in range(5)]
    suite = tmp_path / "asked.jsonl"
    rows = [{"id": p.id, "text": p.text, "checks": p.checks} for p in prompts]
    suite.write_text("\n".join(map(json.dumps, rows)))
    changes = {"judge": "", "judge_options": {}, "fold": "", "images_per_prompt": 1, "batch_size": 3}
    plain = with_judge(replace(spec, suite=str(suite), **changes))
    folder = RunFolder(tmp_path / "run")
    with folder.lock():
        prepare(plain, folder)
    for block in (range(3), range(3, 5)):
        rows = []
        for i in block:
            buffer = io.BytesIO()
            Image.fromarray(pixels("red" if i < 3 else "blue")).save(buffer, "PNG")
            made = Generation(f"p{i}/0", 0, image=buffer.getvalue())
            rows.append(generation_row(prompts[i], made, plain.digest))
        folder.generations.write(block[0] // 3, rows)
    return folder


def words(folder: RunFolder, server: Chat) -> list[object]:
    options = {"answerer": "server", "url": server.url, "model": "judge-7b", "retries": 1}
    more = {"images_at_once": 1, "concurrency": 1, "timeout_s": 5}
    told = [w for n, v in {**options, **more}.items() for w in ("--judge-option", f"{n}={v}")]
    return ["judge", folder.path, "--judge", "vqa", "--workers", 1, "--json", *told]


@pytest.mark.slow
def test_a_server_that_dies_leaves_a_run_that_goes_on_elsewhere(sar_eval, drawn: RunFolder) -> None:
    environment = {**os.environ, "JUDGE_KEY": "very-secret"}
    with serving(dies_after=5) as server:
        done = sar_eval(*words(drawn, server), env=environment)
    assert done.returncode == 3, done.stderr
    assert "answerer 'server': http://127.0.0.1" in done.stderr
    assert "run the same command again to go on" in done.stderr
    assert "Traceback" not in done.stderr
    found = {row["key"]: verdict_from_row(row) for row in drawn.verdicts("vqa").rows()}
    # Two images had both their answers; the third had one, which its evidence keeps.
    assert {key: v.score for key, v in found.items()} == {"p0/0": 0.5, "p1/0": 0.5, "p2/0": None}
    assert "question 2 ('blue?'): no reply" in (found["p2/0"].error or "")
    assert [row["yes"] for row in found["p2/0"].evidence["questions"]] == [True, None]

    with serving() as another:
        key = ["--judge-option", "api_key_env=JUDGE_KEY"]
        again = sar_eval(*words(drawn, another), *key, env=environment)
        assert again.returncode == 0, again.stderr
        assert len(another.sent) == 6  # two questions of each of three images
        assert another.keys == {"Bearer very-secret"}
    told = json.loads(again.stdout)
    assert (told["expected"], told["judged"], told["failed"]) == (5, 5, 0)
    assert {row["score"] for row in drawn.verdicts("vqa").rows()} == {0.5}
    assert "1+server+1+judge-7b+" in next(drawn.verdicts("vqa").rows())["judge_version"]
    assert "very-secret" not in (drawn.path / "run.json").read_text()
    assert "JUDGE_KEY" in (drawn.path / "run.json").read_text()


def test_no_server_is_told_before_anything_is_judged(sar_eval, drawn: RunFolder) -> None:
    with serving() as server:
        pass
    done = sar_eval(*words(drawn, server))
    assert done.returncode == 2, done.stderr
    assert "/v1/models: no reply: ConnectionRefusedError" in done.stderr
    assert "Traceback" not in done.stderr
