"""A local server with the endpoints of the hub that reading a dataset by `hf://` uses."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "org/pictures"


class DatasetHub(BaseHTTPRequestHandler):
    """One dataset, whose files lie in `folder`; `failures` requests for bytes are answered by 503."""

    folder: Path
    failures: int
    requests: list[str]

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.requests.append(path)
        if match := re.fullmatch(rf"/datasets/{NAME}/resolve/({COMMIT}|main)/(.+)", path):
            self._range(self.folder / match[2])
        elif re.fullmatch(rf"/api/datasets/{NAME}(/revision/(main|{COMMIT}))?", path):
            self._respond(200, {"id": NAME, "sha": COMMIT, "siblings": [], "private": False, "tags": []})
        elif match := re.fullmatch(rf"/api/datasets/{NAME}/tree/{COMMIT}/?(.*)", path):
            folder, whole = self.folder / match[1], "recursive=true" in self.path.lower()
            found = folder.rglob("*") if whole else folder.glob("*")
            self._respond(200, [self._entry(file) for file in sorted(found)])
        else:
            self._respond(404, {"error": "no"}, {"X-Error-Code": "RepoNotFound"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._respond(200, [self._entry(self.folder / name) for name in asked["paths"]])

    def _entry(self, path: Path) -> dict[str, Any]:
        name = str(path.relative_to(self.folder))
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": "0"}
        return {"type": "file", "path": name, "size": path.stat().st_size, "oid": "0"}

    def _range(self, path: Path) -> None:
        if type(self).failures > 0:
            type(self).failures -= 1
            self._respond(503, {"error": "busy"})
            return
        data = path.read_bytes()
        if match := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            data = data[int(match[1]) : int(match[2]) + 1]
        self._send(206, data, {})

    def _respond(self, code: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(code, json.dumps(value).encode(), headers or {})

    def _send(self, code: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for key, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def dataset_hub(folder: Path) -> Iterator[tuple[type[DatasetHub], str]]:
    """The handler with its record of requests, and the server's address."""

    class Own(DatasetHub):
        """With a record of its own."""

    Own.folder, Own.requests, Own.failures = folder, [], 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield Own, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
