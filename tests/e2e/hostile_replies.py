"""What a faulty or hostile server sends, by name, beside the answers of `fake_chat_server`.

A reply that drips ends when the client has hung up, or after `LONG_S`.
"""

import base64
import html
import json
import time
from collections.abc import Callable
from typing import Any, BinaryIO

LONG_S = 4.0  # much longer than the deadline of any test
DEEP = b"[" * 100_000
OK = b"HTTP/1.1 200 OK\r\n"


def slowly(file: BinaryIO, start: bytes, piece: bytes) -> None:
    """The start at once, then the piece again and again, never twice the deadline apart."""
    file.write(start)
    ends = time.monotonic() + LONG_S
    while time.monotonic() < ends:
        file.write(piece)
        file.flush()
        time.sleep(0.02)


def quickly(file: BinaryIO, start: bytes, piece: bytes) -> None:
    """The start, then the piece as often as the connection takes it."""
    file.write(start)
    ends = time.monotonic() + LONG_S
    while time.monotonic() < ends:
        file.write(piece)


def body(content: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


def said(text: str) -> bytes:
    """A completion whose text stands in the JSON as it is given here, escapes and all."""
    return body(f'{{"choices": [{{"message": {{"content": "{text}"}}}}]}}'.encode())


# Endless: each must end at the deadline, or at the limit of a response.
ENDLESS: dict[str, Callable[[BinaryIO], None]] = {
    "status-drips": lambda file: slowly(file, b"HTTP/1.1 ", b"2"),
    "header-drips": lambda file: slowly(file, OK + b"X-A: ", b"a"),
    "headers-drip": lambda file: slowly(file, OK, b""),
    "body-drips": lambda file: slowly(file, OK + b"\r\n", b" "),
    "chunks-drip": lambda file: slowly(file, OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "trailer-drips": lambda file: slowly(
        file, OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"
    ),
    "error-drips": lambda file: slowly(file, b"HTTP/1.1 500 Oops\r\n\r\n", b"x"),
    "continues": lambda file: slowly(file, b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "continues-fast": lambda file: quickly(file, b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "body-floods": lambda file: quickly(file, OK + b"\r\n", b" " * 65536),
    "header-floods": lambda file: quickly(file, OK + b"A: ", b"a" * 65536),
    "headers-flood": lambda file: quickly(file, OK, b"A: b\r\n" * 1000),
}

# Each at once, and each the error of its question alone: the beginning of the error.
AT_ONCE: dict[str, tuple[bytes, str]] = {
    "deep": (body(DEEP), "the response: nested deeper than 64"),
    "deep-error": (body(DEEP, "400 Bad"), "the server returned 400: [[["),
    "deep-answer": (said("[" * 3000), "neither yes nor no: '[["),
    "deep-object": (said('{\\"answer\\":' * 2000), "neither yes nor no"),
    "half": (said("yes \\ud800"), "the response: contains a lone surrogate"),
    "half-error": (
        body(b'{"error": "\\udfff"}', "403 Bad"),
        'the server returned 403: {"error": "\\udfff"}',
    ),
    "nul": (said("yes\\u0000"), "the response: ... contains a NUL character"),
    "digits": (body(b"9" * 10_000), "the response: unusable JSON: a whole number of 10000 digits"),
    "nan": (body(b'{"choices": NaN}'), "the response: unusable JSON: NaN is no number"),
    "same-key": (
        body(b'{"choices": 1, "choices": 2}'),
        "the response: unusable JSON: the key ... is there twice",
    ),
    "bytes": (body(b'{"choices": "\xff"}'), "the response is not UTF-8"),
    "long-answer": (said("yes, " * 1_400_000), "the answer has 7,000,000 characters"),
    "no-status": (b"hello\r\n\r\n", "no response: BadStatusLine"),
    "odd-length": (OK + b"Content-Length: -5\r\n\r\n", "the response is no JSON: "),
    "long-length": (
        OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
        "the response has no choice: {}",
    ),
    "odd-chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "no response: IncompleteRead"),
    "hints": (b"HTTP/1.1 103 Early Hints\r\n\r\n", "the server returned 103"),
    "odd-shape": (body(b'{"choices": [{"message": {"content": ["yes"]}}]}'), "the response has no text"),
    "odd-reason": (body(b'{"choices": [{"finish_reason": {"a": [1]}}]}'), "the response has no text"),
}


def _hex(text: str) -> str:
    return "".join(f"\\u{ord(c):04X}" for c in text)


# A key in each spelling; `%s` is in none of them, so that they can stand in JSON and in headers.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda key: key,
    "bearer": lambda key: f"Bearer {key}",
    "slash": lambda key: key.replace("/", "\\/"),
    "unicode": lambda key: key.replace("&", "\\u0026").replace("<", "\\u003c"),
    "all-unicode": _hex,
    "twice-escaped": lambda key: json.dumps(json.dumps(key.replace("/", "\\/")))[1:-1],
    "html": html.escape,
    "html-numbers": lambda key: "".join(f"&#{ord(c)};" for c in key),
    "html-hex": lambda key: "".join(f"&#x{ord(c):x};" for c in key),
    "html-twice": lambda key: html.escape(html.escape(key)),
    "percent": lambda key: "".join(c if c.isalnum() else f"%{ord(c):02x}" for c in key),
    "percent-twice": lambda key: "".join(c if c.isalnum() else f"%25{ord(c):02X}" for c in key),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64-of-header": lambda key: base64.b64encode(f"Bearer {key}".encode()).decode(),
    "base64-of-pair": lambda key: base64.urlsafe_b64encode(f"me:{key}".encode()).decode(),
    "hex": lambda key: key.encode().hex(),
    "upper": lambda key: key.upper(),
}


def reply(name: str, file: BinaryIO) -> bool:
    """Send the reply of this name; False if there is none."""
    if name in ENDLESS:
        ENDLESS[name](file)
    elif name in AT_ONCE:
        file.write(AT_ONCE[name][0])
    else:
        return False
    return True


def quoting(where: str, spelled: str) -> Any:
    """A reply with the key in it, as bytes: `where` is one of `PLACES`."""
    return {
        "error": body(f'{{"error": {{"message": "bad key {spelled}"}}}}'.encode(), "403 Forbidden"),
        "text-error": body(f"<p>bad key {spelled}</p>".encode(), "403 Forbidden"),
        "far": body(f"{' ' * 300_000}{'x' * 190} {spelled}".encode(), "403 Forbidden"),
        "reason": f"HTTP/1.1 403 bad key {spelled}\r\nContent-Length: 0\r\n\r\n".encode(),
        "status-line": f"bad key {spelled}\r\n\r\n".encode(),
        "no-json": body(f"bad key {spelled}".encode()),
        "answer": said(f"I do not know {spelled}"),
        "yes": said(f"Yes. {spelled}"),
        "no-choice": body(f'{{"oops": "{spelled}"}}'.encode()),
        "finish": body(f'{{"choices": [{{"finish_reason": "{spelled}"}}]}}'.encode()),
        "twice": body(f'{{"{spelled}": 1, "{spelled}": 2}}'.encode()),
    }[where]


PLACES = (
    "error",
    "text-error",
    "far",
    "reason",
    "status-line",
    "no-json",
    "answer",
    "yes",
    "no-choice",
    "finish",
    "twice",
)
