"""Client of a server with OpenAI's HTTP interface: `/models` and `/chat/completions`.

Every failure of a request becomes a `RequestError`. Transient failures (no connection, timeout, 408, 425,
429, 5xx) are retried with exponential backoff, or after the server's own `Retry-After`.
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

BACKOFF_S = 0.5  # before the first retry; doubled for each further one
MAX_WAIT_S = 60.0  # before a retry, whatever the server asks for
MAX_RESPONSE_BYTES = 8 << 20  # no answer to a question is longer
RETRYABLE_STATUSES = (0, 408, 425, 429)  # beside 5xx; 0 is no response


class RequestError(Exception):
    """A request that failed.

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
    """Sends requests to one server, with timeout and retries. Threads may share it."""

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
        self._opener = _opener()
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
        return [str(model.get("id")) for model in models if isinstance(model, dict)]

    def complete(self, payload: Json) -> Json:
        """The response to a chat request.

        Raises:
            RequestError: the last one, after all retries.
        """
        attempt = 0
        while True:
            try:
                return self._request("/chat/completions", payload)
            except RequestError as error:
                wait_s = BACKOFF_S * 2**attempt if error.retry_after_s is None else error.retry_after_s
                if attempt >= self.retries or not error.retryable:
                    raise
                if self.stop_retrying.wait(min(wait_s, MAX_WAIT_S)):
                    raise
                attempt += 1

    def _request(self, path: str, payload: Json) -> Json:
        data = None if payload is None else json.dumps(payload).encode()
        # The caller checks the scheme of the URL.
        http_request = request.Request(f"{self.url}{path}", data, self._headers())  # noqa: S310
        deadline = time.monotonic() + self.timeout_s
        try:
            with self._opener.open(http_request, timeout=self.timeout_s) as response:
                body = self._redact_key(_read_body(response, deadline))
        except HTTPError as error:
            raise self._status_error(error) from error
        except (OSError, HTTPException) as error:
            raise RequestError(_connection_message(error, self.timeout_s), 0) from error
        try:
            return json.loads(body)
        except ValueError as error:
            raise RequestError(f"the response is no JSON: {_excerpt(body)}", 200) from error

    def _api_key(self) -> str:
        return os.environ.get(self._api_key_env, "") if self._api_key_env else ""

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return headers | ({"Authorization": f"Bearer {key}"} if (key := self._api_key()) else {})

    def _status_error(self, error: HTTPError) -> RequestError:
        with error:
            try:
                body = self._redact_key(error.read(MAX_RESPONSE_BYTES))
            except (OSError, HTTPException):
                body = b""  # the status is enough
            message = f"the server returned {error.code}: {_server_message(body) or error.reason}"
            return RequestError(message, error.code, _retry_after_s(error.headers))

    def _redact_key(self, body: bytes) -> bytes:
        """The body without the key, which servers quote when they refuse it: errors are stored."""
        return body.replace(key.encode(), b"[key]") if (key := self._api_key()) else body


def _opener() -> request.OpenerDirector:
    """HTTP without redirects: the key is sent to no other server than the one named."""
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


def _read_body(response: Any, deadline: float) -> bytes:
    """The whole body; the deadline also holds for a server that sends it byte by byte."""
    chunks: list[bytes] = []
    size = 0
    while chunk := response.read1(1 << 16):
        chunks.append(chunk)
        size += len(chunk)
        if time.monotonic() > deadline:
            raise TimeoutError
        if size > MAX_RESPONSE_BYTES:
            raise RequestError(f"the response is longer than {MAX_RESPONSE_BYTES >> 20} MiB", 200)
    if response.length:
        raise RequestError(f"the connection broke off, {response.length} bytes before the end", 0)
    return b"".join(chunks)


def _connection_message(error: OSError | HTTPException, timeout_s: float) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return f"no response within {timeout_s:g} s"
    return f"no response: {type(reason).__name__}: {reason}"


def _server_message(body: bytes) -> str:
    """The server's error message, in any of the usual JSON shapes or as text."""
    try:
        content = json.loads(body)
    except ValueError:
        return _excerpt(body)
    for name in ("error", "message", "detail"):
        if isinstance(content, dict) and name in content:
            content = content[name]
    return _excerpt(content.encode() if isinstance(content, str) else body)


def _excerpt(body: bytes) -> str:
    return " ".join(body[:200].decode(errors="replace").split())


def _retry_after_s(headers: Message) -> float | None:
    """`Retry-After` in seconds; the header holds seconds or a date."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
