"""Any vision-language model behind an OpenAI-compatible server (vLLM, SGLang, llama.cpp, a paid one).

Who answers is named by `model`, which the server must list; where the server is says nothing of it, so a
run goes on when the same model is served elsewhere. Whoever serves a model under a name that is not its
own makes figures that cannot be told apart: name it truthfully.
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
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from sar_eval.errors import BadInput, Incomplete
from sar_eval.images.files import encode_png
from sar_eval.networks.chat_server import ChatServer, Trouble
from sar_eval.suites.dpg.yes_no import (
    CHAT_RULE,
    DEFAULT_TEMPLATE,
    chat_answer,
    check_template,
    fill_template,
    soft_score,
    template_digest,
)
from sar_eval.types import Answer, Json

VERSION = "1"
WHO = "answerer 'server'"
TOP = 20  # likeliest first tokens that are asked for; servers give no more


@dataclass(frozen=True, slots=True)
class Options:
    """Whom to ask, and how.

    Attributes:
        url: of the server's interface, such as http://localhost:8000/v1.
        model: its name there.
        api_key_env: the environment variable that holds the key; "" if none is needed. Never the key.
        prompt: how a question is put, with `{question}` in it.
        timeout_s: seconds that one request may take.
        retries: further tries of a request that failed in passing.
        concurrency: requests under way at once.
        logprobs: ask for the first token's probabilities, for the soft score.
        max_tokens: longest answer.
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


class ServerAnswerer:
    """Asks one question a request, several requests at once, at temperature 0."""

    # Where and how fast questions are answered, not what is answered.
    speed_options = ("url", "api_key_env", "timeout_s", "retries", "concurrency")

    def __init__(self, *, device: str = "cpu", **options: Any) -> None:
        """Check the options; the server is not asked yet. `device` is the server's own affair.

        Raises:
            BadInput: an option that is unknown, missing or out of range, or a key that is not set.
        """
        del device
        if unknown := sorted(options.keys() - {field.name for field in fields(Options)}):
            known = ", ".join(field.name for field in fields(Options))
            raise BadInput(f"{WHO} has no option {unknown[0]!r}; known are {known}")
        self.options = _checked(Options(**options))
        how = template_digest(f"{self.options.prompt}\0{self.options.max_tokens}")
        self.version = f"{VERSION}+{self.options.model}+{how}+{CHAT_RULE}"
        self._server = ChatServer(
            self.options.url,
            api_key_env=self.options.api_key_env,
            timeout_s=self.options.timeout_s,
            retries=self.options.retries,
        )
        self._with_logprobs = self.options.logprobs
        self._dead: str | None = None
        self._checking = threading.Lock()

    def __enter__(self) -> Self:
        """See that the server answers and serves the model.

        Raises:
            BadInput: it does not; the message says what it says.
        """
        if fault := self._fault():
            raise BadInput(f"{WHO}: {fault}")
        self._dead = None
        self._server.gone.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def answer(
        self, images: Sequence[tuple[NDArray[np.uint8], Sequence[str]]]
    ) -> Iterator[Sequence[Answer]]:
        """Answers in the order given; a request that failed for good is an answer with an error.

        Raises:
            Incomplete: after the last image, if the server is gone: it neither answered nor lists the
                model any more. What it answered before is given.
        """
        pool = ThreadPoolExecutor(self.options.concurrency)
        try:
            urls = list(pool.map(data_url, [pixels for pixels, _ in images]))
            asked: list[list[Future[Answer]]] = [
                [pool.submit(self._ask, url, question) for question in questions]
                for url, (_, questions) in zip(urls, images, strict=True)
            ]
            for answers in asked:
                yield [answer.result() for answer in answers]
        finally:
            pool.shutdown(cancel_futures=True)
        if self._dead is not None:
            raise Incomplete(
                f"{WHO}: {self._dead}. Answers up to here are stored: mend this and run the same command "
                "again to go on"
            )

    def _ask(self, url: str, question: str) -> Answer:
        if self._dead is not None:
            return Answer(error=f"not asked: {self._dead}")
        try:
            reply = self._complete(url, question)
        except Trouble as trouble:
            self._look_after(trouble)
            return Answer(error=str(trouble))
        return read_reply(reply)

    def _complete(self, url: str, question: str) -> Json:
        """The server's reply; asked again without probabilities where it refuses a request with them."""
        payload = self._payload(url, question)
        if not self._with_logprobs:
            return self._server.complete(payload)
        try:
            return self._server.complete(payload | {"logprobs": True, "top_logprobs": TOP})
        except Trouble as trouble:
            if trouble.status not in (400, 422):
                raise
            reply = self._server.complete(payload)
            self._with_logprobs = False  # they were the reason
            return reply

    def _payload(self, url: str, question: str) -> dict[str, Json]:
        image = {"type": "image_url", "image_url": {"url": url}}
        text = {"type": "text", "text": fill_template(self.options.prompt, question)}
        return {
            "model": self.options.model,
            "messages": [{"role": "user", "content": [image, text]}],
            "temperature": 0,
            "max_tokens": self.options.max_tokens,
        }

    def _look_after(self, trouble: Trouble) -> None:
        """Find out, once for all threads, whether it was this request or the server."""
        if not trouble.passing and trouble.status not in (401, 403, 404):
            return
        with self._checking:
            if self._dead is None and (fault := self._fault()):
                self._dead = fault
                self._server.gone.set()

    def _fault(self) -> str | None:
        """Why the server cannot answer at all, or None if it serves the model."""
        url, model = self.options.url, self.options.model
        try:
            served = self._server.models()
        except Trouble as trouble:
            return _told(trouble, url, self.options.api_key_env)
        if model not in served:
            return f"{url} serves no model {model!r}, but {', '.join(map(repr, served)) or 'none'}"
        return None


def _told(trouble: Trouble, url: str, key: str) -> str:
    hints = {401: f"is the key in {key} right?" if key else "name the variable with the key: api_key_env"}
    hints |= {403: hints[401], 404: "is the address right? It usually ends in /v1"}
    hint = f" ({hints[trouble.status]})" if trouble.status in hints else ""
    return f"{url}/models: {trouble}{hint}"


def data_url(pixels: NDArray[np.uint8]) -> str:
    """An RGB image [H, W, 3] as a PNG in a URL: lossless, at its own size."""
    return f"data:image/png;base64,{base64.b64encode(encode_png(pixels)).decode()}"


def read_reply(reply: Json) -> Answer:
    """The answer in a chat reply, or an error that says what is wrong with it."""
    choice = _dig(reply, "choices", 0)
    if choice is None:
        return Answer(error=f"the reply has no choice: {str(reply)[:200]}")
    text = _dig(choice, "message", "content")
    if not isinstance(text, str) or not text.strip():
        return Answer(error=f"the reply has no text (finish_reason {_dig(choice, 'finish_reason')!r})")
    return chat_answer(text, first_token_soft(_dig(choice, "logprobs", "content", 0, "top_logprobs")))


def first_token_soft(likeliest: Json) -> float | None:
    """p(yes) / (p(yes) + p(no)) over the likeliest first tokens, whatever their case and spaces.

    A word that is not among them counts as 0; None if neither is, or none were told.
    """
    mass = {"yes": 0.0, "no": 0.0}
    for row in likeliest if isinstance(likeliest, list) else ():
        word, logprob = _dig(row, "token"), _dig(row, "logprob")
        name = word.strip().lower() if isinstance(word, str) else ""
        if name in mass and isinstance(logprob, (int, float)):
            mass[name] += math.exp(min(logprob, 0.0))
    return soft_score(mass["yes"], mass["no"])


def _dig(data: Json, *path: str | int) -> Json:
    """What lies at the end of the path; None if anything on the way is missing or of another kind."""
    for step in path:
        if isinstance(step, int):
            data = data[step] if isinstance(data, list) and len(data) > step else None
        else:
            data = data.get(step) if isinstance(data, Mapping) else None
    return data


def _checked(options: Options) -> Options:
    _check_address(options.url)
    if not options.model or not isinstance(options.model, str):
        raise BadInput(f"{WHO} needs the model's name: --judge-option model=NAME")
    check_template(options.prompt, WHO)
    _check_key(options.api_key_env)
    if not isinstance(options.logprobs, bool):
        raise BadInput(f"logprobs {options.logprobs!r} of {WHO}: true or false")
    for name, least in {"retries": 0, "concurrency": 1, "max_tokens": 1}.items():
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise BadInput(f"{name} {value!r} of {WHO}: a whole number >= {least}")
    seconds = options.timeout_s
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise BadInput(f"timeout_s {seconds!r} of {WHO}: seconds above 0")
    return options


def _check_address(url: object) -> None:
    try:
        place = urlsplit(url) if isinstance(url, str) and url.isascii() else None
    except ValueError:
        place = None
    if place is None or place.scheme not in ("http", "https") or not place.netloc:
        raise BadInput(f"{WHO} needs the server's address: --judge-option url=http://HOST:PORT/v1")
    if "@" in place.netloc or place.query:
        raise BadInput(f"{WHO}: nothing secret in the address, it would be stored; use api_key_env")


def _check_key(name: object) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)?", name):
        # It may be the key itself, so it is not shown.
        raise BadInput(f"api_key_env of {WHO} is the name of an environment variable, never the key")
    if name and not re.fullmatch(r"[!-~]+", os.environ.get(name, "")):
        raise BadInput(
            f"{WHO}: the environment variable {name}, which api_key_env names, holds no key "
            "(printable characters without spaces)"
        )


ANSWERER = ServerAnswerer
