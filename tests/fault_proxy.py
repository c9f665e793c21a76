"""A proxy in front of a server on loopback that answers chosen requests as a failing network or store."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"


@dataclass
class Fault:
    """What happens to the next requests that match.

    Attributes:
        times: how many requests it meets.
        every: of those that match, it meets each so manieth.
        method: of these requests; "" is any.
        path: regular expression that is searched in their path and query.
        status, code, more: the error that they are answered with, as S3 does. Code "drop" ends the
            connection instead; "silent" never asks for the body of a PUT.
        reaches: whether the store still gets them: then only the answer is lost.
        wait_s: before the answer.
        cut: bytes of the answer's body after which the line is dropped.
        edit: changes the answer's body.
    """

    times: int = 1
    method: str = ""
    path: str = ""
    status: int = 0
    code: str = ""
    more: str = ""
    reaches: bool = False
    wait_s: float = 0.0
    cut: int | None = None
    edit: Callable[[bytes], bytes] | None = None
    every: int = 1
    matched: int = 0

    def meets(self, method: str, path: str) -> bool:
        return self.times > 0 and method.startswith(self.method) and bool(re.search(self.path, path))


@dataclass
class Proxy:
    """A running proxy: put faults into `faults`; `requests` has what came, as "METHOD path".

    `ignored_headers` are not passed on. Writes are passed on one by one: of S3's conditional writes of one
    object one succeeds, which the server behind it does not see to.
    """

    url: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    ignored_headers: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    writing: threading.Lock = field(default_factory=threading.Lock)

    def take(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.requests.append(f"{method} {path}")
            for fault in self.faults:
                if fault.meets(method, path):
                    fault.matched += 1
                    if fault.matched % fault.every == 0:
                        fault.times -= 1
                        return fault
        return None

    def silence(self, method: str, path: str) -> Fault | None:
        silent = any(fault.code == "silent" and fault.meets(method, path) for fault in self.faults)
        return self.take(method, path) if silent else None


@contextmanager
def fault_proxy(host: str, port: int) -> Iterator[Proxy]:
    """A proxy to `host:port`, while the context lasts."""

    class Handler(_Forwarder):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Handler.target, Handler.proxy = (host, port), Proxy(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Handler.proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Forwarder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # an answer in one piece: two would wait for each other's acknowledgement
    target: tuple[str, int]
    proxy: Proxy

    def log_message(self, *args: object) -> None:
        pass

    def handle_expect_100(self) -> bool:
        """Ask for the body, which botocore waits for; a silent store does not."""
        if (fault := self.proxy.silence(self.command, self.path)) is not None:
            time.sleep(fault.wait_s)
            self.close_connection = True
            return False
        asked = super().handle_expect_100()
        self.wfile.flush()
        return asked

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.proxy.take(self.command, self.path) or Fault()
        time.sleep(fault.wait_s)
        if fault.status and not fault.reaches:
            self._refuse(fault)
            return
        if fault.times >= 0 and fault.code == "drop" and not fault.reaches:
            self._drop()
            return
        status, headers, answer = self._forward(body)
        if fault.reaches:
            self._drop() if fault.code == "drop" else self._refuse(fault)
            return
        if fault.edit:
            answer = fault.edit(answer)
        self._answer(status, headers, answer, fault.cut)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - names of http.server

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        with self.proxy.writing if self.command in ("PUT", "POST") else nullcontext():
            return self._passed_on(body)

    def _passed_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(*self.target)
        try:
            ignored = ["expect", *(name.lower() for name in self.proxy.ignored_headers)]
            headers = {name: value for name, value in self.headers.items() if name.lower() not in ignored}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def _refuse(self, fault: Fault) -> None:
        body = ERROR.format(code=fault.code, message="as told", more=fault.more).encode()
        self._answer(fault.status, {"Content-Type": "application/xml"}, body, None)

    def _answer(self, status: int, headers: dict[str, str], body: bytes, cut: int | None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self._drop()

    def _drop(self) -> None:
        """End the connection as a machine does that vanishes."""
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
