"""Take a secret out of text that somebody else wrote, however it is spelled there.

A server that refuses a key quotes it: as it is, with JSON's escapes (`\\/`, `\\u0026`), HTML's (`&amp;`), a
URL's (`%2F`), in base64 (as the header of basic authentication has it) or in hexadecimal digits.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from html.entities import html5

MIN_LENGTH = 4  # of a secret; a shorter one would be found in ordinary words
MAX_SPELLING = 48  # characters for one of the secret, with escapes of escapes
REDACTED = "[key]"


@lru_cache(maxsize=8)
def redactor(secret: str) -> Callable[[str], str]:
    """The function that replaces every spelling of the secret in a text by `[key]`.

    A secret of fewer than `MIN_LENGTH` characters is left, and so is all text without a secret.
    """
    if len(secret) < MIN_LENGTH:
        return lambda text: text
    # Another case is another text, but most of the key all the same.
    pattern = re.compile("|".join(_spellings(secret)), re.IGNORECASE)
    return lambda text: pattern.sub(REDACTED, text)


def _spellings(secret: str) -> Iterator[str]:
    """Regular expressions, one a kind of spelling; escapes may be mixed and doubled within each."""
    yield "".join(map(_escaped, secret))
    for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):  # bytes that stand before the secret in its group of three
            inner = "".join(map(_escaped_symbol, _inner_base64(secret.encode(), before, alphabet)))
            yield rf"[\w+/-]?{inner}[\w+/-]?=*"
    yield secret.encode().hex()


def _inner_base64(secret: bytes, before: int, encode: Callable[[bytes], bytes]) -> str:
    """The part of the base64 text that depends on the secret alone, not on its neighbours."""
    encoded = encode(b"\0" * before + secret).decode().rstrip("=")
    first = -(-before * 8 // 6)
    return encoded[first : (before + len(secret)) * 8 // 6]


def _escaped_symbol(character: str) -> str:
    return character if character.isalnum() else _escaped(character)


def _escaped(character: str) -> str:
    """A character as it is, or in an escape of JSON, HTML, a URL or mail; bounded, so linear in time."""
    code = ord(character)
    names = "".join(f"|{name}" for name in _entity_names().get(character, ()))
    return (
        rf"(?:\\{{0,8}}(?:{re.escape(character)}|u00{code:02x}|x{code:02x})"
        rf"|[%=](?:25){{0,4}}{code:02x}"
        rf"|&(?:amp;){{0,4}}(?:#0{{0,6}}{code}|#x0{{0,6}}{code:x}{names});?)"
    )


@cache
def _entity_names() -> dict[str, list[str]]:
    """HTML's names of each character, without the semicolon."""
    names: dict[str, list[str]] = {}
    for name, character in html5.items():
        if name.endswith(";"):
            names.setdefault(character, []).append(name[:-1])
    return names
