"""A fake server with OpenAI's images interface: pictures are functions of prompt and seed.

A prompt with `[WORD]` in it has the fault of that name (see `Handler.fault`), with `[WORD:N]` in its first
N requests alone. Run as a program, it serves until it is killed, and prints its address.
"""

import base64
import hashlib
import io
import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

PATH = "/v1/images/generations"


def picture(prompt: str, seed: object, width: int, height: int) -> np.ndarray:
    """RGB uint8 `[height, width, 3]`: noise of this prompt and seed."""
    digest = hashlib.sha256(f"{prompt}\0{seed}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return generator.integers(0, 256, (height, width, 3), np.uint8)


def encoded(pixels: np.ndarray, image_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


class FakeImagesServer(ThreadingHTTPServer):
    """See the module.

    Attributes:
        models: that `/v1/models` lists; None for a server without a list.
        version: that `/version` says; "" for a server without one.
        key: that requests need; "" for none.
        urls: whether pictures are sent as addresses.
        usage: of each response.
        requests: the bodies of the requests for pictures.
        keys: the `Authorization` headers of these and of fetched files.
        arrivals: when they came, on the monotonic clock.
        most: most requests that were answered at once.
        stops_after: requests after which no request is answered; 0 for never.
        delay_s: of each picture.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, **attributes: Any) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models: list[str] | None = ["painter"]
        self.version, self.key, self.usage = "", "", None
        self.urls = False
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.arrivals: list[float] = []
        self.counts: Counter[str] = Counter()
        self.files: dict[str, bytes] = {}
        self.stops_after, self.delay_s, self.models_status = 0, 0.0, 200
        self.busy, self.most, self.lock = 0, 0, threading.Lock()
        self.__dict__.update(attributes)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing when a client disconnects."""


class Handler(BaseHTTPRequestHandler):
    server: FakeImagesServer

    def log_message(self, *args: Any) -> None:
        pass

    def stopped(self) -> bool:
        self.close_connection = True
        return bool(self.server.stops_after and len(self.server.requests) > self.server.stops_after)

    def do_GET(self) -> None:
        server = self.server
        if self.stopped():
            return
        if self.path.startswith("/files/"):
            server.keys.append(self.headers.get("Authorization"))
            data = server.files.get(self.path.removeprefix("/files/"))
            self.respond(data or {"error": "expired"}, 200 if data else 403)
        elif server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
            self.respond({"error": {"message": f"bad key {self.headers.get('Authorization')}"}}, 401)
        elif self.path == "/v1/models" and server.models_status != 200:
            self.respond({"error": {"message": "not this"}}, server.models_status)
        elif self.path == "/v1/models" and server.models is not None:
            self.respond({"data": [{"id": name, "created": time.time()} for name in server.models]})
        elif self.path == "/version" and server.version:
            self.respond({"version": server.version})
        else:
            self.respond({"detail": "Not Found"}, 404)

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append(body)
            server.keys.append(self.headers.get("Authorization"))
            server.arrivals.append(time.monotonic())
            server.counts[body["prompt"]] += 1
            attempt = server.counts[body["prompt"]]
            server.busy += 1
            server.most = max(server.most, server.busy)
        try:
            if self.stopped():
                return
            time.sleep(server.delay_s)
            self.answer(body, attempt)
        finally:
            with server.lock:
                server.busy -= 1

    def answer(self, body: dict[str, Any], attempt: int) -> None:
        found = re.search(r"\[([\w-]+)(?::(\d+))?\]", body["prompt"])
        if self.path != PATH:
            self.respond({"detail": "Not Found"}, 404)
        elif found and attempt <= int(found[2] or 10**9):
            self.fault(found[1], body)
        else:
            width, height = map(int, body["size"].split("x"))
            self.send_picture(encoded(picture(body["prompt"], body.get("seed"), width, height)))

    def send_picture(self, data: bytes, **more: Any) -> None:
        entry: dict[str, Any] = {"b64_json": base64.b64encode(data).decode()}
        if self.server.urls:
            name = f"{hashlib.sha256(data).hexdigest()[:16]}.png"
            self.server.files[name] = data
            entry = {"url": f"{self.server.url}/files/{name}"}
        usage = {} if self.server.usage is None else {"usage": self.server.usage}
        self.respond({"created": 1, "data": [entry | more], **usage})

    def fault(self, name: str, body: dict[str, Any]) -> None:  # noqa: PLR0912 - a case each
        side = int(body["size"].split("x")[0])
        pixels = picture(body["prompt"], body.get("seed"), side, side)
        png = encoded(pixels)
        if name.isdecimal():
            self.respond({"error": {"message": f"failed with {name}"}}, int(name))
        elif name == "later":
            self.respond({"error": {"message": "too many"}}, 429, {"Retry-After": "0.3"})
        elif name == "much-later":
            self.respond({"error": {"message": "too many"}}, 429, {"Retry-After": "86400"})
        elif name == "broke":
            error = {"message": "you exceeded your quota", "code": "insufficient_quota"}
            self.respond({"error": error}, 429)
        elif name == "refused":
            error = {"message": "your request was rejected", "code": "moderation_blocked"}
            self.respond({"error": error}, 400)
        elif name == "quote":
            self.respond({"error": {"message": f"no: {self.headers.get('Authorization')}"}}, 400)
        elif name == "quote-prompt":
            self.send_picture(png, revised_prompt=f"a dog, {self.headers.get('Authorization')}")
        elif name == "hang":
            time.sleep(3)
        elif name == "close":
            self.close_connection = True
        elif name == "html":
            self.respond(b"<html>a proxy's page</html>")
        elif name == "none":
            self.respond({"data": []})
        elif name == "two":
            one = {"b64_json": base64.b64encode(png).decode()}
            self.respond({"data": [one, one]})
        elif name == "nothing":
            self.respond({"data": [{"b64_json": None, "url": ""}]})
        elif name == "no-base64":
            self.respond({"data": [{"b64_json": "%%%"}]})
        elif name == "no-picture":
            self.send_picture(b"GIF89a" + bytes(50))
        elif name == "cut":
            self.send_picture(png[: len(png) // 2])
        elif name == "small":
            self.send_picture(encoded(pixels[: side // 2]))
        elif name == "huge":
            self.respond({"data": [{"b64_json": "A" * 30_000_000}]})
        elif name == "jpeg":
            self.send_picture(encoded(pixels, "JPEG"))
        elif name == "webp":
            self.send_picture(encoded(pixels, "WEBP", lossless=True))
        elif name == "alpha":
            self.send_picture(encoded(np.dstack([pixels, np.full((side, side), 9, np.uint8)])))
        elif name == "data-url":
            self.respond({"data": [{"url": f"data:image/png;base64,{base64.b64encode(png).decode()}"}]})
        elif name == "relative":
            self.server.files["x.png"] = png
            self.respond({"data": [{"url": "/files/x.png"}]})
        elif name == "elsewhere":
            self.respond({"data": [{"url": "http://localhost:9/x.png"}]})
        elif name == "file-url":
            self.respond({"data": [{"url": "file:///etc/passwd"}]})
        elif name == "expired":
            self.respond({"data": [{"url": f"{self.server.url}/files/gone.png"}]})
        elif name == "big-file":
            self.server.files["big.png"] = bytes(3_000_000)
            self.respond({"data": [{"url": f"{self.server.url}/files/big.png"}]})
        else:
            raise AssertionError(name)

    def respond(self, content: Any, status: int = 200, headers: Any = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for header, value in (headers or {}).items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving_images(**attributes: Any) -> Iterator[FakeImagesServer]:
    """A server in a thread, with these attributes."""
    server = FakeImagesServer(**attributes)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    with serving_images(models=[sys.argv[1]]) as served:
        print(served.url, flush=True)
        threading.Event().wait()
