"""Client of a server with OpenAI's HTTP interface: JSON, a list of models, retries.

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
from collections.abc import Callable
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from json import JSONDecodeError
from typing import Any, TypeVar
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit

from sar_eval.clients.pace import Pace
from sar_eval.clients.redact import MAX_SPELLING, redactor
from sar_eval.clients.timed_http import timed_opener
from sar_eval.documents import parse_json
from sar_eval.errors import BadInput
from sar_eval.types import Json

BACKOFF_S = 0.5  # before the first retry; doubled for each further one
MAX_WAIT_S = 60.0  # before a retry, whatever the server asks for
MAX_RESPONSE_BYTES = 8 << 20  # no answer to a question is longer
MAX_MODELS = 10_000  # of a server's list
MAX_SEARCHED = 1 << 18  # characters of a text that is searched for the key
QUOTED = 200  # characters of a response that an error message quotes
RETRYABLE_STATUSES = (0, 408, 425, 429)  # beside 5xx; 0 is no response
# Of OpenAI's errors, those that say that nothing is paid for any more; the first comes with status 429.
NO_CREDIT_CODES = ("insufficient_quota", "billing_hard_limit_reached")

Result = TypeVar("Result")


class RequestError(Exception):
    """A request that failed. The message has no secret in it.

    Attributes:
        status: the HTTP status, 0 if there was no response.
        retry_after_s: seconds from the server's `Retry-After`, None if it sent none.
        code: the server's own word for the error (`error.code` of OpenAI's servers), "" if it has none.
    """

    def __init__(
        self, message: str, status: int, retry_after_s: float | None = None, code: str = ""
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after_s, self.code = status, retry_after_s, code

    @property
    def no_credit(self) -> bool:
        """Whether the server wants to be paid first."""
        return self.status == 402 or self.code in NO_CREDIT_CODES

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return not self.no_credit and (self.status in RETRYABLE_STATUSES or self.status >= 500)


class JsonClient:
    """Sends requests to one server, with a deadline and retries. Threads may share it."""

    def __init__(
        self,
        url: str,
        *,
        api_key_env: str = "",
        timeout_s: float = 60.0,
        retries: int = 3,
        max_bytes: int = MAX_RESPONSE_BYTES,
        pace: Pace | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: base of `/models` and so on, usually ending in `/v1`.
            api_key_env: the environment variable with the key, read at each request; "" for no key.
            timeout_s: seconds of one request, from connecting to the last byte.
            retries: after a retryable failure.
            max_bytes: of a response.
            pace: keeps requests apart, retries included; by default as fast as they come.
        """
        self.url, self.timeout_s, self.retries = url.rstrip("/"), timeout_s, retries
        self._max_bytes, self._pace = max_bytes, pace or Pace()
        self._api_key_env = api_key_env
        self._opener = timed_opener()
        self.stop_retrying = threading.Event()  # ends every wait before a retry

    def list_models(self, path: str = "/models") -> list[str]:
        """Names of the models that the server lists at this path; not retried.

        Raises:
            RequestError: no response, or one that is no list of models.
        """
        response = self.get(path)
        models = response.get("data") if isinstance(response, dict) else None
        if not isinstance(models, list):
            raise RequestError("the response is no list of models", 200)
        names = [model.get("id") for model in models[:MAX_MODELS] if isinstance(model, dict)]
        return [name for name in names if isinstance(name, str)]

    def get(self, path: str) -> Json:
        """The response to a request without a body; not retried.

        Raises:
            RequestError: it failed.
        """
        return self._request(path, None)

    def post(self, path: str, payload: Json) -> Json:
        """The response to a request with this body.

        Raises:
            RequestError: the last one, after all retries, or when the server asks to wait for longer
                than they would.
        """
        return self._retrying(lambda: self._request(path, payload))

    def fetch(self, url: str, max_bytes: int) -> bytes:
        """The file at an address that a response names, perhaps a path at the server.

        The key goes to the server itself alone.

        Raises:
            RequestError: as of `post`; or the address is neither the server's own nor https.
        """
        try:
            url = urljoin(f"{self.url}/", url)
            own, parts = urlsplit(self.url), urlsplit(url)
            is_own = (parts.scheme, parts.netloc) == (own.scheme, own.netloc)
            usable = is_own or (
                parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc
            )
        except ValueError:
            is_own = usable = False
        if not usable:
            raise RequestError(
                f"its address is neither the server's own nor https: {self.excerpt(url)}", 200
            )
        headers = self._headers() if is_own else {}
        asked = request.Request(url, headers=headers | {"Accept": "image/*"})  # noqa: S310
        return self._retrying(lambda: self._exchange(asked, max_bytes))

    def _retrying(self, send: Callable[[], Result]) -> Result:
        attempt = 0
        while True:
            try:
                return send()
            except RequestError as error:
                wait_s = BACKOFF_S * 2**attempt if error.retry_after_s is None else error.retry_after_s
                if not error.retryable or wait_s > (self.retries - attempt) * MAX_WAIT_S:
                    raise
                if error.retry_after_s and error.status == 429:
                    self._pace.pause(min(wait_s, MAX_WAIT_S))
                if attempt >= self.retries or self.stop_retrying.wait(min(wait_s, MAX_WAIT_S)):
                    raise
                attempt += 1

    def redact(self, text: str) -> str:
        """Text of the server without the key, which it may quote: answers and errors are stored."""
        return redactor(self._api_key())(text)

    def excerpt(self, text: str, length: int = QUOTED) -> str:
        """The beginning of the server's text on one line and without the key."""
        line = " ".join(text.split())
        if len(line) > MAX_SEARCHED:  # the end may hold half of the key, which nobody would find
            line = line[: max(0, MAX_SEARCHED - MAX_SPELLING * len(self._api_key()))]
        return self.redact(line)[:length]

    def _request(self, path: str, payload: Json) -> Json:
        data = None if payload is None else json.dumps(payload).encode()
        # The caller checks the scheme of the URL.
        http_request = request.Request(f"{self.url}{path}", data, self._headers())  # noqa: S310
        if self._pace.wait(self.stop_retrying):
            raise RequestError("not asked: another request showed that it is of no use", 0)
        return self._parse(self._exchange(http_request, self._max_bytes))

    def _exchange(self, http_request: request.Request, max_bytes: int) -> bytes:
        """The body of a response."""
        try:
            with self._opener.open(http_request, timeout=self.timeout_s) as response:
                return _read_body(response, max_bytes)
        except HTTPError as error:
            raise self._status_error(error) from None
        except (OSError, HTTPException, ValueError) as error:  # ValueError: an address or header of no use
            raise RequestError(self.excerpt(_connection_message(error, self.timeout_s)), 0) from None

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
                body = _read_body(error, MAX_RESPONSE_BYTES)
            except (OSError, HTTPException, ValueError, RequestError):
                body = b""  # the status is enough
            message, code = _server_message(body)
            said = self.excerpt(message or str(error.reason))
            return RequestError(
                f"the server returned {error.code}: {said}",
                error.code,
                _retry_after_s(error.headers),
                self.excerpt(code),
            )


def _read_body(response: Any, max_bytes: int) -> bytes:
    """The whole body; the connection holds the deadline."""
    chunks: list[bytes] = []
    size = 0
    while chunk := response.read1(1 << 16):
        chunks.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise RequestError(f"the response is longer than {max_bytes >> 20} MiB", 200)
    if response.length:
        raise RequestError(f"the connection broke off, {response.length} bytes before the end", 0)
    return b"".join(chunks)


def _connection_message(error: Exception, timeout_s: float) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return f"no response within {timeout_s:g} s"
    return f"no response: {type(reason).__name__}: {reason}"


def _server_message(body: bytes) -> tuple[str, str]:
    """The server's error message, in any of the usual JSON shapes or as text, and its code ("" if none)."""
    text, code = body.decode(errors="replace"), ""
    try:
        content = parse_json(text, "the response")
    except BadInput:
        return text, code
    for name in ("error", "message", "detail"):
        if isinstance(content, dict) and name in content:
            content = content[name]
            found = content.get("code") if isinstance(content, dict) else None
            code = found if isinstance(found, str) else code
    return (content if isinstance(content, str) else text), code


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
