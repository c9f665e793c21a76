"""A small server that speaks OpenAI's HTTP interface, sees the images it is sent, and fails on demand."""

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
from typing import Any

import numpy as np
from PIL import Image

COLORS = ("red", "green", "blue")


class Chat(ThreadingHTTPServer):
    """Answers yes if a question names the image's strongest channel; see `Handler.misbehave`.

    Attributes:
        served: names of the models.
        asked: how often each question came, by its first word.
        sent: the chat requests.
        keys: the `Authorization` headers.
        dies_after: chat requests after which the server closes its door; 0 for never.
        logprobs: whether requests with `logprobs` are taken.
    """

    daemon_threads = True

    def __init__(self, **told: Any) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.served = ["judge-7b"]
        self.asked: Counter[str] = Counter()
        self.sent: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.dies_after, self.logprobs, self.models_status = 0, True, 200
        self.dead, self.lock = False, threading.Lock()
        self.__dict__.update(told)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""

    def die(self) -> None:
        """Answer nobody any more, and soon let nobody in."""
        if not self.dead:
            self.dead = True
            threading.Thread(target=self.close_door, daemon=True).start()

    def close_door(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Chat

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.server.dead:
            self.close_connection = True
            return
        self.server.keys.add(self.headers.get("Authorization"))
        rows = [{"id": name} for name in self.server.served]
        if self.server.models_status != 200:
            error = {"message": f"bad key {self.headers.get('Authorization')}"}
            self.reply({"error": error}, self.server.models_status)
        elif self.path == "/v1/models":
            self.reply({"data": rows})
        else:
            self.reply({"detail": "Not Found"}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        image, question = (part for part in body["messages"][0]["content"])
        name = question["text"].split()[0].strip("?")
        with self.server.lock:
            self.server.sent.append(body)
            self.server.asked[name] += 1
            late = self.server.dies_after and len(self.server.sent) > self.server.dies_after
        if late:
            self.server.die()
            self.close_connection = True
            return
        if body.get("logprobs") and not self.server.logprobs:
            self.reply({"error": {"message": "logprobs are not supported"}}, 400)
        elif not self.misbehave(name, self.server.asked[name]):
            self.reply(answer(color(image["image_url"]["url"]), name, bool(body.get("logprobs"))))

    def misbehave(self, name: str, time_asked: int) -> bool:
        """What a question's first word makes the server do; whether it did anything."""
        if name.isdecimal():
            self.reply({"error": {"message": f"refused with {name}"}}, int(name))
        elif name == "quote":
            self.reply({"error": f"wrong: {self.headers['Authorization'].split()[1]}"}, 403)
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
            self.reply({"choices": []}, length=9000)
        elif name == "moved":
            self.reply(b"", 307, {"Location": "http://127.0.0.1:9/v1/chat/completions"})
        elif name == "busy" and time_asked == 1:
            self.reply({"error": "slow down"}, 429, {"Retry-After": "0"})
        elif name == "weak" and time_asked < 3:
            self.reply({"message": "overloaded"}, 503)
        elif name in REPLIES:
            self.reply(REPLIES[name])
        else:
            return False
        return True

    def reply(self, told: Any, status: int = 200, headers: Any = None, length: int = 0) -> None:
        body = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.send_response(status)
        for header, value in (headers or {}).items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)


def said(text: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": "length"}]}


REPLIES: dict[str, Any] = {
    "html": b"<html>a proxy's page</html>",
    "list": [1, 2],
    "empty": {"choices": []},
    "silent": said(None),
    "blank": said("  "),
    "odd": {"choices": [{"message": "yes"}]},
    "nonsense": said("a dog"),
    "both": said("Yes and no."),
}


def color(url: str) -> str:
    """The strongest channel of an image in a data URL, which must be lossless."""
    kind, _, data = url.partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return COLORS[int(np.asarray(image).mean((0, 1)).argmax())]


def answer(seen: str, name: str, with_logprobs: bool) -> dict[str, Any]:
    words = ("Yes", " no", "yes") if seen == name else ("No", " yes", "no")
    tokens = zip((*words, "The"), (0.5, 0.2, 0.1, 0.05), strict=True)
    top = [{"token": token, "logprob": math.log(p)} for token, p in tokens]
    reply = said(f"**{words[0]}**, I think.")
    if with_logprobs:
        reply["choices"][0]["logprobs"] = {"content": [{"token": words[0], "top_logprobs": top}]}
    return reply


@contextmanager
def serving(**told: Any) -> Iterator[Chat]:
    """A server in a thread of its own."""
    server = Chat(**told)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close_door()
        thread.join()
