"""HTTP with one deadline for the whole exchange: connecting, TLS, sending, headers, body.

A socket's own timeout starts again with every byte, so a server that sends one now and then is never late.
Here every step gets what is left of the time. Looking up the server's name has the limits of the system.
"""

from __future__ import annotations

import io
import socket
import ssl
import time
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any
from urllib import request


def timed_opener() -> request.OpenerDirector:
    """An opener whose `timeout` is for the whole exchange, and which follows no redirect.

    Without redirects a key is sent to no other server than the one named.
    """
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        _Handler(),
        _TlsHandler(context=ssl.create_default_context()),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


class _Reader(io.RawIOBase):
    """The bytes of a socket until the deadline."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        super().__init__()
        self._socket, self._deadline = connected, deadline
        self._bytes = connected.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(_left(self._deadline))
        return self._bytes.readinto(buffer)

    def close(self) -> None:
        self._bytes.close()
        super().close()


class _Readable:
    """What `HTTPResponse` needs of a socket."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket, self._deadline = connected, deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_Reader(self._socket, self._deadline))


class _Connection(HTTPConnection):
    """A connection for one exchange, which begins now."""

    def __init__(self, host: str, port: int | None = None, timeout: float = 60.0, **known: Any) -> None:
        super().__init__(host, port, timeout=timeout, **known)
        self._deadline = time.monotonic() + timeout
        self._create_connection = self._dial  # called by `connect`

    def response_class(self, connected: Any, **known: Any) -> HTTPResponse:  # type: ignore[override]
        return HTTPResponse(_Readable(connected, self._deadline), **known)  # type: ignore[arg-type]

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(_left(self._deadline))
        super().send(data)

    def _dial(self, address: tuple[str, int], *_: Any) -> socket.socket:
        """Connect to the first address of a name that answers; the time is for all of them."""
        failed: OSError = OSError(f"no address of {address[0]}")
        for found in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            host, port = str(found[4][0]), int(found[4][1])
            try:
                return socket.create_connection((host, port), _left(self._deadline))
            except OSError as error:
                failed = error
        raise failed


class _TlsConnection(HTTPSConnection, _Connection):
    """The same with TLS; the handshake has the time that is left after connecting."""


class _Handler(request.HTTPHandler):
    def http_open(self, req: request.Request) -> HTTPResponse:
        return self.do_open(_Connection, req)


class _TlsHandler(request.HTTPSHandler):
    def https_open(self, req: request.Request) -> HTTPResponse:
        return self.do_open(_TlsConnection, req, context=self._context)  # type: ignore[attr-defined]


def _left(deadline: float) -> float:
    """Seconds until the deadline.

    Raises:
        TimeoutError: it has passed.
    """
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return left
