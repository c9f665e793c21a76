"""A local server with the endpoints of the hub through which files of a dataset or model are uploaded."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any

import yaml

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


class UploadHub(BaseHTTPRequestHandler):
    """Takes one repository, `org/set`. Parquet, tar and weights go by LFS, others within the commit.

    Attributes:
        kind: of the repository, dataset or model.
        files: of the repository, by path, after the commits so far.
        sent: bytes that were uploaded to LFS, by digest.
        commits: paths of each commit.
        fail_commits: commits after this many are answered with an error of the server.
        login: what a request must authorise itself with.
    """

    kind = "dataset"
    files: dict[str, bytes]
    sent: dict[str, bytes]
    commits: list[list[str]]
    fail_commits: int = 1000
    login = "Bearer hf_of_the_test"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.headers["Authorization"] != self.login:
            self._respond(401, {"error": "who are you?"})
        elif re.fullmatch(rf"{self._api}(/revision/main)?", self.path.partition("?")[0]):
            names = [{"rfilename": name} for name in self.files]
            self._respond(
                200, {"id": "org/set", "sha": COMMIT, "siblings": names, "private": False, "tags": []}
            )
        elif self.path.startswith(f"{self._api}/tree/main"):
            self._respond(200, [_entry(name, data) for name, data in self.files.items()])
        else:
            self._respond(404, {"error": "no"})

    def do_PUT(self) -> None:
        self.sent[self.path.rpartition("/")[2]] = self._body()
        self._respond(200, {})

    def do_POST(self) -> None:
        body, path = self._body(), self.path.partition("?")[0]
        if self.headers["Authorization"] != self.login:
            self._respond(401, {"error": "who are you?"})
        elif path == "/api/validate-yaml":
            self._validate(json.loads(body)["content"])
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == f"{self._api}/preupload/main":
            files = [
                {
                    "path": file["path"],
                    "uploadMode": _mode(file["path"]),
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(body)["files"]
            ]
            self._respond(200, {"files": files})
        elif path == f"{self._place}.git/info/lfs/objects/batch":
            self._respond(200, {"objects": [self._lfs(o) for o in json.loads(body)["objects"]]})
        elif path == f"{self._api}/commit/main":
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._respond(404, {"error": "no"})

    @property
    def _api(self) -> str:
        return f"/api/{self.kind}s/org/set"

    @property
    def _place(self) -> str:
        return "/org/set" if self.kind == "model" else "/datasets/org/set"

    def _create(self, asked: dict[str, Any]) -> None:
        if (asked["name"], asked.get("organization")) != ("set", "org") or asked["type"] != self.kind:
            self._respond(403, {"error": "not yours"})
        else:
            self._respond(200, {"url": f"http://{self.headers['Host']}{self._place}"})

    def _validate(self, card: str) -> None:
        facts = yaml.safe_load(card.split("---\n")[1]) if card.startswith("---\n") else {}
        known = facts.get("license", "mit") in ("mit", "apache-2.0", "cc-by-4.0")
        errors = [] if known else [{"message": '"license" must be one of [...]'}]
        self._respond(200 if known else 400, {"errors": errors, "warnings": []})

    def _lfs(self, wanted: dict[str, Any]) -> dict[str, Any]:
        href = f"http://{self.headers['Host']}/lfs/{wanted['oid']}"
        return {**wanted, "actions": {"upload": {"href": href}}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        if len(self.commits) >= self.fail_commits:
            self._respond(500, {"error": "the hub is down"})
            return
        added = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                added[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                added[value["path"]] = self.sent[value["oid"]]
            elif line["key"] == "deletedFile":
                del self.files[value["path"]]
        self.files |= added
        self.commits.append(list(added))
        address = f"http://{self.headers['Host']}{self._place}/commit/{COMMIT}"
        self._respond(200, {"success": True, "commitOid": COMMIT, "commitUrl": address, "hookOutput": ""})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def _respond(self, code: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _mode(path: str) -> str:
    return "lfs" if path.endswith((".parquet", ".tar", ".safetensors", ".jit")) else "regular"


def _entry(name: str, data: bytes) -> dict[str, Any]:
    """A file as the hub lists it: with git's SHA-1, and of a large one with its SHA-256."""
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
    entry = {"type": "file", "path": name, "size": len(data), "oid": blob}
    if _mode(name) == "regular":
        return entry
    return entry | {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}
