"""Requests to a server that speaks OpenAI's HTTP interface: `/models` and `/chat/completions`.

Every way in which a request can fail becomes a `Trouble`. What may pass by itself (no connection, time
out, 408, 425, 429, 5xx) is tried again after a growing wait, or after the server's own `Retry-After`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib import request
from urllib.error import HTTPError, URLError

from sar_eval.types import Json

BACKOFF_S = 0.5  # the first wait; each further one is twice as long
LONGEST_WAIT_S = 60.0  # no wait is longer, whatever the server asks for
LARGEST_REPLY = 8 << 20  # bytes; more than that is no answer to a question
PASSING = (0, 408, 425, 429)  # statuses, beside 5xx, that may be another one next time


class Trouble(Exception):
    """Why a request has no reply.

    Attributes:
        status: of HTTP, 0 if the server gave none.
        wait_s: seconds after which the server wants to be asked again, if it says so.
    """

    def __init__(self, why: str, status: int, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.status, self.wait_s = status, wait_s

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in PASSING or self.status >= 500


class ChatServer:
    """A server's address, and how patiently it is asked. Threads may share it."""

    def __init__(
        self, url: str, *, api_key_env: str = "", timeout_s: float = 60.0, retries: int = 3
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: where `/models` and `/chat/completions` are, usually ending in `/v1`.
            api_key_env: the environment variable with the key, read at each request; "" for no key.
            timeout_s: seconds that a request may take in all.
            retries: further tries of a request that failed in passing.
        """
        self.url, self.timeout_s, self.retries = url.rstrip("/"), timeout_s, retries
        self._key_name = api_key_env
        self._opener = _opener()
        self.gone = threading.Event()  # set when nobody should wait for the server any more

    def models(self) -> list[str]:
        """The names of the models that it serves; one try.

        Raises:
            Trouble: it does not answer so.
        """
        reply = self._once("/models", None)
        rows = reply.get("data") if isinstance(reply, dict) else None
        if not isinstance(rows, list):
            raise Trouble("its list of models is none", 200)
        return [str(row.get("id")) for row in rows if isinstance(row, dict)]

    def complete(self, payload: Json) -> Json:
        """The reply to a chat request.

        Raises:
            Trouble: it has none, after all tries.
        """
        tries = 0
        while True:
            try:
                return self._once("/chat/completions", payload)
            except Trouble as trouble:
                wait_s = BACKOFF_S * 2**tries if trouble.wait_s is None else trouble.wait_s
                if tries >= self.retries or not trouble.passing:
                    raise
                if self.gone.wait(min(wait_s, LONGEST_WAIT_S)):
                    raise
                tries += 1

    def _once(self, path: str, payload: Json) -> Json:
        data = None if payload is None else json.dumps(payload).encode()
        # The scheme was checked when the address was given.
        sent = request.Request(f"{self.url}{path}", data, self._headers())  # noqa: S310
        deadline = time.monotonic() + self.timeout_s
        try:
            with self._opener.open(sent, timeout=self.timeout_s) as response:
                body = self._without_key(_read(response, deadline))
        except HTTPError as error:
            raise self._refused(error) from error
        except (OSError, HTTPException) as error:
            raise Trouble(_no_reply(error, self.timeout_s), 0) from error
        try:
            return json.loads(body)
        except ValueError as error:
            raise Trouble(f"the reply is no JSON: {_clipped(body)}", 200) from error

    def _key(self) -> str:
        return os.environ.get(self._key_name, "") if self._key_name else ""

    def _headers(self) -> dict[str, str]:
        told = {"Content-Type": "application/json", "Accept": "application/json"}
        return told | ({"Authorization": f"Bearer {key}"} if (key := self._key()) else {})

    def _refused(self, error: HTTPError) -> Trouble:
        with error:
            try:
                body = self._without_key(error.read(LARGEST_REPLY))
            except (OSError, HTTPException):
                body = b""  # the status alone tells what happened
            why = f"the server answers {error.code}: {_explained(body) or error.reason}"
            return Trouble(why, error.code, _wait_s(error.headers))

    def _without_key(self, body: bytes) -> bytes:
        """What may be stored of a reply: servers quote the key that they refuse."""
        return body.replace(key.encode(), b"[key]") if (key := self._key()) else body


def _opener() -> request.OpenerDirector:
    """HTTP that follows no redirect: the key is for the server that was named."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _read(response: Any, deadline: float) -> bytes:
    """The body, unless it drips in so slowly that the time runs out."""
    parts: list[bytes] = []
    size = 0
    while part := response.read1(1 << 16):
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline:
            raise TimeoutError
        if size > LARGEST_REPLY:
            raise Trouble(f"the reply is longer than {LARGEST_REPLY >> 20} MiB", 200)
    if response.length:
        raise Trouble(f"the connection broke off, {response.length} bytes before the reply's end", 0)
    return b"".join(parts)


def _no_reply(error: OSError | HTTPException, timeout_s: float) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return f"no reply within {timeout_s:g} s"
    return f"no reply: {type(reason).__name__}: {reason}"


def _explained(body: bytes) -> str:
    """What the server says of its refusal, in one of the shapes in use."""
    try:
        told = json.loads(body)
    except ValueError:
        return _clipped(body)
    for name in ("error", "message", "detail"):
        if isinstance(told, dict) and name in told:
            told = told[name]
    return _clipped(told.encode() if isinstance(told, str) else body)


def _clipped(body: bytes) -> str:
    return " ".join(body[:200].decode(errors="replace").split())


def _wait_s(headers: Message) -> float | None:
    """`Retry-After` in seconds, given as such or as a date."""
    told = headers.get("Retry-After")
    if told is None:
        return None
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
    except ValueError:
        return None
