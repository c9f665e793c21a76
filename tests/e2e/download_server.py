"""A server of files with the usual failures, and fetching from it."""

from __future__ import annotations

import hashlib
import http.server
import random
import time
from dataclasses import dataclass, field

from sar_eval.stages.fetch import fetch
from sar_eval.tensors.remote_file import RemoteFile

DATA = b"PK\x03\x04" + random.Random(0).randbytes(3_000_000)[4:]
# What a server gives for a name's end; all else gets `Server.body`.
CONTENTS = {
    "config.json": b'{"hidden_size": 8}',
    "preprocessor_config.json": b'{"size": 224}',
    "config.yaml": b"beam_size: 5\n",
    "config_bert.json": b'{"hidden_size": 1024}',
    "configuration.json": b'{"task": "visual-question-answering"}',
    "vocab.txt": b"[PAD]\n[CLS]\nthe\n",
}
LOGIN = b"<!DOCTYPE html><html><head><title>Log in</title></head></html>"
QUESTIONS = RemoteFile("dpg_bench.csv", "https://example.org/dpg_bench.csv", "", "a test")
SHA = hashlib.sha256(DATA).hexdigest()
FILE = RemoteFile("weights.bin", "https://example.org/models/weights.bin", SHA, "a test")
UNKNOWN = RemoteFile("folder/weights.bin", "https://example.org/models/weights.bin", "", "a test")


@dataclass
class Server:
    """The server's behaviour, and the requests it received."""

    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)  # bytes until the connection closes, per request
    status: list[int] = field(default_factory=list)  # error statuses of the first requests
    stall_s: float = 0.0
    body: bytes = DATA
    files: dict[str, bytes] = field(default_factory=dict)  # by the name's end, in place of the body
    headers: dict[str, str] = field(default_factory=dict)
    length: str = ""  # instead of the true Content-Length
    ignores_if_range: bool = False
    always_416: bool = False
    linked_tag: str = ""  # that the hub gives with the way to its store
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0
    address: str = ""


def handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            byte_range = self.headers.get("Range")
            if server.linked_tag and not self.path.startswith("/store/"):
                self.send_response(302)
                self.send_header("X-Linked-Etag", server.linked_tag)
                self.send_header("Location", f"{server.address}/store{self.path}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            server.requests.append((self.path, byte_range))
            if server.status or server.always_416:
                self.send_error(416 if server.always_416 else server.status.pop(0))
                return
            body = (CONTENTS | server.files).get(self.path.rpartition("/")[2], server.body)
            tag = self.headers.get("If-Range")
            same = tag in (None, *server.headers.values()) or server.ignores_if_range
            start = int(byte_range[6:-1]) if byte_range and server.ranges and same else 0
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", server.length or str(len(body) - start))
            self.end_headers()
            time.sleep(server.stall_s)
            stop = start + server.cut_after.pop(0) if server.cut_after else None
            part = body[start:stop]
            server.sent += len(part)
            self.wfile.write(part)

        def log_message(self, *words: object) -> None:
            pass

    return Handler


def fetch_file(**options):
    return fetch((FILE,), pause_s=0, **options)[0]


def fetch_unknown(tmp_path, **options):
    """Fetch the file without a published checksum; returns its path in the cache."""
    path = fetch((UNKNOWN,), pause_s=0, **options)[0]
    assert path == tmp_path / "cache" / "folder" / "weights.bin"
    return path
