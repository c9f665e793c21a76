"""OpenAI's images interface, `POST /v1/images/generations`: one picture a request.

What vllm-omni adds to it (`seed`, `negative_prompt`, `guidance_scale`, `num_inference_steps`) is told at
https://docs.vllm.ai/projects/vllm-omni/en/stable/serving/image_generation_api/.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sar_eval.clients.endpoint import get_path
from sar_eval.clients.json_client import JsonClient, RequestError
from sar_eval.types import Json

PATH = "/v1/images/generations"
MAX_REVISED = 4000  # characters of a rewritten prompt that are kept
MAX_COUNTS = 32  # of a response's `usage`
# Words in the code or message of an error by which a server refuses the content of a prompt or picture.
REFUSAL = re.compile(r"moderation|content[ _]?(policy|filter)|safety|responsible_?ai", re.IGNORECASE)
REFUSAL_STATUSES = (400, 403, 422, 451)


@dataclass(frozen=True, slots=True)
class ImageReply:
    """A picture as the server sent it.

    Attributes:
        data: the bytes of an image file, not yet looked at.
        revised_prompt: what the server says that it drew in place of the prompt; "" if it says nothing.
        usage: the server's counts, such as tokens, by name; nested ones as `details.tokens`.
    """

    data: bytes
    revised_prompt: str = ""
    usage: Mapping[str, float] = field(default_factory=dict)


def response_limit(max_bytes: int) -> int:
    """Bytes of a response that holds a file of `max_bytes` in base64."""
    return max_bytes * 4 // 3 + (1 << 20)


def request_image(client: JsonClient, payload: Mapping[str, Json], max_bytes: int) -> ImageReply:
    """Ask for one picture, and fetch it where the response has its address alone.

    Args:
        client: of the server, without `/v1`.
        payload: the request's fields but `n`.
        max_bytes: of the picture's file.

    Raises:
        RequestError: it failed for good, or the response has no picture, several, or one that is too large.
    """
    response = client.post(PATH, {**payload, "n": 1})
    found = get_path(response, "data")
    if not isinstance(found, list) or not found:
        raise RequestError(f"the response has no picture: {client.excerpt(str(response))}", 200)
    if len(found) != 1:
        raise RequestError(f"the server sent {len(found)} pictures where 1 was asked for", 200)
    revised = get_path(found[0], "revised_prompt")
    return ImageReply(
        _file(client, found[0], max_bytes),
        client.excerpt(revised, MAX_REVISED) if isinstance(revised, str) else "",
        dict(_counts(get_path(response, "usage"))),
    )


def is_refusal(error: RequestError) -> bool:
    """Whether the server refuses the content, which the same request would not change."""
    return error.status in REFUSAL_STATUSES and REFUSAL.search(f"{error.code} {error}") is not None


def _file(client: JsonClient, entry: Json, max_bytes: int) -> bytes:
    text, url = get_path(entry, "b64_json"), get_path(entry, "url")
    if isinstance(url, str) and url.startswith("data:") and not text:
        text = url.partition(",")[2]
    if isinstance(text, str) and text:
        return _decoded(text, max_bytes)
    if isinstance(url, str) and url:
        try:
            return client.fetch(url, max_bytes)
        except RequestError as error:  # a refusal is of this address alone, perhaps at another host
            status = error.status if error.retryable else 200
            raise RequestError(f"the picture's file: {error}", status) from None
    raise RequestError("the response's picture has neither b64_json nor url", 200)


def _decoded(text: str, max_bytes: int) -> bytes:
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):  # ValueError: not even ASCII
        raise RequestError("the response's b64_json is no base64", 200) from None
    if len(data) > max_bytes:
        raise RequestError(f"the picture is longer than {max_bytes >> 20} MiB", 200)
    return data


def _counts(usage: Json, prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a response's `usage`, one level of tables included."""
    for name, value in list(usage.items())[:MAX_COUNTS] if isinstance(usage, Mapping) else ():
        if not re.fullmatch(r"\w{1,40}", name):
            continue
        if isinstance(value, Mapping) and not prefix:
            yield from _counts(value, f"{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
            yield f"{prefix}{name}", value
