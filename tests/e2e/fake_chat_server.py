"""A fake server with OpenAI's HTTP interface that answers from the images and fails on demand."""

import base64
import io
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import numpy as np
from hostile_replies import PLACES, SPELLINGS, quoting, reply
from PIL import Image

from sar_eval.answerers.server import ServerAnswerer
from sar_eval.types import Answer

ServerT = TypeVar("ServerT", bound="FakeChatServer")
COLORS = ("red", "green", "blue")
PIXELS = {"red": (200, 10, 20), "green": (10, 200, 30), "blue": (30, 20, 200)}


class FakeChatServer(ThreadingHTTPServer):
    """Answers yes if a question names the image's strongest channel; see `Handler.fail`.

    Attributes:
        models: names of the models.
        counts: number of requests by the first word of the question.
        requests: the bodies of the chat requests.
        keys: the `Authorization` headers.
        stops_after: chat requests after which the server stops; 0 for never.
        logprobs: whether requests with `logprobs` are accepted.
        models_reply: name of the hostile reply to a request for the models.
    """

    daemon_threads = True
    request_queue_size = 128  # connections at once; beyond it the system lets them wait a second

    def __init__(self, **attributes: Any) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models = ["judge-7b"]
        self.counts: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.stops_after, self.logprobs, self.models_status = 0, True, 200
        self.models_reply = ""
        self.stopped, self.lock = False, threading.Lock()
        self.__dict__.update(attributes)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing when a client disconnects."""

    def stop(self) -> None:
        """Answer no further request, and close the socket in a thread."""
        if not self.stopped:
            self.stopped = True
            threading.Thread(target=self.close, daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: FakeChatServer

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.server.stopped:
            self.close_connection = True
            return
        self.server.keys.add(self.headers.get("Authorization"))
        models = [{"id": name} for name in self.server.models]
        if self.server.models_reply:
            reply(self.server.models_reply, self.wfile)
        elif self.server.models_status != 200:
            error = {"message": f"bad key {self.headers.get('Authorization')}"}
            self.respond({"error": error}, self.server.models_status)
        elif self.path == "/v1/models":
            self.respond({"data": models})
        else:
            self.respond({"detail": "Not Found"}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        image, question = (part for part in body["messages"][0]["content"])
        name = question["text"].split()[0].strip("?")
        with self.server.lock:
            self.server.requests.append(body)
            self.server.counts[name] += 1
            stop = self.server.stops_after and len(self.server.requests) > self.server.stops_after
        if stop:
            self.server.stop()
            self.close_connection = True
            return
        if body.get("logprobs") and not self.server.logprobs:
            self.respond({"error": {"message": "logprobs are not supported"}}, 400)
        elif not self.fail(name, self.server.counts[name]):
            self.respond(answer(color(image["image_url"]["url"]), name, bool(body.get("logprobs"))))

    def fail(self, name: str, attempt: int) -> bool:  # noqa: PLR0912 - a case each
        """Fail as a question's first word demands; False if it demands nothing."""
        if self.send_hostile(name):
            self.close_connection = True
        elif name.isdecimal():
            self.respond({"error": {"message": f"refused with {name}"}}, int(name))
        elif name == "quote":
            self.respond({"error": f"wrong: {self.headers['Authorization'].split()[1]}"}, 403)
        elif name == "hang":
            time.sleep(1.5)
        elif name == "drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(15):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)
        elif name == "close":
            self.close_connection = True
        elif name == "cut":
            self.respond({"choices": []}, length=9000)
        elif name == "moved":
            self.respond(b"", 307, {"Location": "http://127.0.0.1:9/v1/chat/completions"})
        elif name.startswith("later="):
            self.respond({"error": "later"}, 429, {"Retry-After": name[6:].replace("_", " ")})
        elif name == "busy" and attempt == 1:
            self.respond({"error": "slow down"}, 429, {"Retry-After": "0"})
        elif name == "weak" and attempt < 3:
            self.respond({"message": "overloaded"}, 503)
        elif name in RESPONSES:
            self.respond(RESPONSES[name])
        else:
            return False
        return True

    def send_hostile(self, name: str) -> bool:
        """Send what `hostile_replies` has under this name; False if there is nothing."""
        place, _, spelling = name.partition(":")
        if place in PLACES:
            key = self.headers["Authorization"].split()[1]
            self.wfile.write(quoting(place, SPELLINGS[spelling](key)))
            return True
        return reply(name, self.wfile)

    def respond(self, content: Any, status: int = 200, headers: Any = None, length: int = 0) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for header, value in (headers or {}).items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)


def completion(text: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": "length"}]}


RESPONSES: dict[str, Any] = {
    "html": b"<html>a proxy's page</html>",
    "list": [1, 2],
    "empty": {"choices": []},
    "silent": completion(None),
    "blank": completion("  "),
    "odd": {"choices": [{"message": "yes"}]},
    "nonsense": completion("a dog"),
    "both": completion("Yes and no."),
}


def color(url: str) -> str:
    """The strongest channel of an image in a data URL, which must be lossless."""
    kind, _, data = url.partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return COLORS[int(np.asarray(image).mean((0, 1)).argmax())]


def answer(image_color: str, name: str, with_logprobs: bool) -> dict[str, Any]:
    words = ("Yes", " no", "yes") if image_color == name else ("No", " yes", "no")
    tokens = zip((*words, "The"), (0.5, 0.2, 0.1, 0.05), strict=True)
    top = [{"token": token, "logprob": math.log(p)} for token, p in tokens]
    response = completion(f"**{words[0]}**, I think.")
    if with_logprobs:
        response["choices"][0]["logprobs"] = {"content": [{"token": words[0], "top_logprobs": top}]}
    return response


@contextmanager
def serving(**attributes: Any) -> Iterator[FakeChatServer]:
    """A server in a thread, with these attributes."""
    with serving_as(FakeChatServer(**attributes)) as server:
        yield server


@contextmanager
def serving_as(server: ServerT) -> Iterator[ServerT]:
    """This server in a thread."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


def pixels(color: str) -> np.ndarray:
    """A small image of this color."""
    image = np.full((8, 8, 3), PIXELS[color], np.uint8)
    image[0, 0] = 0
    return image


def ask(server: FakeChatServer, *questions: str, color: str = "red", **options: Any) -> list[Answer]:
    """The answers to questions about one image."""
    options = {"url": server.url, "model": "judge-7b", "retries": 2, "timeout_s": 5.0, **options}
    with ServerAnswerer(**options) as answerer:
        [answers] = answerer.answer([(pixels(color), questions)])
    return list(answers)
