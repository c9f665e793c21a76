"""The part of Google Cloud Storage's JSON API that stores use, on loopback, as emulators offer it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class _Bucket(BaseHTTPRequestHandler):
    """One bucket; `objects` maps names to bytes and times, `failures` counts answers to uploads to lose."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    objects: dict[str, tuple[bytes, str]]
    failures: list[str]
    lock: threading.Lock

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        boundary = self.headers["Content-Type"].partition("boundary=")[2].strip("\"'").encode()
        _, about, media, _ = body.split(b"--" + boundary)
        name = json.loads(about.partition(b"\n\n")[2].strip() or about.partition(b"\r\n\r\n")[2])["name"]
        data = media.lstrip(b"\r\n").partition(b"\n\n")[2]
        with self.lock:
            if query.get("ifGenerationMatch") == ["0"] and name in self.objects:
                return self._answer(412, {"error": {"code": 412, "message": "conditionNotMet"}})
            self.objects[name] = (
                data.removesuffix(b"\n"),
                datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            )
        if self.failures:
            return self._answer(503, {"error": {"code": 503, "message": self.failures.pop()}})
        return self._answer(200, self._about(name))

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query, (_, _, rest) = parse_qs(url.query), url.path.partition("/o")
        name = unquote(rest.removeprefix("/"))
        if not rest.strip("/"):
            self._answer(200, self._listing(query.get("prefix", [""])[0], query.get("delimiter", [""])[0]))
        elif name not in self.objects:
            self._answer(404, {"error": {"code": 404, "message": "Not Found"}})
        elif query.get("alt") == ["media"]:
            self._media(self.objects[name][0])
        else:
            self._answer(200, self._about(name))

    def do_DELETE(self) -> None:
        found = self.objects.pop(unquote(urlsplit(self.path).path.partition("/o/")[2]), None)
        self._answer(204 if found else 404, {} if found else {"error": {"code": 404, "message": "no"}})

    def _listing(self, prefix: str, delimiter: str) -> dict[str, object]:
        names = sorted(name for name in self.objects if name.startswith(prefix))
        folders = {prefix + n[len(prefix) :].split("/")[0] + "/" for n in names if "/" in n[len(prefix) :]}
        direct = [name for name in names if not delimiter or "/" not in name[len(prefix) :]]
        return {"items": [self._about(n) for n in direct], "prefixes": sorted(folders if delimiter else ())}

    def _about(self, name: str) -> dict[str, object]:
        data, time = self.objects[name]
        return {
            "name": name,
            "bucket": "bucket",
            "size": str(len(data)),
            "updated": time,
            "timeCreated": time,
        }

    def _media(self, data: bytes) -> None:
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        data = data[int(first or 0) : int(last) + 1 if last else None]
        self._send(206 if first else 200, data)

    def _answer(self, status: int, body: dict[str, object]) -> None:
        self._send(status, b"" if status == 204 else json.dumps(body).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def gcs_server() -> Iterator[tuple[str, type[_Bucket]]]:
    """Its URL, for STORAGE_EMULATOR_HOST, and its bucket."""
    bucket = type("Bucket", (_Bucket,), {"objects": {}, "failures": [], "lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), bucket)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bucket
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
