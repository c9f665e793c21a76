"""The options of the engine `server`, checked without a word of the key."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from sar_eval.clients.endpoint import check_api_key_env, check_timeout, check_url
from sar_eval.clients.redact import redactor
from sar_eval.decoding.encode_images import check_format
from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.options import check_names, check_whole_number
from sar_eval.types import Json

LABEL = "engine 'server'"  # in error messages
EXAMPLE = "--engine-option base_url=http://HOST:PORT"
MAX_NAME = 200  # characters of a model's name, or of an identity
# No picture depends on them; the address is part of the checkpoint's digest, unless `identity` is.
SPEED_OPTIONS = (
    *("base_url", "api_key_env", "timeout_s", "retries", "concurrency", "requests_per_minute"),
    *("price", "image_format"),
)
RESERVED = (
    *("model", "prompt", "n", "size", "stream", "seed", "negative_prompt"),
    *("guidance_scale", "num_inference_steps"),
)


@dataclass(frozen=True, slots=True)
class Options:
    """The server, and what a request has beside model, prompt and size.

    Attributes:
        base_url: the server's address, with or without `/v1` at its end.
        api_key_env: the environment variable that holds the key; "" if none is needed. Never the key.
        timeout_s: seconds of one request.
        retries: after a retryable failure.
        concurrency: requests in flight at once.
        requests_per_minute: at most, retries included; 0 for no limit.
        send_seed: send each draw's seed as `seed`.
        guidance: `guidance_scale` of the request; None for the server's own.
        steps: `num_inference_steps` of the request; None for the server's own.
        extra: further fields of the request.
        price: of a picture, in any currency.
        identity: stands for the address in the digest, for a server that moves.
        image_format: of the stored pictures, `png` or `webp`.
    """

    base_url: str = ""
    api_key_env: str = ""
    timeout_s: float = 180.0
    retries: int = 3
    concurrency: int = 4
    requests_per_minute: float = 0.0
    send_seed: bool = False
    guidance: float | None = None
    steps: int | None = None
    extra: Mapping[str, Json] = field(default_factory=dict)
    price: float | None = None
    identity: str = ""
    image_format: str = "png"

    @property
    def address(self) -> str:
        """The address without `/v1`."""
        return self.base_url.rstrip("/").removesuffix("/v1").rstrip("/")


def read_options(values: Mapping[str, Json], model: str) -> Options:
    """The options, checked; `model` is the checkpoint's name.

    Raises:
        BadInput: an option that is unknown, missing or out of range, a key that is not set, or one that
            would be stored. No message shows it.
    """
    check_names(values, [f.name for f in fields(Options)], LABEL)
    options = Options(**values)
    check_url(options.base_url, LABEL, EXAMPLE)
    check_api_key_env(options.api_key_env, LABEL)
    _check_no_key(values, model, options.api_key_env)
    _check_texts(options, model)
    check_timeout(options.timeout_s, LABEL)
    check_whole_number("retries", options.retries, LABEL, 0, 100)
    check_whole_number("concurrency", options.concurrency, LABEL, 1, 1024)
    for name in ("requests_per_minute", "guidance", "price"):
        _check_number(name, getattr(options, name))
    if options.steps is not None:
        check_whole_number("steps", options.steps, LABEL, 1, 10_000)
    if not isinstance(options.send_seed, bool):
        raise BadInput(f"send_seed {shorten(options.send_seed)} of {LABEL}: true or false")
    _check_extra(options.extra)
    return options


def _check_texts(options: Options, model: str) -> None:
    for name, text in (("--ckpt", model), ("identity", options.identity)):
        if not isinstance(text, str) or len(text) > MAX_NAME or not text.isprintable():
            raise BadInput(f"{name} {shorten(text)} of {LABEL}: a name of at most {MAX_NAME} characters")
    check_format(options.image_format)


def _check_number(name: str, value: object) -> None:
    """Refuse what is no finite number of at least 0; None is not asked for."""
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf:  # type: ignore[operator]
        raise BadInput(f"{name} {shorten(value)} of {LABEL}: a number of at least 0")


def _check_extra(extra: object) -> None:
    if not isinstance(extra, Mapping):
        raise BadInput(f"extra of {LABEL}: a table, as 'extra={{quality = \"low\"}}'")
    if reserved := sorted(extra.keys() & set(RESERVED)):
        raise BadInput(f"extra.{reserved[0]} of {LABEL}: another option sets this field")


def _check_no_key(values: Mapping[str, Json], model: str, api_key_env: str) -> None:
    text = json.dumps([dict(values), model], default=str)
    if api_key_env and redactor(os.environ.get(api_key_env, ""))(text) != text:
        raise BadInput(
            f"{LABEL}: an option or the model's name holds the key itself, and would be stored. Leave it "
            "in the environment variable that api_key_env names"
        )
