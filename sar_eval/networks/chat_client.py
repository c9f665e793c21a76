"""Client of a server with OpenAI's HTTP interface: `/models` and `/chat/completions`.

Every failure of a request becomes a `RequestError`, whatever the server sends. Transient failures (no
connection, timeout, 408, 425, 429, 5xx) are retried with exponential backoff, or after the server's own
`Retry-After`.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from json import JSONDecodeError
from typing import Any
from urllib import request
from urllib.error import HTTPError, URLError

from sar_eval.documents import parse_json
from sar_eval.errors import BadInput
from sar_eval.networks.redact import MAX_SPELLING, redactor
from sar_eval.networks.timed_http import timed_opener
from sar_eval.types import Json

BACKOFF_S = 0.5  # before the first retry; doubled for each further one
MAX_WAIT_S = 60.0  # before a retry, whatever the server asks for
MAX_RESPONSE_BYTES = 8 << 20  # no answer to a question is longer
MAX_MODELS = 10_000  # of a server's list
MAX_SEARCHED = 1 << 18  # characters of a text that is searched for the key
QUOTED = 200  # characters of a response that an error message quotes
RETRYABLE_STATUSES = (0, 408, 425, 429)  # beside 5xx; 0 is no response


class RequestError(Exception):
    """A request that failed. The message has no secret in it.

    Attributes:
        status: the HTTP status, 0 if there was no response.
        retry_after_s: seconds from the server's `Retry-After`, None if it sent none.
    """

    def __init__(self, message: str, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in RETRYABLE_STATUSES or self.status >= 500


class ChatClient:
    """Sends requests to one server, with a deadline and retries. Threads may share it."""

    def __init__(
        self, url: str, *, api_key_env: str = "", timeout_s: float = 60.0, retries: int = 3
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: base of `/models` and `/chat/completions`, usually ending in `/v1`.
            api_key_env: the environment variable with the key, read at each request; "" for no key.
            timeout_s: seconds of one request, from connecting to the last byte.
            retries: after a retryable failure.
        """
        self.url, self.timeout_s, self.retries = url.rstrip("/"), timeout_s, retries
        self._api_key_env = api_key_env
        self._opener = timed_opener()
        self.stop_retrying = threading.Event()  # ends every wait before a retry

    def list_models(self) -> list[str]:
        """Names of the models that the server lists; not retried.

        Raises:
            RequestError: no response, or one that is no list of models.
        """
        response = self._request("/models", None)
        models = response.get("data") if isinstance(response, dict) else None
        if not isinstance(models, list):
            raise RequestError("the response is no list of models", 200)
        names = [model.get("id") for model in models[:MAX_MODELS] if isinstance(model, dict)]
        return [name for name in names if isinstance(name, str)]

    def complete(self, payload: Json) -> Json:
        """The response to a chat request.

        Raises:
            RequestError: the last one, after all retries, or when the server asks to wait for longer
                than they would.
        """
        attempt = 0
        while True:
            try:
                return self._request("/chat/completions", payload)
            except RequestError as error:
                wait_s = BACKOFF_S * 2**attempt if error.retry_after_s is None else error.retry_after_s
                if not error.retryable or wait_s > (self.retries - attempt) * MAX_WAIT_S:
                    raise
                if attempt >= self.retries or self.stop_retrying.wait(min(wait_s, MAX_WAIT_S)):
                    raise
                attempt += 1

    def redact(self, text: str) -> str:
        """Text of the server without the key, which it may quote: answers and errors are stored."""
        return redactor(self._api_key())(text)

    def excerpt(self, text: str) -> str:
        """The beginning of the server's text on one line and without the key."""
        line = " ".join(text.split())
        if len(line) > MAX_SEARCHED:  # the end may hold half of the key, which nobody would find
            line = line[: max(0, MAX_SEARCHED - MAX_SPELLING * len(self._api_key()))]
        return self.redact(line)[:QUOTED]

    def _request(self, path: str, payload: Json) -> Json:
        data = None if payload is None else json.dumps(payload).encode()
        # The caller checks the scheme of the URL.
        http_request = request.Request(f"{self.url}{path}", data, self._headers())  # noqa: S310
        try:
            with self._opener.open(http_request, timeout=self.timeout_s) as response:
                body = _read_body(response)
        except HTTPError as error:
            raise self._status_error(error) from None
        except (OSError, HTTPException, ValueError) as error:  # ValueError: an address or header of no use
            raise RequestError(self.excerpt(_connection_message(error, self.timeout_s)), 0) from None
        return self._parse(body)

    def _parse(self, body: bytes) -> Json:
        try:
            return parse_json(body, "the response")
        except BadInput as error:
            if isinstance(error.__cause__, JSONDecodeError):
                text = self.excerpt(body.decode(errors="replace"))
                raise RequestError(f"the response is no JSON: {text}", 200) from None
            # What it quotes is cut off already, perhaps within the key.
            raise RequestError(re.sub(r"""(['"]).*\1""", "...", str(error)), 200) from None

    def _api_key(self) -> str:
        return os.environ.get(self._api_key_env, "") if self._api_key_env else ""

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return headers | ({"Authorization": f"Bearer {key}"} if (key := self._api_key()) else {})

    def _status_error(self, error: HTTPError) -> RequestError:
        with error:
            try:
                body = _read_body(error)
            except (OSError, HTTPException, ValueError, RequestError):
                body = b""  # the status is enough
            said = self.excerpt(_server_message(body) or str(error.reason))
            return RequestError(
                f"the server returned {error.code}: {said}", error.code, _retry_after_s(error.headers)
            )


def _read_body(response: Any) -> bytes:
    """The whole body; the connection holds the deadline."""
    chunks: list[bytes] = []
    size = 0
    while chunk := response.read1(1 << 16):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_RESPONSE_BYTES:
            raise RequestError(f"the response is longer than {MAX_RESPONSE_BYTES >> 20} MiB", 200)
    if response.length:
        raise RequestError(f"the connection broke off, {response.length} bytes before the end", 0)
    return b"".join(chunks)


def _connection_message(error: Exception, timeout_s: float) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return f"no response within {timeout_s:g} s"
    return f"no response: {type(reason).__name__}: {reason}"


def _server_message(body: bytes) -> str:
    """The server's error message, in any of the usual JSON shapes or as text."""
    text = body.decode(errors="replace")
    try:
        content = parse_json(text, "the response")
    except BadInput:
        return text
    for name in ("error", "message", "detail"):
        if isinstance(content, dict) and name in content:
            content = content[name]
    return content if isinstance(content, str) else text


def _retry_after_s(headers: Message) -> float | None:
    """`Retry-After` in seconds, from 0 to infinity; the header holds seconds or a date."""
    value = str(headers.get("Retry-After", "")).strip()
    try:
        return max(0.0, float(value))  # NaN becomes 0
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, OSError):  # no date, or one that no clock has
        return None
