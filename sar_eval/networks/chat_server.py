"""One model behind an OpenAI-compatible server (vLLM, SGLang, llama.cpp, a paid one).

It finds out, once for all threads, whether a request failed or the whole server did: pictures that come
after the server stopped are not asked about, and say so.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

from sar_eval.clients.endpoint import check_api_key_env, check_timeout, check_url, get_path, key_hint
from sar_eval.clients.json_client import JsonClient, RequestError
from sar_eval.documents import shorten
from sar_eval.errors import BadInput, Incomplete
from sar_eval.options import check_whole_number
from sar_eval.types import Json

LISTED_MODELS = 10  # in an error message
EXAMPLE = "--judge-option url=http://HOST:PORT/v1"
WHOLE_NUMBERS = {"retries": (0, 100), "concurrency": (1, 1024)}  # with range
# They change where and how fast a request is answered, not the answer.
SPEED_OPTIONS = ("url", "api_key_env", "timeout_s", "retries", "concurrency")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The server and the model.

    Attributes:
        url: base URL of the server, such as http://localhost:8000/v1.
        model: name under which the server lists it.
        api_key_env: the environment variable that holds the key; "" if none is needed. Never the key.
        timeout_s: seconds of one request.
        retries: after a retryable failure.
        concurrency: requests in flight at once.
    """

    url: str = ""
    model: str = ""
    api_key_env: str = ""
    timeout_s: float = 60.0
    retries: int = 3
    concurrency: int = 16

    def check(self, label: str) -> None:
        """Refuse values that cannot work; `label` names who wants them.

        Raises:
            BadInput: an option that is missing or out of range, or a key that is not set.
        """
        check_url(self.url, label, EXAMPLE)
        if not self.model or not isinstance(self.model, str):
            raise BadInput(f"{label} needs the model's name: --judge-option model=NAME")
        check_api_key_env(self.api_key_env, label)
        for name, (least, most) in WHOLE_NUMBERS.items():
            check_whole_number(name, getattr(self, name), label, least, most)
        check_timeout(self.timeout_s, label)


SERVER_OPTIONS = tuple(field.name for field in fields(ServerOptions))


class ChatServer:
    """Requests to one model of one server; threads may share it. A context manager.

    Attributes:
        client: sends the requests.
        failure: why the server cannot answer anything any more, None while it can.
    """

    def __init__(self, options: ServerOptions, label: str) -> None:
        """Nothing is sent yet; `label` names who asks, in messages.

        Raises:
            BadInput: see `ServerOptions.check`.
        """
        options.check(label)
        self.options, self._label = options, label
        self.client = JsonClient(
            options.url,
            api_key_env=options.api_key_env,
            timeout_s=options.timeout_s,
            retries=options.retries,
        )
        self.failure: str | None = None
        self._check_lock = threading.Lock()

    def __enter__(self) -> Self:
        """Check that the server responds and lists the model.

        Raises:
            BadInput: it does not; the message has the server's own.
        """
        if problem := self._check():
            raise BadInput(f"{self._label}: {problem}")
        self.failure = None
        self.client.stop_retrying.clear()
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def complete(self, payload: Mapping[str, Json]) -> Json:
        """The response to a chat request.

        Raises:
            RequestError: it failed for good, or the server failed before.
        """
        if self.failure is not None:
            raise RequestError(f"not asked: {self.failure}", 0)
        try:
            return self.client.post("/chat/completions", {"model": self.options.model, **payload})
        except RequestError as error:
            self._check_after(error)
            raise

    def raise_failure(self) -> None:
        """Tell that the server failed, after what it answered before is stored.

        Raises:
            Incomplete: it stopped responding, or no longer lists the model.
        """
        if self.failure is not None:
            raise Incomplete(
                f"{self._label}: {self.failure}. Answers up to here are stored: fix this and run the same "
                "command again to continue"
            )

    def _check_after(self, error: RequestError) -> None:
        """Find out, once for all threads, whether the server failed or only this request."""
        if not error.retryable and error.status not in (401, 403, 404):
            return
        with self._check_lock:
            if self.failure is None and (problem := self._check()):
                self.failure = problem
                self.client.stop_retrying.set()

    def _check(self) -> str | None:
        """Why the server cannot answer at all, or None if it lists the model."""
        url, model = self.options.url, self.options.model
        try:
            models = self.client.list_models()
        except RequestError as error:
            return _models_error(error, url, self.options.api_key_env)
        if model not in models:
            return f"{url} serves no model {model!r}, but {self._listed(models)}"
        return None

    def _listed(self, models: Sequence[str]) -> str:
        """The first models of the server's list, for a message."""
        more = f" and {len(models) - LISTED_MODELS} more" if len(models) > LISTED_MODELS else ""
        names = [shorten(self.client.excerpt(name)) for name in models[:LISTED_MODELS]]
        return f"{', '.join(names)}{more}" if names else "none"


def data_url(data: bytes, mime: str) -> str:
    """Bytes of an image file as a data URL of this MIME type."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def chat_messages(url: str, text: str, *, system: str = "", text_first: bool = False) -> list[Json]:
    """A system message, if there is one, and a user's turn of an image (as its URL) and a text."""
    parts: list[Json] = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": text},
    ]
    user = {"role": "user", "content": parts[::-1] if text_first else parts}
    return [{"role": "system", "content": system}, user] if system else [user]


def reply_text(response: Json, client: JsonClient) -> str:
    """The text in a chat response, with the client's key in it if the server quotes it.

    Raises:
        RequestError: there is none; says what is there instead, without the key.
    """
    choice = get_path(response, "choices", 0)
    if choice is None:
        raise RequestError(f"the response has no choice: {client.excerpt(str(response))}", 200)
    text = get_path(choice, "message", "content")
    if not isinstance(text, str) or not text.strip():
        reason = get_path(choice, "finish_reason")
        shown = repr(client.excerpt(reason)) if isinstance(reason, str) else None
        raise RequestError(f"the response has no text (finish_reason {shown})", 200)
    return text


def _models_error(error: RequestError, url: str, api_key_env: str) -> str:
    key = key_hint(api_key_env)
    hints = {401: key, 403: key, 404: "is the address right? It usually ends in /v1"}
    hint = f" ({hints[error.status]})" if error.status in hints else ""
    return f"{url}/models: {error}{hint}"
