"""Any vision-language model behind an OpenAI-compatible server (vLLM, SGLang, llama.cpp, a paid one).

The answerer's version has the name `model`, which the server must list, and not the address: a run can be
continued with the same model on another server. Two models served under one name make figures that cannot
be told apart, so serve each under its own.
"""

from __future__ import annotations

import base64
import math
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from sar_eval.documents import shorten
from sar_eval.errors import BadInput, Incomplete
from sar_eval.images.files import encode_png
from sar_eval.networks.chat_client import ChatClient, RequestError
from sar_eval.options import check_names, check_whole_number
from sar_eval.suites.dpg.yes_no import (
    CHAT_RULE,
    DEFAULT_TEMPLATE,
    MAX_ANSWER,
    chat_answer,
    check_template,
    fill_template,
    listed_answer,
    soft_score,
    template_digest,
)
from sar_eval.types import Answer, Asked, Json, Listed

VERSION = "1"
LABEL = "answerer 'server'"  # in error messages
TOP_LOGPROBS = 20  # of the first token; most servers return no more
LISTED_MODELS = 10  # in an error message
MAX_TIMEOUT_S = 86_400.0
WHOLE_NUMBERS = {  # with range
    "retries": (0, 100),
    "concurrency": (1, 1024),
    "max_tokens": (1, 1_000_000),
    "top_logprobs": (1, 20_000),
}


@dataclass(frozen=True, slots=True)
class Options:
    """The server, the model and the request.

    Attributes:
        url: base URL of the server, such as http://localhost:8000/v1.
        model: name under which the server lists it.
        api_key_env: the environment variable that holds the key; "" if none is needed. Never the key.
        prompt: template of the text, with `{question}` in it.
        timeout_s: seconds of one request.
        retries: after a retryable failure.
        concurrency: requests in flight at once.
        logprobs: request the first token's probabilities, for the soft score.
        max_tokens: of an answer.
        top_logprobs: how many of the first token's probabilities to request; vLLM gives more than 20 if it
            is started with `vllm serve --max-logprobs NUMBER`.
    """

    url: str = ""
    model: str = ""
    api_key_env: str = ""
    prompt: str = DEFAULT_TEMPLATE
    timeout_s: float = 60.0
    retries: int = 3
    concurrency: int = 16
    logprobs: bool = True
    max_tokens: int = 16
    top_logprobs: int = TOP_LOGPROBS


class ServerAnswerer:
    """One request for each question, several at once, at temperature 0."""

    # They change where and how fast questions are answered, not the answers.
    speed_options = ("url", "api_key_env", "timeout_s", "retries", "concurrency")

    def __init__(self, *, device: str = "cpu", **options: Any) -> None:
        """Check the options; nothing is sent yet. `device` is ignored: the server has its own.

        Raises:
            BadInput: an option that is unknown, missing or out of range, or a key that is not set.
        """
        del device
        check_names(options, [field.name for field in fields(Options)], LABEL)
        self.options = _validate(Options(**options))
        request_digest = template_digest(_request_words(self.options))
        self.version = f"{VERSION}+{self.options.model}+{request_digest}+{CHAT_RULE}"
        self._client = ChatClient(
            self.options.url,
            api_key_env=self.options.api_key_env,
            timeout_s=self.options.timeout_s,
            retries=self.options.retries,
        )
        self._with_logprobs = self.options.logprobs
        self._server_error: str | None = None  # set when the server cannot answer anything any more
        self._check_lock = threading.Lock()

    def __enter__(self) -> Self:
        """Check that the server responds and lists the model.

        Raises:
            BadInput: it does not; the message has the server's own.
        """
        if problem := self._check_server():
            raise BadInput(f"{LABEL}: {problem}")
        self._server_error = None
        self._client.stop_retrying.clear()
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def answer(
        self, images: Sequence[tuple[NDArray[np.uint8], Sequence[str]]]
    ) -> Iterator[Sequence[Answer]]:
        """Answers in the order of the images; a request that failed for good is an answer with an error.

        Raises:
            Incomplete: after the last image, if the server stopped responding or no longer lists the
                model. Answers from before are yielded first.
        """
        yield from self.ask([(pixels, [Asked(text) for text in texts]) for pixels, texts in images])

    def ask(
        self, images: Sequence[tuple[NDArray[np.uint8], Sequence[Asked]]]
    ) -> Iterator[Sequence[Answer]]:
        """The same for questions that may list their answers, which are looked up among the top tokens.

        A spelling counts if it is a whole token: what others begin with is known to the server alone.
        """
        pool = ThreadPoolExecutor(self.options.concurrency)
        try:
            urls = list(pool.map(data_url, [pixels for pixels, _ in images]))
            futures: list[list[Future[Answer]]] = [
                [pool.submit(self._answer_one, url, question) for question in questions]
                for url, (_, questions) in zip(urls, images, strict=True)
            ]
            for image_futures in futures:
                yield [future.result() for future in image_futures]
        finally:
            pool.shutdown(cancel_futures=True)
        if self._server_error is not None:
            raise Incomplete(
                f"{LABEL}: {self._server_error}. Answers up to here are stored: fix this and run the same "
                "command again to continue"
            )

    def _answer_one(self, url: str, asked: Asked) -> Answer:
        if self._server_error is not None:
            return Answer(error=f"not asked: {self._server_error}")
        try:
            response = self._complete(url, asked)
        except RequestError as error:
            self._check_server_after(error)
            return Answer(error=f"{error}{self._logprobs_hint(error) if asked.expect else ''}")
        return parse_response(response, self._client, asked)

    def _logprobs_hint(self, error: RequestError) -> str:
        if error.status not in (400, 422):
            return ""
        return (
            f" (the question needs first-token probabilities, of which {self.options.top_logprobs} were "
            "requested: start vLLM with --max-logprobs, or give a smaller top_logprobs)"
        )

    def _complete(self, url: str, asked: Asked) -> Json:
        """The server's response; again without logprobs if it refuses them and none are needed."""
        payload = self._payload(url, asked.text)
        with_logprobs = payload | {"logprobs": True, "top_logprobs": self.options.top_logprobs}
        if asked.expect:
            return self._client.complete(with_logprobs)
        if not self._with_logprobs:
            return self._client.complete(payload)
        try:
            return self._client.complete(with_logprobs)
        except RequestError as error:
            if error.status not in (400, 422):
                raise
            response = self._client.complete(payload)
            self._with_logprobs = False  # they were the reason
            return response

    def _payload(self, url: str, question: str) -> dict[str, Json]:
        image = {"type": "image_url", "image_url": {"url": url}}
        text = {"type": "text", "text": fill_template(self.options.prompt, question)}
        return {
            "model": self.options.model,
            "messages": [{"role": "user", "content": [image, text]}],
            "temperature": 0,
            "max_tokens": self.options.max_tokens,
        }

    def _check_server_after(self, error: RequestError) -> None:
        """Find out, once for all threads, whether the server failed or only this request."""
        if not error.retryable and error.status not in (401, 403, 404):
            return
        with self._check_lock:
            if self._server_error is None and (problem := self._check_server()):
                self._server_error = problem
                self._client.stop_retrying.set()

    def _check_server(self) -> str | None:
        """Why the server cannot answer at all, or None if it lists the model."""
        url, model = self.options.url, self.options.model
        try:
            models = self._client.list_models()
        except RequestError as error:
            return _models_error(error, url, self.options.api_key_env)
        if model not in models:
            return f"{url} serves no model {model!r}, but {self._listed(models)}"
        return None

    def _listed(self, models: Sequence[str]) -> str:
        """The first models of the server's list, for a message."""
        more = f" and {len(models) - LISTED_MODELS} more" if len(models) > LISTED_MODELS else ""
        names = [shorten(self._client.excerpt(name)) for name in models[:LISTED_MODELS]]
        return f"{', '.join(names)}{more}" if names else "none"


def _models_error(error: RequestError, url: str, api_key_env: str) -> str:
    key_hint = f"is the key in {api_key_env} right?" if api_key_env else "set api_key_env to its variable"
    hints = {401: key_hint, 403: key_hint, 404: "is the address right? It usually ends in /v1"}
    hint = f" ({hints[error.status]})" if error.status in hints else ""
    return f"{url}/models: {error}{hint}"


def data_url(pixels: NDArray[np.uint8]) -> str:
    """An RGB image uint8 `[H, W, 3]` as the data URL of a PNG, at its own size."""
    return f"data:image/png;base64,{base64.b64encode(encode_png(pixels)).decode()}"


def _request_words(options: Options) -> str:
    """What an answer depends on beside the model; a number of its default is not among them."""
    words = f"{options.prompt}\0{options.max_tokens}"
    return words if options.top_logprobs == TOP_LOGPROBS else f"{words}\0{options.top_logprobs}"


def parse_response(response: Json, client: ChatClient, asked: Asked) -> Answer:
    """The answer in a chat response, or an error with what is wrong with it; without the client's key."""
    choice = _get_path(response, "choices", 0)
    if choice is None:
        return Answer(error=f"the response has no choice: {client.excerpt(str(response))}")
    text = _get_path(choice, "message", "content")
    if asked.expect:
        is_short = isinstance(text, str) and len(text) <= MAX_ANSWER
        return _listed_response(client.redact(text) if is_short else "", choice, asked)
    if not isinstance(text, str) or not text.strip():
        reason = _get_path(choice, "finish_reason")
        shown = repr(client.excerpt(reason)) if isinstance(reason, str) else None
        return Answer(error=f"the response has no text (finish_reason {shown})")
    if len(text) <= MAX_ANSWER:  # a longer one is not read
        text = client.redact(text)
    return chat_answer(text, first_token_soft(_get_path(choice, "logprobs", "content", 0, "top_logprobs")))


def _listed_response(text: str, choice: Json, asked: Asked) -> Answer:
    first = _get_path(choice, "logprobs", "content", 0)
    found = first_token_probabilities(_get_path(first, "top_logprobs"))
    if not found:
        return Answer(error="the response has no first-token probabilities, which the question needs")
    token = _get_path(first, "token")
    likeliest = token if isinstance(token, str) else max(found, key=lambda name: found[name])
    return listed_answer(text, likeliest, asked, listed_masses(found, asked))


def first_token_probabilities(top_logprobs: Json) -> dict[str, float]:
    """Probability by token, with its blanks, of a first token's `top_logprobs`."""
    found: dict[str, float] = {}
    for entry in top_logprobs if isinstance(top_logprobs, list) else ():
        token, logprob = _get_path(entry, "token"), _get_path(entry, "logprob")
        if isinstance(token, str) and isinstance(logprob, (int, float)) and not math.isnan(logprob):
            found[token] = found.get(token, 0.0) + math.exp(min(logprob, 0.0))
    return found


def listed_masses(found: Mapping[str, float], asked: Asked) -> Listed:
    """Sums over the spellings that are whole tokens among the server's, and how low its last one lies."""
    expect = dict.fromkeys(asked.expect)
    return Listed(
        mass=sum(found.get(spelling, 0.0) for spelling in asked.expect),
        distinct=sum(found.get(spelling, 0.0) for spelling in expect),
        against=sum(
            found.get(spelling, 0.0) for spelling in dict.fromkeys(asked.against) if spelling not in expect
        ),
        floor=min(found.values()),
        unlisted=sum(spelling not in found for spelling in expect),
    )


def first_token_soft(top_logprobs: Json) -> float | None:
    """p(yes) / (p(yes) + p(no)) over the first token's `top_logprobs`, ignoring case and spaces.

    A word that is not among them counts as 0; None if neither is, or if there are no logprobs.
    """
    mass = {"yes": 0.0, "no": 0.0}
    for entry in top_logprobs if isinstance(top_logprobs, list) else ():
        token, logprob = _get_path(entry, "token"), _get_path(entry, "logprob")
        word = token.strip().lower() if isinstance(token, str) else ""
        if word in mass and isinstance(logprob, (int, float)):
            mass[word] += math.exp(min(logprob, 0.0))
    return soft_score(mass["yes"], mass["no"])


def _get_path(data: Json, *path: str | int) -> Json:
    """The value at a path of keys and indices; None if a step is missing or of another type."""
    for step in path:
        if isinstance(step, int):
            data = data[step] if isinstance(data, list) and len(data) > step else None
        else:
            data = data.get(step) if isinstance(data, Mapping) else None
    return data


def _validate(options: Options) -> Options:
    _check_url(options.url)
    if not options.model or not isinstance(options.model, str):
        raise BadInput(f"{LABEL} needs the model's name: --judge-option model=NAME")
    check_template(options.prompt, LABEL)
    _check_api_key_env(options.api_key_env)
    if not isinstance(options.logprobs, bool):
        raise BadInput(f"logprobs {options.logprobs!r} of {LABEL}: true or false")
    for name, (least, most) in WHOLE_NUMBERS.items():
        check_whole_number(name, getattr(options, name), LABEL, least, most)
    seconds = options.timeout_s
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, (int, float))
        or not 0 < seconds <= MAX_TIMEOUT_S
    ):
        raise BadInput(
            f"timeout_s {shorten(seconds)} of {LABEL}: seconds above 0 and at most {MAX_TIMEOUT_S:,.0f}"
        )
    return options


def _check_url(url: object) -> None:
    """Raise BadInput unless it is an HTTP address with nothing secret in it; no message shows it."""
    try:
        parts = urlsplit(url) if isinstance(url, str) and re.fullmatch("[!-~]+", url) else None
        port = parts.port if parts else None  # ValueError: none of 0 to 65535
    except ValueError:
        parts = port = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise BadInput(f"{LABEL} needs the server's address: --judge-option url=http://HOST:PORT/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise BadInput(
            f"{LABEL}: nothing secret in the address, which is stored (no user, no ?query, no #fragment); "
            "use api_key_env"
        )


def _check_api_key_env(name: object) -> None:
    # The value may be the key itself, by mistake, so no message shows it.
    if not isinstance(name, str) or not re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)?", name):
        raise BadInput(f"api_key_env of {LABEL} is the name of an environment variable, never the key")
    if name and not re.fullmatch(r"[!-~]+", os.environ.get(name, "")):
        raise BadInput(
            f"{LABEL}: the environment variable that api_key_env names is not set or holds no key "
            "(printable characters without spaces). api_key_env takes the variable's name, never the key"
        )


ANSWERER = ServerAnswerer
