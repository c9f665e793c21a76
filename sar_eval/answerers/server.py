"""Any vision-language model behind an OpenAI-compatible server (vLLM, SGLang, llama.cpp, a paid one).

The answerer's version has the name `model`, which the server must list, and not the address: a run can be
continued with the same model on another server. Two models served under one name make figures that cannot
be told apart, so serve each under its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sar_eval.answers import Asked, Listed
from sar_eval.clients.endpoint import get_path
from sar_eval.clients.json_client import JsonClient, RequestError
from sar_eval.errors import BadInput
from sar_eval.images.files import encode_png
from sar_eval.networks.chat_server import (
    SERVER_OPTIONS,
    SPEED_OPTIONS,
    ChatServer,
    ServerOptions,
    chat_messages,
    data_url,
    reply_text,
)
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
from sar_eval.types import Answer, Json

VERSION = "1"
LABEL = "answerer 'server'"  # in error messages
TOP_LOGPROBS = 20  # of the first token; most servers return no more
MAX_TOP_LOGPROBS = 20_000  # a longer list would be longer than a response may be


@dataclass(frozen=True, slots=True)
class Options:
    """The request, beside what `ServerOptions` says of the server and the model.

    Attributes:
        prompt: template of the text, with `{question}` in it.
        logprobs: request the first token's probabilities, for the soft score.
        max_tokens: of an answer.
        top_logprobs: how many of the first token's probabilities to request; vLLM gives more than 20 if it
            is started with `vllm serve --max-logprobs NUMBER`.
    """

    prompt: str = DEFAULT_TEMPLATE
    logprobs: bool = True
    max_tokens: int = 16
    top_logprobs: int = TOP_LOGPROBS


class ServerAnswerer:
    """One request for each question, several at once, at temperature 0."""

    speed_options = SPEED_OPTIONS

    def __init__(self, *, device: str = "cpu", **options: Any) -> None:
        """Check the options; nothing is sent yet. `device` is ignored: the server has its own.

        Raises:
            BadInput: an option that is unknown, missing or out of range, or a key that is not set.
        """
        del device
        own = [field.name for field in fields(Options)]
        check_names(options, [*SERVER_OPTIONS, *own], LABEL)
        self.options = _validate(Options(**{name: options[name] for name in own if name in options}))
        where = ServerOptions(**{name: options[name] for name in SERVER_OPTIONS if name in options})
        self._server = ChatServer(where, LABEL)
        self._client = self._server.client
        request_digest = template_digest(_request_words(self.options))
        self.version = f"{VERSION}+{where.model}+{request_digest}+{CHAT_RULE}"
        self._with_logprobs = self.options.logprobs

    def __enter__(self) -> Self:
        """Check that the server responds and lists the model.

        Raises:
            BadInput: it does not; the message has the server's own.
        """
        self._server.__enter__()
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
        pool = ThreadPoolExecutor(self._server.options.concurrency)
        try:
            urls = list(pool.map(png_url, [pixels for pixels, _ in images]))
            futures: list[list[Future[Answer]]] = [
                [pool.submit(self._answer_one, url, question) for question in questions]
                for url, (_, questions) in zip(urls, images, strict=True)
            ]
            for image_futures in futures:
                yield [future.result() for future in image_futures]
        finally:
            pool.shutdown(cancel_futures=True)
        self._server.raise_failure()

    def _answer_one(self, url: str, asked: Asked) -> Answer:
        try:
            response = self._complete(url, asked)
        except RequestError as error:
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
        payload = self._payload(url, asked)
        with_logprobs = payload | {"logprobs": True, "top_logprobs": self.options.top_logprobs}
        if asked.expect:
            return self._server.complete(with_logprobs)
        if not self._with_logprobs:
            return self._server.complete(payload)
        try:
            return self._server.complete(with_logprobs)
        except RequestError as error:
            if error.status not in (400, 422):
                raise
            response = self._server.complete(payload)
            self._with_logprobs = False  # they were the reason
            return response

    def _payload(self, url: str, asked: Asked) -> dict[str, Json]:
        return {
            "messages": chat_messages(url, fill_template(self.options.prompt, asked.text)),
            "temperature": 0,
            # Of listed answers only the first token counts.
            "max_tokens": 1 if asked.expect else self.options.max_tokens,
        }


def png_url(pixels: NDArray[np.uint8]) -> str:
    """An RGB image uint8 `[H, W, 3]` as the data URL of a PNG, at its own size."""
    return data_url(encode_png(pixels), "image/png")


def _request_words(options: Options) -> str:
    """What an answer depends on beside the model; a number of its default is not among them."""
    words = f"{options.prompt}\0{options.max_tokens}"
    return words if options.top_logprobs == TOP_LOGPROBS else f"{words}\0{options.top_logprobs}"


def parse_response(response: Json, client: JsonClient, asked: Asked) -> Answer:
    """The answer in a chat response, or an error with what is wrong with it; without the client's key."""
    if asked.expect:
        return _listed_response(response, client, asked)
    try:
        text = reply_text(response, client)
    except RequestError as error:
        return Answer(error=str(error))
    if len(text) <= MAX_ANSWER:  # a longer one is not read
        text = client.redact(text)
    top_logprobs = get_path(response, "choices", 0, "logprobs", "content", 0, "top_logprobs")
    return chat_answer(text, first_token_soft(top_logprobs))


def _listed_response(response: Json, client: JsonClient, asked: Asked) -> Answer:
    """The text may be anything, or nothing: only the first token's probabilities are needed."""
    text = get_path(response, "choices", 0, "message", "content")
    first = get_path(response, "choices", 0, "logprobs", "content", 0)
    found = first_token_probabilities(get_path(first, "top_logprobs"))
    if not found:
        return Answer(error="the response has no first-token probabilities, which the question needs")
    token = get_path(first, "token")
    likeliest = token if isinstance(token, str) else max(found, key=lambda name: found[name])
    is_short = isinstance(text, str) and len(text) <= MAX_ANSWER
    shown = client.redact(text) if is_short else ""
    return listed_answer(shown, likeliest, asked, listed_masses(found, asked))


def first_token_probabilities(top_logprobs: Json) -> dict[str, float]:
    """Probability by token, with its blanks, of a first token's `top_logprobs`."""
    found: dict[str, float] = {}
    for entry in top_logprobs if isinstance(top_logprobs, list) else ():
        token, logprob = get_path(entry, "token"), get_path(entry, "logprob")
        if isinstance(token, str) and isinstance(logprob, (int, float)) and not math.isnan(logprob):
            found[token] = found.get(token, 0.0) + math.exp(min(logprob, 0.0))
    return found


def listed_masses(found: Mapping[str, float], asked: Asked) -> Listed:
    """Sums over the spellings that are whole tokens among the server's, and how low its last one lies."""
    expect = dict.fromkeys(asked.expect)
    others = [spelling for spelling in dict.fromkeys(asked.against) if spelling not in expect]
    return Listed(
        mass=sum(found.get(spelling, 0.0) for spelling in asked.expect),
        distinct=sum(found.get(spelling, 0.0) for spelling in expect),
        against=sum(found.get(spelling, 0.0) for spelling in others),
        floor=min(found.values()),
        unlisted=sum(spelling not in found for spelling in expect),
    )


def first_token_soft(top_logprobs: Json) -> float | None:
    """p(yes) / (p(yes) + p(no)) over the first token's `top_logprobs`, ignoring case and spaces.

    A word that is not among them counts as 0; None if neither is, or if there are no logprobs.
    """
    mass = {"yes": 0.0, "no": 0.0}
    for entry in top_logprobs if isinstance(top_logprobs, list) else ():
        token, logprob = get_path(entry, "token"), get_path(entry, "logprob")
        word = token.strip().lower() if isinstance(token, str) else ""
        if word in mass and isinstance(logprob, (int, float)):
            mass[word] += math.exp(min(logprob, 0.0))
    return soft_score(mass["yes"], mass["no"])


def _validate(options: Options) -> Options:
    check_template(options.prompt, LABEL)
    if not isinstance(options.logprobs, bool):
        raise BadInput(f"logprobs {options.logprobs!r} of {LABEL}: true or false")
    check_whole_number("max_tokens", options.max_tokens, LABEL, 1, 1_000_000)
    check_whole_number("top_logprobs", options.top_logprobs, LABEL, 1, MAX_TOP_LOGPROBS)
    return options


ANSWERER = ServerAnswerer
