"""Whom a rubric asks: a server, or a network of transformers on this machine.

Both take the same requests and give their replies in order. `version` names the model, `speed_options` and
`path_options` are as of a judge, and `tries` is how often the same request is worth sending.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from PIL import Image

from sar_eval.clients.endpoint import get_path
from sar_eval.clients.json_client import RequestError
from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.networks.chat_server import (
    SERVER_OPTIONS,
    SPEED_OPTIONS,
    ChatServer,
    ServerOptions,
    chat_messages,
    data_url,
    reply_text,
)
from sar_eval.options import check_dtype, check_names, check_whole_number
from sar_eval.types import Json

if TYPE_CHECKING:
    from sar_eval.networks.vqa_transformers import VqaNetwork

MAX_REPLY = 200_000  # characters that are kept, thinking included
LOCAL_OPTIONS = ("model", "revision", "dtype", "batch_size")
LOCAL_BODY = ("chat_template_kwargs", "repetition_penalty")  # of `extra_body`
RESERVED = ("model", "messages", "stream", "n", "temperature", "max_tokens")  # not for `extra_body`


@dataclass(frozen=True, slots=True)
class Sampling:
    """What every request has beside its picture and text.

    Attributes:
        system: text of the system message; "" for none.
        text_first: the text before the picture.
        temperature: None for the server's own.
        max_tokens: of a reply; None for the server's own limit.
        extra_body: further keys of the request, such as `chat_template_kwargs`.
    """

    system: str = ""
    text_first: bool = False
    temperature: float | None = 0.0
    max_tokens: int | None = 512
    extra_body: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A picture, as the bytes of an image file of this MIME type, and the text that asks about it."""

    picture: bytes
    mime: str
    text: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said, or why it said nothing.

    Attributes:
        text: as it said it.
        error: why there is none.
        failed: the request failed, with all its retries; else the server answered without a text.
        truncated: the text was cut off at `max_tokens`.
    """

    text: str | None = None
    error: str | None = None
    failed: bool = False
    truncated: bool = False


class Backend(Protocol):
    """See the module."""

    version: str
    tries: int
    speed_options: tuple[str, ...]
    path_options: tuple[str, ...]

    def __enter__(self) -> Self:
        """Check the server, or load the network."""
        ...

    def __exit__(self, *error: object) -> None: ...

    def replies(self, requests: Iterable[ChatRequest]) -> Iterator[Reply]:
        """One reply for each request, in order."""
        ...

    def finish(self) -> None:
        """Raise `Incomplete` if nothing can be asked any more."""
        ...


def make_backend(
    name: Json, options: Mapping[str, Json], sampling: Sampling, tries: int, device: str, label: str
) -> Backend:
    """The backend `server` or `transformers` with its options.

    Raises:
        BadInput: naming `label` and the option: unknown, missing, out of range, or not for this backend.
        UnknownName: the model is neither a folder nor a hub name.
    """
    if name == "server":
        check_names(options, SERVER_OPTIONS, f"{label} with backend 'server'")
        return ServerBackend(ServerOptions(**options), sampling, tries, label)
    if name == "transformers":
        check_names(options, LOCAL_OPTIONS, f"{label} with backend 'transformers'")
        return LocalBackend(options, sampling, device, label)
    raise BadInput(f"backend {shorten(name)} of {label}: server or transformers")


class ServerBackend:
    """Several requests at once to one model of a server."""

    speed_options: tuple[str, ...] = SPEED_OPTIONS
    path_options: tuple[str, ...] = ()

    def __init__(self, options: ServerOptions, sampling: Sampling, tries: int, label: str) -> None:
        """Nothing is sent yet.

        Raises:
            BadInput: see `ServerOptions.check`; or `extra_body` has what another option says.
        """
        if reserved := sorted(sampling.extra_body.keys() & set(RESERVED)):
            raise BadInput(f"extra_body.{reserved[0]} of {label}: not a key for extra_body")
        self._server = ChatServer(options, label)
        self._sampling, self.tries, self.version = sampling, tries, options.model

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def replies(self, requests: Iterable[ChatRequest]) -> Iterator[Reply]:
        """In order; a request that failed for good gives an error."""
        pool = ThreadPoolExecutor(self._server.options.concurrency)
        try:
            yield from pool.map(self._reply, requests)
        finally:
            pool.shutdown(cancel_futures=True)

    def finish(self) -> None:
        """Raise `Incomplete` if the server stopped responding."""
        self._server.raise_failure()

    def _reply(self, request: ChatRequest) -> Reply:
        try:
            response = self._server.complete(self._payload(request))
            text = reply_text(response, self._server.client)
        except RequestError as error:
            return Reply(error=str(error), failed=error.status != 200)
        if len(text) > MAX_REPLY:
            return Reply(
                error=f"the reply has {len(text):,} characters, of which at most {MAX_REPLY:,} are kept"
            )
        truncated = get_path(response, "choices", 0, "finish_reason") == "length"
        return Reply(self._server.client.redact(text), truncated=truncated)

    def _payload(self, request: ChatRequest) -> dict[str, Json]:
        known = self._sampling
        limits = {"temperature": known.temperature, "max_tokens": known.max_tokens}
        return {
            "messages": chat_messages(
                data_url(request.picture, request.mime),
                request.text,
                system=known.system,
                text_first=known.text_first,
            ),
            **{name: value for name, value in limits.items() if value is not None},
            **known.extra_body,
        }


class LocalBackend:
    """A chat model of transformers, decoding greedily: the same request has the same reply."""

    speed_options: tuple[str, ...] = ("batch_size",)
    path_options: tuple[str, ...] = ("model",)  # the version has the model's name and a digest of its files
    tries = 1

    def __init__(self, options: Mapping[str, Json], sampling: Sampling, device: str, label: str) -> None:
        """Find the network's files; weights are loaded on enter.

        Raises:
            BadInput: an option out of range, sampling that is not greedy, or no chat model.
            UnknownName, Incomplete, MissingExtra: see `find_network`.
        """
        from sar_eval.networks.vqa_transformers import find_network, network_kind

        model, revision = options.get("model", ""), options.get("revision", "")
        self._dtype, self._batch_size = options.get("dtype", "float32"), options.get("batch_size", 8)
        if not isinstance(model, str) or not model or not isinstance(revision, str):
            raise BadInput(f"{label} needs a network: --judge-option model=FOLDER or ORG/NAME")
        check_dtype(self._dtype, label)
        check_whole_number("batch_size", self._batch_size, label)
        _check_greedy(sampling, label)
        self._folder, digest = find_network(model, revision)
        if network_kind(self._folder) != "chat":
            raise BadInput(f"{label}: {model} is no chat model, which a rubric needs")
        self._sampling, self._device = sampling, device
        self.version = f"{Path(model).name}@{digest}"

    def __enter__(self) -> Self:
        from sar_eval.networks.vqa_transformers import VqaNetwork

        self._network: VqaNetwork = VqaNetwork(
            self._folder,
            device=self._device,
            dtype=self._dtype,
            max_new_tokens=self._sampling.max_tokens or 512,
        )
        return self

    def __exit__(self, *error: object) -> None:
        del self._network

    def replies(self, requests: Iterable[ChatRequest]) -> Iterator[Reply]:
        """In order, `batch_size` at once."""
        pending = iter(requests)
        while batch := list(islice(pending, self._batch_size)):
            yield from self._reply(batch)

    def finish(self) -> None:
        """Nothing can stop."""

    def _reply(self, requests: Sequence[ChatRequest]) -> Iterator[Reply]:
        from sar_eval.networks.vqa_transformers import conversation

        known = self._sampling
        asked = [
            conversation(_decode(r.picture), r.text, system=known.system, text_first=known.text_first)
            for r in requests
        ]
        body = dict(known.extra_body)
        template_options = body.pop("chat_template_kwargs", {})
        for text, cut in self._network.reply(
            asked, template_options=template_options, generation_options=body
        ):
            yield Reply(text, truncated=cut) if text else Reply(error="the network generated no text")


def _decode(data: bytes) -> Image.Image:
    """The picture as its file has it; whoever made the request looked at the file before."""
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
        return image.convert("RGB")


def _check_greedy(sampling: Sampling, label: str) -> None:
    if sampling.temperature != 0 or sampling.max_tokens is None:
        raise BadInput(f"{label} with backend 'transformers' needs temperature 0 and max_tokens")
    if unknown := sorted(sampling.extra_body.keys() - set(LOCAL_BODY)):
        raise BadInput(
            f"extra_body.{unknown[0]} of {label}: backend 'transformers' takes {' and '.join(LOCAL_BODY)}"
        )
    if not isinstance(sampling.extra_body.get("chat_template_kwargs", {}), Mapping):
        raise BadInput(f"extra_body.chat_template_kwargs of {label}: a table")
