"""The answerer `server` with a server that stalls, floods, sends nonsense, or quotes the key."""

import base64
import re
import socket
import time
from email.message import Message
from email.utils import formatdate

import pytest
from fake_chat_server import FakeChatServer, ask, serving
from hostile_replies import AT_ONCE, ENDLESS, PLACES, SPELLINGS

from sar_eval.answerers.server import ServerAnswerer
from sar_eval.clients import json_client
from sar_eval.clients.redact import redactor
from sar_eval.errors import BadInput


@pytest.fixture(autouse=True)
def short_waits(monkeypatch) -> None:
    monkeypatch.setattr(json_client, "BACKOFF_S", 0.01)


@pytest.fixture
def chat():
    with serving() as server:
        yield server


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("-7", 0.0),
        ("nan", 0.0),
        ("inf", float("inf")),
        ("9" * 5000, float("inf")),
        ("soon", None),
        ("", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Fri, 31 Dec 2999 23:59:59 +999999", None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
    ],
)
def test_every_retry_after_is_a_number_of_seconds_or_none(value: str, seconds: float | None) -> None:
    headers = Message()
    headers["Retry-After"] = value
    assert json_client._retry_after_s(headers) == seconds


def test_a_date_far_away_is_not_waited_for(chat: FakeChatServer) -> None:
    began = time.monotonic()
    date = formatdate(4e9, usegmt=True).replace(" ", "_")
    answers = ask(chat, "later=1e9", f"later={date}", "later=-3", retries=2)
    assert [a.error for a in answers] == ["the server returned 429: later"] * 3
    assert [chat.counts[name] for name in ("later=1e9", f"later={date}", "later=-3")] == [1, 1, 3]
    assert time.monotonic() - began < 3


def test_the_deadline_holds_for_the_whole_exchange(chat: FakeChatServer) -> None:
    began = time.monotonic()
    answers = ask(chat, *ENDLESS, "red?", timeout_s=0.5, retries=0, logprobs=False)
    assert time.monotonic() - began < 2.5
    assert answers.pop().yes
    for reply, answer in zip(ENDLESS, answers, strict=True):
        assert (answer.yes, bool(answer.error)) == (None, True), reply


def test_what_a_server_sends_is_at_most_an_error_of_its_question(chat: FakeChatServer) -> None:
    answers = ask(chat, *AT_ONCE, "red?", retries=0, logprobs=False)
    assert answers.pop().yes
    for (reply, (_, expected)), answer in zip(AT_ONCE.items(), answers, strict=True):
        assert (answer.yes, (answer.error or "")[: len(expected)]) == (None, expected), reply
        (answer.text + str(answer.error)).encode()  # can be stored
        assert len(answer.text + str(answer.error)) < 25_000, reply


@pytest.mark.parametrize("reply", ["deep", "half", "nul", "digits", "bytes", "headers-drip", "no-status"])
def test_a_list_of_models_that_is_none(reply: str) -> None:
    with serving(models_reply=reply) as server, pytest.raises(BadInput, match="/v1/models: ") as caught:
        ask(server, "red?", timeout_s=0.3)
    assert len(str(caught.value)) < 500


def test_a_long_list_of_models_is_shown_shortened() -> None:
    names = ["a\x1b[31m", "b" * 100_000, *map(str, range(5000))]
    with serving(models=names) as server, pytest.raises(BadInput, match="and 4992 more") as caught:
        ask(server, "red?")
    assert len(str(caught.value)) < 1000
    assert "\x1b" not in str(caught.value)


def test_a_server_that_nobody_reaches_is_told_in_time() -> None:
    """A socket that listens and never accepts: the connection is made, and nothing ever comes."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        began, url = time.monotonic(), f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        answerer = ServerAnswerer(url=url, model="m", timeout_s=0.3)
        with pytest.raises(BadInput, match=r"no response within 0\.3 s"):
            answerer.__enter__()
        assert time.monotonic() - began < 1


KEY = "sk-Se&cret/a<b+c=="


@pytest.mark.parametrize("place", PLACES)
def test_the_key_is_found_in_every_spelling(chat: FakeChatServer, monkeypatch, place: str) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    names = [f"{place}:{spelling}" for spelling in SPELLINGS]
    answers = ask(chat, *names, api_key_env="JUDGE_KEY", retries=0, logprobs=False)
    for name, answer in zip(names, answers, strict=True):
        stored = f"{answer.text} {answer.error}"
        assert (answer.yes, answer.error is None) == ((True, True) if place == "yes" else (None, False))
        assert "[k" in stored or place in ("twice", "far"), (name, stored)
        assert not leaked(stored), (name, stored)


def leaked(text: str) -> list[str]:
    """Four letters of the key or of its base64 text that stand in this one."""
    bare = re.sub(r"[^a-z0-9]", "", text.lower())
    encoded = [
        base64.b64encode(f"{before}{KEY}".encode()).decode()[len(before) * 4 // 3 + 1 :]
        for before in ("", "Bearer ", "me:")
    ]
    words = [word for secret in (KEY[4:], *encoded) for word in re.findall("[a-z0-9]{4}", secret.lower())]
    return [word for word in words if word in bare]


def test_a_key_in_the_list_of_models_is_not_shown(chat: FakeChatServer, monkeypatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    chat.models = [f"m-{KEY}", KEY.replace("&", "&amp;")]
    with pytest.raises(BadInput, match="serves no model") as caught:
        ask(chat, "red?", api_key_env="JUDGE_KEY")
    assert not leaked(str(caught.value))


@pytest.mark.parametrize("length", [4, 40, 164, 2000])
def test_keys_of_any_length_are_found(length: int) -> None:
    key = ("aB3-_/&" * 300)[:length]
    text = redactor(key)(f"x {key} y {SPELLINGS['all-unicode'](key)} z")
    assert text == "x [key] y [key] z"
    assert redactor(key)("nothing of the kind " * 1000) == "nothing of the kind " * 1000


def test_short_secrets_are_words_and_stay() -> None:
    assert redactor("no")("no dog") == "no dog"
    assert redactor("")("no dog") == "no dog"
