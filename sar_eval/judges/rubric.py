"""Scores images by what a chat model replies to a rubric: any text that asks for scores, read by rules.

The recipe holds texts, picture encoding, sampling and regular expressions; docs/rubric.md describes all
options. Every reply is kept as evidence. A reply that cannot be read is asked for again, `tries` times in
all, and is then an error of its image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.images.files import DECODING_THREADS
from sar_eval.images.request_pictures import OPTIONS as PICTURE_OPTIONS
from sar_eval.images.request_pictures import encode_picture, make_form
from sar_eval.networks.chat_backends import ChatRequest, Reply, Sampling, make_backend
from sar_eval.options import check_whole_number
from sar_eval.suites.rubric.readers import RULES, UnreadReply
from sar_eval.suites.rubric.rules import OPTIONS as RULE_OPTIONS
from sar_eval.suites.rubric.rules import Values, make_rule
from sar_eval.suites.rubric.template import fill
from sar_eval.suites.rubric.texts import find_text, text_options
from sar_eval.suites.rubric.time_limit import time_limit
from sar_eval.types import Generation, Json, Prompt, Verdict

VERSION = "1"
LABEL = "judge 'rubric'"  # in error messages
ORDERS = {"image-text": False, "text-image": True}  # to whether the text comes first
TEXT_OPTIONS = (*text_options("template"), *text_options("system"))
SAMPLING_OPTIONS = ("order", "temperature", "max_tokens", "extra_body")


@dataclass(slots=True)
class _Sample:
    """An image, its request or an error, and what was replied so far."""

    prompt: Prompt
    key: str
    request: ChatRequest | None = None
    error: str | None = None
    replies: list[str | None] = field(default_factory=list)
    truncated: bool = False


class RubricJudge:
    """Scores by a chat model's replies."""

    def __init__(
        self, *, device: str = "cpu", backend: str = "server", tries: int = 3, **options: Any
    ) -> None:
        """Check all options and read the texts; nothing is sent or loaded yet.

        Args:
            device: torch device of the backend `transformers`.
            backend: `server` (OpenAI-compatible) or `transformers`.
            tries: requests for an image until a reply can be read.
            options: of texts, picture, sampling and reader, and of the backend; see docs/rubric.md.

        Raises:
            BadInput: an option that is unknown, missing or out of range; a text that is not there.
            UnknownName: the model is neither a folder nor a hub name.
        """
        check_whole_number("tries", tries, LABEL, 1, 100)
        self._template = _check_template(find_text("template", options, LABEL))
        self._sampling = _make_sampling(options)
        self._form = make_form(options, LABEL)
        self._rule = make_rule({k: v for k, v in options.items() if k in RULE_OPTIONS}, LABEL)
        own = {*TEXT_OPTIONS, *SAMPLING_OPTIONS, *PICTURE_OPTIONS, *RULE_OPTIONS}
        others = {name: value for name, value in options.items() if name not in own}
        self._backend = make_backend(backend, others, self._sampling, tries, device, LABEL)
        self.version = f"{VERSION}+{RULES}+{self._backend.version}+{self._digest(options)}"
        self.speed_options = self._backend.speed_options
        self.path_options = (*self._backend.path_options, "template_file", "system_file")

    def __enter__(self) -> Self:
        self._backend.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._backend.__exit__(kind, error, trace)

    def judge(self, items: Sequence[tuple[Prompt, Generation]]) -> Iterator[Verdict]:
        """One verdict for each image; an unreadable image or reply gives one with an error.

        Raises:
            Incomplete: after the last verdict, if the server stopped responding.
        """
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            samples = list(pool.map(self._load, items))
        yield from (self._error(sample, sample.error) for sample in samples if sample.error)
        pending, why = [sample for sample in samples if not sample.error], dict[str, str]()
        for _ in range(self._backend.tries):
            pending = yield from self._ask(pending, why)
        yield from (self._error(sample, why[sample.key]) for sample in pending)
        self._backend.finish()

    def _load(self, item: tuple[Prompt, Generation]) -> _Sample:
        prompt, generation = item
        try:
            self._rule.check(prompt)
            picture, mime = encode_picture(_image(generation), self._form)
            request = ChatRequest(picture, mime, fill(self._template, prompt))
        except BadInput as error:
            return _Sample(prompt, generation.key, error=str(error))
        return _Sample(prompt, generation.key, request)

    def _ask(
        self, samples: Sequence[_Sample], why: dict[str, str]
    ) -> Generator[Verdict, None, list[_Sample]]:
        """Verdicts on the images whose replies can be read; returns the others, with reasons in `why`."""
        unread = []
        requests = [sample.request for sample in samples if sample.request]
        for sample, reply in zip(samples, self._backend.replies(requests), strict=True):
            sample.replies.append(reply.text)
            sample.truncated = reply.truncated
            if reply.failed:
                yield self._error(sample, reply.error or "no reply")
                continue
            try:
                yield self._verdict(sample, reply)
            except UnreadReply as error:
                why[sample.key] = str(error)
                unread.append(sample)
        return unread

    def _verdict(self, sample: _Sample, reply: Reply) -> Verdict:
        if reply.text is None:
            raise UnreadReply(reply.error)
        try:
            with time_limit():
                values = self._rule.read(reply.text, sample.prompt)
        except UnreadReply as error:
            raise UnreadReply(f"unread: {error}{self._cut(reply)}") from error
        return Verdict(
            sample.key,
            "rubric",
            self.version,
            score=self._rule.score(values, sample.prompt),
            reason=describe(values),
            evidence=_evidence(sample, values),
        )

    def _error(self, sample: _Sample, error: str) -> Verdict:
        evidence = _evidence(sample, {}) if sample.replies else None
        return Verdict(sample.key, "rubric", self.version, evidence=evidence, error=error)

    def _cut(self, reply: Reply) -> str:
        return f" (cut off at max_tokens {self._sampling.max_tokens})" if reply.truncated else ""

    def _digest(self, options: Mapping[str, Json]) -> str:
        """SHA-256 (8 hex digits) of all that a reply and its reading depend on, beside the model."""
        rule = {name: options[name] for name in RULE_OPTIONS if name in options}
        known = self._sampling
        sampling = [known.system, known.text_first, known.temperature, known.max_tokens, known.extra_body]
        form = [self._form.encoding, self._form.mime, self._form.jpeg_quality, self._form.resize]
        whole = [self._template, sampling, form, rule, self._backend.tries]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:8]


def _image(generation: Generation) -> bytes:
    if generation.image is None:
        raise BadInput(f"no image: {generation.error}")
    return generation.image


def describe(values: Values) -> str:
    """Values in a line, for a verdict's reason."""
    return ", ".join(f"{name} {_shown(value)}" for name, value in values.items())


def _shown(value: Json) -> str:
    if isinstance(value, list):
        words = {True: "yes", False: "no"}
        return " ".join(words[v] if isinstance(v, bool) else f"{v:g}" for v in value[:40])
    return f"{value:g}" if isinstance(value, float) else shorten(value)


def _evidence(sample: _Sample, values: Values) -> Json:
    return {
        "replies": list(sample.replies),
        "tries": len(sample.replies),
        "values": dict(values),
        "truncated": sample.truncated,
    }


def _check_template(template: str) -> str:
    if not template.strip():
        raise BadInput(
            f"{LABEL} needs a template: the text that asks about the image, or its template_file"
        )
    return template


def _make_sampling(options: Mapping[str, Json]) -> Sampling:
    order = options.get("order", "image-text")
    if not isinstance(order, str) or order not in ORDERS:
        raise BadInput(f"order {shorten(order)} of {LABEL}: {' or '.join(ORDERS)}")
    extra_body = options.get("extra_body", {})
    if not isinstance(extra_body, Mapping):
        raise BadInput(f"extra_body {shorten(extra_body)} of {LABEL}: a table")
    max_tokens = options.get("max_tokens", 512)
    check_whole_number("max_tokens", max_tokens, LABEL, 0, 1_000_000)
    return Sampling(
        find_text("system", options, LABEL),
        ORDERS[order],
        _temperature(options.get("temperature", 0)),
        max_tokens or None,
        extra_body,
    )


def _temperature(value: Json) -> float | None:
    if value == "server":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise BadInput(f'temperature {shorten(value)} of {LABEL}: a number from 0 to 100, or "server"')
    return float(value)


JUDGE = RubricJudge
