"""The engine `server` with a local server: what it sends, what it makes of each answer, and its limits."""

import threading

import numpy as np
import pytest

from sar_eval.clients import json_client
from sar_eval.clients.json_client import RequestError
from sar_eval.clients.pace import Pace
from sar_eval.engines.server import ServerEngine, seed_sent
from sar_eval.errors import BadInput, Incomplete
from sar_eval.images.files import decode_image
from sar_eval.types import Draw, DrawProtocol, Generation, Json, Prompt, make_draw
from tests.fake_images_server import FakeImagesServer, picture, serving_images

SIDE = 64
KEY = "sk-Se&cret/a<b+c=="


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_client, "BACKOFF_S", 0.01)


@pytest.fixture
def server():
    with serving_images() as found:
        yield found


def engine_of(
    server: FakeImagesServer, protocol: DrawProtocol | None = None, **options: Json
) -> ServerEngine:
    options = {"base_url": server.url, "retries": 2, "timeout_s": 5.0, **options}
    return ServerEngine("painter", protocol or DrawProtocol("custom", SIDE), **options)


def draws_of(*texts: str) -> list[Draw]:
    return [make_draw(Prompt(f"p{number}", text), 0, 7) for number, text in enumerate(texts)]


def drawn(server: FakeImagesServer, *texts: str, **options: Json) -> list[Generation]:
    draws = draws_of(*texts)
    with engine_of(server, **options) as engine:
        found = {generation.key: generation for generation in engine.generate(draws)}
    return [found[draw.key] for draw in draws]


def expected(text: str, seed: object = None) -> np.ndarray:
    return picture(text, seed, SIDE, SIDE)


@pytest.mark.parametrize("urls", [False, True])
@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_pixels_are_those_that_were_sent(server: FakeImagesServer, urls: bool, image_format: str) -> None:
    server.urls = urls
    texts = ["a cat", "two dogs", "a \u5b57"]
    for text, generation in zip(texts, drawn(server, *texts, image_format=image_format), strict=True):
        assert generation.error is None
        assert generation.image is not None
        assert generation.image.startswith(b"RIFF" if image_format == "webp" else b"\x89PNG")
        assert (decode_image(generation.image) == expected(text)).all()


def test_the_request_has_what_was_asked_for_and_nothing_else(server: FakeImagesServer) -> None:
    drawn(server, "a cat")
    assert server.requests[0] == {"model": "painter", "prompt": "a cat", "size": "64x64", "n": 1}
    protocol = DrawProtocol("custom", SIDE, prefix="A photo of ", negative_prompt="blur")
    [draw] = draws_of("a cat")
    options = {"send_seed": True, "guidance": 4.5, "steps": 20, "extra": {"quality": "low"}}
    with engine_of(server, protocol, **options) as engine:
        [generation] = engine.generate([draw])
    assert server.requests[1] == {
        "model": "painter",
        "prompt": "A photo of a cat",
        "size": "64x64",
        "n": 1,
        "quality": "low",
        "negative_prompt": "blur",
        "guidance_scale": 4.5,
        "num_inference_steps": 20,
        "seed": seed_sent(draw),
    }
    assert generation.provenance["seed_sent"] == seed_sent(draw) == draw.seed >> 32
    assert generation.image is not None
    assert (decode_image(generation.image) == expected("A photo of a cat", seed_sent(draw))).all()


def test_a_rectangle_is_asked_for_and_held_against_what_came(server: FakeImagesServer) -> None:
    protocol = DrawProtocol("custom", 96, width=64, height=96)
    good, bad = draws_of("a cat", "a [small] cat")
    with engine_of(server, protocol) as engine:
        found, other = sorted(engine.generate([good, bad]), key=lambda generation: generation.key)
    assert {request["size"] for request in server.requests} == {"64x96"}
    assert found.image is not None
    assert (decode_image(found.image) == picture("a cat", None, 64, 96)).all()
    assert other.error == "the server sent a picture of 64x32 pixels where 64x96 were asked for"


def test_an_address_may_end_in_v1(server: FakeImagesServer) -> None:
    assert drawn(server, "a cat", base_url=f"{server.url}/v1/")[0].error is None


@pytest.mark.parametrize(
    ("fault", "error", "requests"),
    [
        ("refused", "refused for its content: the server returned 400: your request was rejected", 1),
        ("400", "the server returned 400: failed with 400", 1),
        ("422", "the server returned 422: failed with 422", 1),
        ("500", "the server returned 500: failed with 500", 3),
        ("429", "the server returned 429: failed with 429", 3),
        ("much-later", "the server returned 429: too many", 1),
        ("hang", "no response within 1 s", 3),
        ("close", "no response: RemoteDisconnected", 3),
        ("html", "the response is no JSON: <html>a proxy's page</html>", 1),
        ("none", "the response has no picture: {'data': []}", 1),
        ("two", "the server sent 2 pictures where 1 was asked for", 1),
        ("nothing", "the response's picture has neither b64_json nor url", 1),
        ("no-base64", "the response's b64_json is no base64", 1),
        ("no-picture", "the server's picture cannot be used: unreadable image: this is a GIF", 1),
        ("cut", "the server's picture cannot be used: unreadable image", 1),
        ("small", "the server sent a picture of 64x32 pixels where 64x64 were asked for", 1),
        ("huge", "the response is longer than 2 MiB", 1),
        ("big-file", "the picture's file: the response is longer than 1 MiB", 1),
        ("expired", "the picture's file: the server returned 403: expired", 1),
        (
            "elsewhere",
            "the picture's file: its address is neither the server's own nor https: http://localhost:9",
            1,
        ),
        (
            "file-url",
            "the picture's file: its address is neither the server's own nor https: file:///etc/passwd",
            1,
        ),
    ],
)
def test_each_fault_is_an_error_of_its_draw_alone(
    server: FakeImagesServer, fault: str, error: str, requests: int
) -> None:
    bad = f"a [{fault}] cat"
    one, failed, other = drawn(server, "a dog", bad, "a bird", timeout_s=1.0 if fault == "hang" else 60)
    assert (one.error, other.error) == (None, None)
    assert (failed.error or "").startswith(error)
    assert failed.image is None
    assert server.counts[bad] == requests


@pytest.mark.parametrize("fault", ["later:1", "429:2", "503:2", "close:1", "408:1"])
def test_passing_faults_are_retried(server: FakeImagesServer, fault: str) -> None:
    [generation] = drawn(server, f"a [{fault}] cat")
    assert generation.error is None
    assert server.counts[f"a [{fault}] cat"] == int(fault[-1]) + 1


@pytest.mark.parametrize(
    ("form", "mark"), [("jpeg", "lossy"), ("webp", ""), ("alpha", "transparent"), ("data-url", "")]
)
def test_other_files_are_stored_as_ours(server: FakeImagesServer, form: str, mark: str) -> None:
    [generation] = drawn(server, f"a [{form}] cat")
    assert generation.error is None
    assert generation.image is not None
    assert generation.image.startswith(b"\x89PNG")
    assert {"lossy", "transparent"} & generation.provenance.keys() == ({mark} if mark else set())
    if form != "jpeg":
        assert (decode_image(generation.image) == expected(f"a [{form}] cat")).all()


def test_relative_addresses_are_the_servers_own(server: FakeImagesServer) -> None:
    assert drawn(server, "a [relative] cat")[0].error is None


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("401", BadInput, r"the server returned 401: failed with 401 \(set api_key_env to its variable\)"),
        ("403", BadInput, r"the server returned 403: failed with 403 \(set api_key_env"),
        ("404", BadInput, r"is the address right, and the model's name\?"),
        ("402", Incomplete, "draws for nothing no more: the server returned 402"),
        (
            "broke",
            Incomplete,
            "draws for nothing no more: the server returned 429: you exceeded your quota",
        ),
    ],
)
def test_some_faults_stop_at_once_and_keep_what_came(
    server: FakeImagesServer, fault: str, error: type[Exception], message: str
) -> None:
    draws = draws_of("a cat", "a dog", f"a [{fault}] bird", *(f"cat {n}" for n in range(30)))
    found = []
    with engine_of(server, concurrency=1) as engine, pytest.raises(error, match=message):
        found.extend(engine.generate(draws))
    assert [(g.key, g.error) for g in found] == [("p0/0", None), ("p1/0", None)]
    assert len(server.requests) == 3


def test_a_server_that_stops_is_not_asked_for_the_rest(server: FakeImagesServer) -> None:
    server.stops_after = 3
    draws, found = draws_of(*(f"cat {n}" for n in range(40))), []
    with engine_of(server, concurrency=2, retries=1) as engine:
        with pytest.raises(Incomplete, match="stopped responding: no response"):
            found.extend(engine.generate(draws))
        assert len([g for g in found if g.error is None]) == 3  # two at once: which three is not known
        assert len(server.requests) < 12
        server.stops_after = 0
    with engine:  # as a worker that is started again
        assert [g.error for g in engine.generate(draws[3:5])] == [None, None]


def test_at_most_so_many_requests_at_once(server: FakeImagesServer) -> None:
    server.delay_s = 0.05
    drawn(server, *(f"cat {n}" for n in range(12)), concurrency=3)
    assert server.most == 3


def test_at_most_so_many_requests_a_minute_retries_included(server: FakeImagesServer) -> None:
    drawn(server, "a [503:1] cat", *(f"cat {n}" for n in range(4)), requests_per_minute=600)
    assert len(server.requests) == 6
    assert max(server.arrivals) - min(server.arrivals) > 0.3  # 0.5, less what the first was late


def test_requests_are_spaced_and_pause_together(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waits, stop = [100.0], [], threading.Event()
    monkeypatch.setattr("sar_eval.clients.pace.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(stop, "wait", lambda seconds: bool(waits.append(round(seconds, 6))))
    pace = Pace(600)
    for _ in range(3):
        pace.wait(stop)
    clock[0] = 110.0
    pace.wait(stop)
    assert waits == [0.1, 0.2]
    for known, expected_waits in ((pace, [7.0, 7.1]), (Pace(), [7.0, 7.0])):
        waits.clear()
        known.pause(7.0)  # the server asked for it
        known.pause(1.0)
        known.wait(stop)
        known.wait(stop)
        assert waits == expected_waits


def test_costs_and_counts_are_summed(server: FakeImagesServer) -> None:
    server.usage = {"total_tokens": 100, "input_tokens_details": {"text_tokens": 7}, "note": "x", "bad": -1}
    found = drawn(server, "a cat", "a [small] dog", "a [400] bird", price=0.04, concurrency=1)
    usage = {"total_tokens": 100, "input_tokens_details.text_tokens": 7}
    assert [g.provenance.get("cost") for g in found] == [0.04, 0.04, None]
    assert [g.error is None for g in found] == [True, False, False]  # what cannot be used costs as well
    assert found[0].provenance["usage"] == usage
    assert found[1].provenance["spent"] == {
        "pictures": 2,
        "cost": 0.08,
        **{f"usage.{name}": 2 * value for name, value in usage.items()},
    }
    assert "spent" not in found[2].provenance


def test_a_revised_prompt_is_recorded_without_the_key(server: FakeImagesServer, monkeypatch) -> None:
    monkeypatch.setenv("IMAGES_KEY", KEY)
    [generation] = drawn(server, "a [quote-prompt] cat", api_key_env="IMAGES_KEY")
    assert generation.provenance["revised_prompt"] == "a dog, Bearer [key]"


def test_the_key_is_sent_and_shown_nowhere(server: FakeImagesServer, monkeypatch, capfd) -> None:
    monkeypatch.setenv("IMAGES_KEY", KEY)
    server.urls = True
    found = drawn(server, "a cat", "a [quote] dog", api_key_env="IMAGES_KEY")
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert len(server.keys) == 3  # the file, too, is the server's own
    assert found[1].error == "the server returned 400: no: Bearer [key]"
    assert "cret" not in "".join([str(found), *capfd.readouterr()])


def test_another_host_gets_no_key(server: FakeImagesServer, monkeypatch) -> None:
    monkeypatch.setenv("IMAGES_KEY", KEY)
    client = engine_of(server, api_key_env="IMAGES_KEY").client
    sent = []
    monkeypatch.setattr(client, "_exchange", lambda request, limit: sent.append(request) or b"")
    client.fetch("https://elsewhere.example/x.png", 10)
    client.fetch(f"{server.url}/x.png", 10)
    assert [request.has_header("Authorization") for request in sent] == [False, True]
    for url in ("https://me:word@elsewhere.example/x", "http://[::1/x", "ftp://x/y", f"{server.url}0/x"):
        with pytest.raises(RequestError, match="neither the server's own nor https"):
            client.fetch(url, 10)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"base_url": ""}, "needs the server's address: --engine-option base_url="),
        ({"base_url": "file:///etc/passwd"}, "needs the server's address"),
        ({"base_url": "http://me:word@host"}, "nothing secret in the address"),
        ({"base_url": "http://host/v1?key=word"}, "nothing secret in the address"),
        ({"api_key_env": "sk-word"}, "the name of an environment variable, never the key$"),
        ({"api_key_env": "NOT_SET_word"}, "the environment variable that api_key_env names is not set"),
        ({"api_key_env": 12345678}, "the name of an environment variable, never the key$"),
        ({"api_key": "word"}, "has no option 'api_key'; known are base_url"),
        ({"timeout_s": 0}, "seconds above 0"),
        ({"retries": -1}, "a whole number >= 0"),
        ({"concurrency": 0}, "a whole number >= 1"),
        ({"requests_per_minute": -1}, "a number of at least 0"),
        ({"requests_per_minute": True}, "a number of at least 0"),
        ({"price": "much"}, "a number of at least 0"),
        ({"guidance": float("inf")}, "a number of at least 0"),
        ({"steps": 0}, "a whole number >= 1"),
        ({"send_seed": 42}, "true or false"),
        ({"extra": "quality"}, "a table, as"),
        ({"extra": {"n": 4}}, r"extra\.n of engine 'server': another option sets this field"),
        ({"identity": "x" * 300}, "a name of at most 200 characters"),
        ({"image_format": "jpeg"}, "unknown image format"),
    ],
)
def test_options_are_checked_without_a_request(changed: dict[str, Json], message: str) -> None:
    options = {"base_url": "http://127.0.0.1:9", **changed}
    for make in (
        lambda: ServerEngine("painter", DrawProtocol("custom", SIDE), **options),
        lambda: ServerEngine.find("painter", options),
    ):
        with pytest.raises(BadInput, match=message) as caught:
            make()
        assert "word" not in str(caught.value)
        assert "12345678" not in str(caught.value)


@pytest.mark.parametrize(
    "changed", [{"extra": {"token": KEY}}, {"identity": KEY}, {"base_url": f"http://h/{KEY}"}]
)
def test_a_key_in_an_option_is_refused_before_it_is_stored(changed: dict[str, Json], monkeypatch) -> None:
    monkeypatch.setenv("IMAGES_KEY", KEY)
    options = {"base_url": "http://127.0.0.1:9", "api_key_env": "IMAGES_KEY", **changed}
    with pytest.raises(BadInput, match="holds the key itself, and would be stored") as caught:
        ServerEngine.find("painter", options)
    assert "cret" not in str(caught.value)
