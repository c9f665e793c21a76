"""Checks of where a server is and which key it gets, without either being shown; and paths in responses."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.types import Json

MAX_TIMEOUT_S = 86_400.0


def check_url(url: object, label: str, example: str) -> None:
    """Refuse what is no HTTP address, or one with something secret in it; no message shows it.

    Args:
        url: the server's address.
        label: who wants it, for the message.
        example: the option with an address, for the message.

    Raises:
        BadInput: it is none.
    """
    try:
        parts = urlsplit(url) if isinstance(url, str) and re.fullmatch("[!-~]+", url) else None
        port = parts.port if parts else None  # ValueError: none of 0 to 65535
    except ValueError:
        parts = port = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise BadInput(f"{label} needs the server's address: {example}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise BadInput(
            f"{label}: nothing secret in the address, which is stored (no user, no ?query, no #fragment); "
            "use api_key_env"
        )


def check_api_key_env(name: object, label: str) -> None:
    """Refuse what is no name of an environment variable with a key in it; "" for no key.

    Raises:
        BadInput: it is none. The value may be the key itself, by mistake, so no message shows it.
    """
    if not isinstance(name, str) or not re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)?", name):
        raise BadInput(f"api_key_env of {label} is the name of an environment variable, never the key")
    if name and not re.fullmatch(r"[!-~]+", os.environ.get(name, "")):
        raise BadInput(
            f"{label}: the environment variable that api_key_env names is not set or holds no key "
            "(printable characters without spaces). api_key_env takes the variable's name, never the key"
        )


def key_hint(api_key_env: str) -> str:
    """How to go on after a server refused the key, for a message."""
    return f"is the key in {api_key_env} right?" if api_key_env else "set api_key_env to its variable"


def check_timeout(seconds: object, label: str) -> None:
    """Refuse what is no number of seconds for a request.

    Raises:
        BadInput: not above 0, or more than a day.
    """
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not 0 < seconds <= MAX_TIMEOUT_S:  # type: ignore[operator]
        raise BadInput(
            f"timeout_s {shorten(seconds)} of {label}: seconds above 0 and at most {MAX_TIMEOUT_S:,.0f}"
        )


def get_path(data: Json, *path: str | int) -> Json:
    """The value at a path of keys and indices; None if a step is missing or of another type."""
    for step in path:
        if isinstance(step, int):
            data = data[step] if isinstance(data, list) and len(data) > step else None
        else:
            data = data.get(step) if isinstance(data, Mapping) else None
    return data
