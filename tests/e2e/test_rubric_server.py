"""The judge `rubric` with a local server: requests as the recipe says, tries, and every failure."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from rubric_server import (
    RubricServer,
    encoded,
    judge,
    picture,
    rubric_options,
    serving,
)

from sar_eval.clients import json_client
from sar_eval.errors import BadInput, Incomplete
from sar_eval.judges.rubric import RubricJudge
from sar_eval.networks.chat_backends import MAX_REPLY
from sar_eval.recipe import load_recipe
from sar_eval.types import Generation, Prompt


@pytest.fixture(autouse=True)
def short_waits(monkeypatch) -> None:
    monkeypatch.setattr(json_client, "BACKOFF_S", 0.01)


@pytest.fixture
def chat():
    with serving() as server:
        yield server


def test_scores_come_from_the_picture(chat: RubricServer) -> None:
    red, blue = judge(chat, "red", "blue")
    assert (red.score, blue.score, red.reason) == (1.0, 0.0, "score 1")
    assert red.evidence == {
        "replies": ["Score: 1"],
        "tries": 1,
        "values": {"score": 1.0},
        "truncated": False,
    }


def test_the_request_is_as_the_recipe_says(chat: RubricServer) -> None:
    checks = {"explanation": "why {prompt}"}
    judge(
        chat,
        Prompt("p", "red", checks=checks),
        template="{prompt}\n{explanation} {{x}}",
        system="Be strict.",
        order="text-image",
        mime="image/png",
        temperature=0.5,
        max_tokens=9,
        extra_body={"chat_template_kwargs": {"enable_thinking": False}, "repetition_penalty": 1.05},
        image=encoded("red", "JPEG"),
    )
    [body] = chat.requests
    assert {k: v for k, v in body.items() if k != "messages"} == {
        "model": "judge-7b",
        "temperature": 0.5,
        "max_tokens": 9,
        "chat_template_kwargs": {"enable_thinking": False},
        "repetition_penalty": 1.05,
    }
    system, user = body["messages"]
    assert system == {"role": "system", "content": "Be strict."}
    text, image = user["content"]
    assert text == {"type": "text", "text": "red\nwhy {prompt} {x}"}
    assert picture(image["image_url"]["url"]) == ("image/png", encoded("red", "JPEG"))  # stated, not true


def test_nothing_is_sent_that_is_left_to_the_server(chat: RubricServer) -> None:
    judge(chat, "red", temperature="server", max_tokens=0)
    [body] = chat.requests
    assert set(body) == {"model", "messages"}
    assert [part["type"] for part in body["messages"][0]["content"]] == ["image_url", "text"]


@pytest.mark.parametrize(
    ("stored", "options", "mime"),
    [("PNG", {}, "image/png"), ("JPEG", {}, "image/jpeg"), ("WEBP", {}, "image/webp")],
)
def test_the_file_is_sent_as_it_is_stored(
    chat: RubricServer, stored: str, options: dict, mime: str
) -> None:
    data = encoded("red", stored)
    judge(chat, "red", image=data, **options)
    assert picture(chat.requests[0]["messages"][0]["content"][0]["image_url"]["url"]) == (mime, data)


def test_a_picture_is_encoded_anew(chat: RubricServer) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    forms = [{"encoding": "jpeg", "jpeg_quality": 30}, {"encoding": "png", "resize": [16, 8]}]
    for form in forms:
        judge(chat, "red", image=buffer.getvalue(), **form)
    sent = [picture(b["messages"][0]["content"][0]["image_url"]["url"]) for b in chat.requests]
    expected = io.BytesIO()
    Image.fromarray(noise).save(expected, "JPEG", quality=30)
    assert sent[0] == ("image/jpeg", expected.getvalue())
    small = np.asarray(Image.fromarray(noise).resize((16, 8), Image.Resampling.BICUBIC))
    assert (np.asarray(Image.open(io.BytesIO(sent[1][1]))) == small).all()


def test_an_unread_reply_is_asked_for_again_and_kept(chat: RubricServer) -> None:
    chat.replies = {"late": ["Hm.", "Score: 7"], "never": ["A dog.", "", "Score: 1, score: 0"]}
    late, never, red = judge(chat, "late", "never", "red")
    assert (late.score, late.evidence["replies"]) == (7.0, ["Hm.", "Score: 7"])
    assert (never.score, never.error) == (
        None,
        "unread: score is told as 1, 0: different numbers in one reply",
    )
    assert never.evidence["replies"] == ["A dog.", None, "Score: 1, score: 0"]
    assert (never.evidence["tries"], never.evidence["values"]) == (3, {})
    assert (red.score, chat.counts["red"]) == (1.0, 1)
    chat.replies = {"never": ["Score: 1, score: 0"]}
    [twice] = judge(chat, "never", tries=2)
    assert twice.error == "unread: score is told as 1, 0: different numbers in one reply"
    assert twice.evidence["replies"] == ["Score: 1, score: 0"] * 2


def test_a_reply_that_was_cut_says_so(chat: RubricServer) -> None:
    chat.replies = {"long": ["<think>It is..."]}
    [long] = judge(chat, "long", tries=1, max_tokens=5)
    assert long.error == "unread: the reply is empty after its thinking (cut off at max_tokens 5)"
    assert long.evidence["truncated"]


@pytest.mark.parametrize(
    ("prompt", "error", "requests"),
    [
        ("hang", "no response within 1 s", 3),
        ("close", "no response: RemoteDisconnected", 3),
        ("500", "the server returned 500: refused with 500", 3),
        ("429", "the server returned 429: refused with 429", 3),
        ("413", "the server returned 413: refused with 413", 1),
        ("html", "the response is no JSON: <html>a proxy's page</html>", 3),
        ("empty", "the response has no choice: {'choices': []}", 3),
        ("silent", "the response has no text (finish_reason 'length')", 3),
        ("nonsense", "unread: no score in 'a dog'", 3),
        ("deep", "the response: nested deeper than 64", 3),
        ("nul", "the response: ... contains a NUL character", 3),
        ("long-answer", "the reply has 7,000,000 characters, of which at most 200,000 are kept", 3),
    ],
)
def test_each_failure_is_an_error_of_its_picture_alone(
    chat: RubricServer, prompt: str, error: str, requests: int
) -> None:
    red, bad, blue = judge(chat, "red", prompt, "blue", timeout_s=1.0 if prompt == "hang" else 60.0)
    assert (red.score, blue.score, bad.score) == (1.0, 0.0, None)
    assert (bad.error or "").startswith(error)
    assert chat.counts[prompt] == requests
    assert len(str(bad.evidence)) < MAX_REPLY


def test_transient_failures_are_retried(chat: RubricServer) -> None:
    chat.replies = {}
    busy, weak = judge(chat, "busy", "weak")
    assert (busy.error, weak.error) == (None, None)


def test_unreadable_pictures_and_missing_keys_are_errors_of_their_own(chat: RubricServer) -> None:
    [broken] = judge(chat, "red", image=b"\x89PNG")
    assert "unreadable image" in (broken.error or "")
    [lacking] = judge(chat, "red", template="{prompt}\n{explanation}")
    assert lacking.error == "prompt 'p0': the template asks for {explanation}, which its checks do not have"
    asked = Prompt("p0", "red", checks={"asked": ["Is it?"]})
    [none] = judge(chat, asked, reader="yes_no", template="{prompt}", items="asked", against="wanted")
    assert none.error == "prompt 'p0': its checks have no list 'wanted' of yes and no"
    for reader, options, error in (
        ("yes_no", {}, "its checks have no list 'questions'"),
        ("list", {"items": "parts"}, "its checks have no list 'parts'"),
        ("text", {"against": "wanted"}, "its checks have no text 'wanted' with words in it"),
    ):
        [none] = judge(chat, "red", reader=reader, template="{prompt}", **options)
        assert none.error == f"prompt 'p0': {error}"
    assert chat.requests == []


def test_all_questions_in_one_request(chat: RubricServer) -> None:
    prompt = Prompt("p", "ask", checks={"questions": ["Is it red? ", "Is it blue?"]})
    options = {"reader": "yes_no", "template": "{prompt}\n{questions}"}
    chat.replies = {"ask": ["yes", "1. yes\n2. no"]}
    [verdict] = judge(chat, prompt, **options)
    assert (verdict.score, verdict.reason) == (0.5, "answers yes no")
    assert verdict.evidence["values"] == {"answers": [True, False]}
    assert verdict.evidence["replies"] == ["yes", "1. yes\n2. no"]
    assert chat.requests[0]["messages"][0]["content"][1]["text"] == "ask\nIs it red?\nIs it blue?"


def test_what_was_replied_before_the_server_stops_is_yielded() -> None:
    with serving(stops_after=2) as server:
        items = [(Prompt(f"p{i}", "red"), Generation(f"p{i}/0", 0, image=encoded("red"))) for i in range(5)]
        verdicts = []
        with (
            RubricJudge(**rubric_options(server, retries=0, concurrency=1)) as rubric,
            pytest.raises(Incomplete, match="run the same command again"),
        ):
            verdicts.extend(rubric.judge(items))
        assert [v.score for v in verdicts] == [1.0, 1.0, None, None, None]
        assert (verdicts[-1].error or "").startswith("not asked: http://127")


def test_another_model_is_told_at_the_start(chat: RubricServer) -> None:
    with pytest.raises(BadInput, match=r"judge 'rubric': .* serves no model 'judge-8b', but 'judge-7b'"):
        judge(chat, "red", model="judge-8b")


def test_the_key_is_sent_and_never_stored(chat: RubricServer, monkeypatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "very-secret")
    chat.replies = {"leak": ["Score: 3 very-secret"]}
    [leak] = judge(chat, "leak", api_key_env="JUDGE_KEY")
    assert (leak.score, leak.evidence["replies"]) == (3.0, ["Score: 3 [key]"])
    assert chat.keys == {"Bearer very-secret"}


def test_texts_come_from_files_and_are_verified(chat: RubricServer, tmp_path) -> None:
    (tmp_path / "mine.txt").write_text("{prompt}\nfrom a file\n")
    digest = hashlib.sha256(b"{prompt}\nfrom a file\n").hexdigest()
    options = {
        "numbers": {"score": r"(\d)"},
        "template_file": str(tmp_path / "mine.txt"),
        "reader": "numbers",
    }
    judge(chat, "red", template_sha256=digest, **options)
    assert chat.requests[0]["messages"][0]["content"][1]["text"] == "red\nfrom a file\n"
    with pytest.raises(BadInput, match="of judge 'rubric' is another text than the recipe's"):
        judge(chat, "red", template_sha256="0" * 64, **options)
    with pytest.raises(BadInput, match="64 hexadecimal digits"):
        judge(chat, "red", template_sha256="0", **options)
    with pytest.raises(BadInput, match=r"template_file 'none\.txt' of judge 'rubric': no file none\.txt"):
        judge(chat, "red", **options | {"template_file": "none.txt"})


def test_texts_of_a_suite_are_fetched_with_it(chat: RubricServer, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path))
    options = {"numbers": {"score": r"(\d)"}, "reader": "numbers"}
    with pytest.raises(BadInput, match=r"wise/user\.txt: `sar-eval prompts fetch wise` downloads"):
        judge(chat, "red", template_file="wise/user", **options)


def test_the_version_is_of_all_that_changes_a_verdict(chat: RubricServer) -> None:
    def version(**options) -> str:
        return RubricJudge(**rubric_options(chat, **options)).version

    changes = [
        {"template": "{prompt}"},
        {"system": "x"},
        {"order": "text-image"},
        {"mime": "image/jpeg"},
        {"encoding": "png"},
        {"encoding": "jpeg"},
        {"encoding": "jpeg", "jpeg_quality": 75},
        {"encoding": "png", "resize": [8, 8]},
        {"temperature": 1},
        {"max_tokens": 3},
        {"extra_body": {"top_k": 1}},
        {"tries": 1},
        {"take": "last"},
        {"divisor": 2},
        {"model": "other"},
    ]
    versions = [version(), *(version(**change) for change in changes)]
    assert len(set(versions)) == len(versions)
    assert version(concurrency=1, retries=9, timeout_s=1.0) == versions[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": ""}, "needs a template"),
        ({"template": 3}, "template 3 of judge 'rubric': a text"),
        ({"system": "a", "system_file": "b"}, "either system or system_file"),
        ({"order": "image"}, "order 'image' of judge 'rubric': image-text or text-image"),
        ({"encoding": "gif"}, "encoding 'gif' of judge 'rubric': file, png, jpeg"),
        ({"mime": "image/gif"}, "mime 'image/gif'"),
        ({"jpeg_quality": 0}, "jpeg_quality 0"),
        ({"resize": [1]}, "resize .* a list of two numbers"),
        ({"resize": [8, 8]}, "a resized picture needs encoding png or jpeg"),
        ({"temperature": -1}, "temperature -1"),
        ({"max_tokens": 1.5}, "max_tokens 1.5"),
        ({"extra_body": 1}, "extra_body 1"),
        ({"extra_body": {"model": "x"}}, r"extra_body\.model"),
        ({"tries": 0}, "tries 0"),
        ({"backend": "psychic"}, "backend 'psychic' of judge 'rubric': server or transformers"),
        ({"tmeperature": 1}, "has no option 'tmeperature'"),
        ({"numbers": {"score": "("}}, r"numbers\.score of judge 'rubric'"),
        ({"url": "ftp://x"}, "needs the server's address"),
    ],
)
def test_an_option_that_cannot_be_is_named(chat: RubricServer, options: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        RubricJudge(**rubric_options(chat, **options))


@pytest.mark.parametrize(
    ("name", "reply", "score", "max_tokens"),
    [
        ("wise", "**Score:** 1", 1.0, 500),
        ("wise-legacy", "Consistency: 2\nRealism: 1\nAesthetic Quality: 0", 0.8, 2000),
    ],
)
def test_wise_is_asked_as_its_program_asks(
    chat: RubricServer, name: str, reply: str, score: float, max_tokens: int
) -> None:
    """With other texts, as the official ones are fetched; the bytes of a JPEG are called a PNG."""
    recipe = dict(load_recipe(name).judge_options)
    assert {recipe.pop(f"{text}_file") for text in ("system", "template")} == {
        f"{name.replace('-', '_')}/{text}" for text in ("system", "user")
    }
    recipe |= {"template": "{prompt}\n{explanation}", "system": "s", "url": chat.url, "model": "judge-7b"}
    data, chat.replies = encoded("red", "JPEG"), {"a tree": ["Hm.", reply]}
    prompt = Prompt("1", "a tree", checks={"explanation": "an oak"})
    with RubricJudge(**recipe) as rubric:
        [verdict] = rubric.judge([(prompt, Generation("1/0", 0, image=data))])
    assert (verdict.score, verdict.evidence["tries"]) == (pytest.approx(score), 2)
    body = chat.requests[0]
    thinking = {"chat_template_kwargs": {"enable_thinking": False}} if name == "wise" else {}
    assert {k: v for k, v in body.items() if k != "messages"} == {
        "model": "judge-7b",
        "temperature": 0,
        "max_tokens": max_tokens,
        **thinking,
    }
    system, user = body["messages"]
    assert system["content"] == "s"
    assert user["content"][0] == {"type": "text", "text": "a tree\nan oak"}
    assert picture(user["content"][1]["image_url"]["url"]) == ("image/png", data)
