"""A local server with the endpoints of the hub that a download uses."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """The endpoints of the hub that a download uses.

    `folders` maps repositories to their files at `commit`, where `main` is; `earlier` does so for commits
    that `main` has left behind.
    """

    folders: dict[str, Path]
    commit: str = COMMIT
    earlier: Mapping[str, dict[str, Path]] = MappingProxyType({})
    requests: list[str]

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.requests.append(f"{self.command} {path}")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/([^/]+))?(/tree/[^/]+)?", path):
            self._repository(match[1], match[3] or "main", tree=match[4] is not None)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(match[1], match[2], match[3])
        else:
            self._respond(404, b"{}")

    def _repository(self, name: str, revision: str, *, tree: bool) -> None:
        if name == "org/gated":
            self._respond(403, b'{"error": "gated"}', {"X-Error-Code": "GatedRepo"})
        elif name not in self.folders:
            self._respond(404, b'{"error": "no"}', {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", self.commit, *self.earlier):
            self._respond(404, b'{"error": "no"}', {"X-Error-Code": "RevisionNotFound"})
        else:
            root, commit = self._at(revision)[name], self._commit(revision)
            files = {str(p.relative_to(root)): p for p in root.rglob("*") if p.is_file()}
            entries = [
                {"type": "file", "path": path, "size": p.stat().st_size, "oid": "0"}
                for path, p in files.items()
            ]
            siblings = [{"rfilename": path} for path in files]
            repository = {"id": name, "sha": commit, "siblings": siblings, "private": False, "tags": []}
            self._respond(200, json.dumps(entries if tree else repository).encode())

    def _at(self, revision: str) -> dict[str, Path]:
        return self.earlier.get(revision, self.folders)

    def _commit(self, revision: str) -> str:
        return revision if revision in self.earlier else self.commit

    def _file(self, name: str, revision: str, file: str) -> None:
        path = self._at(revision)[name] / file
        if not path.is_file():
            self._respond(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        data = path.read_bytes()
        etag = hashlib.sha256(data).hexdigest()
        self._respond(
            200,
            data,
            {"ETag": f'"{etag}"', "X-Repo-Commit": self._commit(revision), "X-Linked-Etag": f'"{etag}"'},
        )

    def _respond(self, code: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for key, value in (
            {"Content-Length": str(len(data)), "Content-Type": "application/json"} | (headers or {})
        ).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextlib.contextmanager
def running_hub(folders: dict[str, Path], home: Path) -> Iterator[tuple[type[Hub], dict[str, str]]]:
    """A hub of these repositories, and the environment that points to it and to the cache in `home`."""

    class RunningHub(Hub):
        """With lists of its own."""

    RunningHub.folders, RunningHub.requests = folders, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), RunningHub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "SAR_EVAL_")) and "proxy" not in name.lower()
    }
    address = f"http://127.0.0.1:{server.server_port}"
    yield (
        RunningHub,
        environment | {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"},
    )
    server.shutdown()
    server.server_close()
