"""Whether a downloaded file can be what it should be, where no checksum is published to tell.

A proxy's login page comes with status 200, too; its checksum must not be the one that counts from then on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from sar_eval.documents import MAX_BYTES, parse_json, read_bytes
from sar_eval.errors import BadInput

_MARKUP = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|body|\?xml)", re.IGNORECASE)
_PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04")
_MIN_WEIGHTS_BYTES = 10_000
_MAX_YAML_BYTES = 1_000_000  # which PyYAML needs seconds for; Qwen's tokenizer.json has 7 million


def why_not(path: Path, name: str) -> str:
    """Why a file cannot be the one of that name, "" if it can; the name's suffix says what it should be."""
    with path.open("rb") as file:
        head = file.read(4096)
    if _MARKUP.match(head):
        return "is a web page (a login, or an error of a proxy)"
    check = _CHECKS.get(Path(name).name) or _CHECKS.get(Path(name).suffix)
    return check(path, head) if check else ""


def _weights(path: Path, head: bytes) -> str:
    is_torch = head.startswith((b"PK\x03\x04", *_PICKLE)) and path.stat().st_size >= _MIN_WEIGHTS_BYTES
    return "" if is_torch else "is no torch file of weights"


def _safetensors(path: Path, head: bytes) -> str:
    """Eight bytes with the header's length, and the header, which is JSON."""
    is_header = head[8:9] == b"{" and 8 + int.from_bytes(head[:8], "little") <= path.stat().st_size
    return "" if is_header else "is no safetensors file"


def _questions(path: Path, head: bytes) -> str:
    """The official table, as its importer reads it."""
    from sar_eval.suites.dpg.suite import COLUMNS

    del path
    header = head.partition(b"\n")[0].decode("utf-8-sig", "replace")
    missing = [column for column in COLUMNS if column not in header]
    return f"is no table of DPG's questions (no column {missing[0]})" if missing else ""


def _settings(path: Path, head: bytes) -> str:
    """JSON or YAML with a table in it, or JSON with the rows of a suite."""
    import yaml  # type: ignore[import-untyped]

    is_json = head.lstrip()[:1] in (b"{", b"[")
    try:
        text = read_bytes(path, MAX_BYTES if is_json else _MAX_YAML_BYTES)
        data = parse_json(text, "it") if is_json else yaml.safe_load(text)
    except (BadInput, yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        return f"is no readable configuration ({str(error).splitlines()[0]})"
    if is_json and isinstance(data, list):
        return ""  # the rows of a suite
    return "" if isinstance(data, dict) else "is no table of settings"


def _lines(path: Path, head: bytes) -> str:
    """JSON lines: the first line says enough."""
    del path
    first = head.lstrip().partition(b"\n")[0]
    return "" if first[:1] in (b"{", b"[") else "holds no JSON lines"


def _text(path: Path, head: bytes) -> str:
    del path
    try:
        head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # else a character that the beginning ends in
            return "is no text"
    return ""


def _picture(path: Path, head: bytes) -> str:
    del path
    is_webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    return "" if is_webp or head.startswith((b"\xff\xd8\xff", b"\x89PNG")) else "is no picture"


def _parquet(path: Path, head: bytes) -> str:
    del path
    return "" if head.startswith(b"PAR1") else "is no Parquet file"


def _words(path: Path, head: bytes) -> str:
    del head
    try:
        lines = read_bytes(path, 10_000_000).decode().splitlines()
    except (BadInput, UnicodeDecodeError):
        return "is no list of word pieces"
    return "" if "[PAD]" in lines[:1000] and "[CLS]" in lines[:1000] else "is no list of word pieces"


# By the file's name, or else by its suffix.
_CHECKS: dict[str, Callable[[Path, bytes], str]] = {
    "dpg_bench.csv": _questions,
    "vocab.txt": _words,
    ".bin": _weights,
    ".pt": _weights,
    ".pth": _weights,
    ".safetensors": _safetensors,
    ".json": _settings,
    ".yaml": _settings,
    ".jsonl": _lines,
    ".parquet": _parquet,
    **dict.fromkeys((".jpg", ".png", ".webp"), _picture),
    **dict.fromkeys((".csv", ".tsv", ".txt", ".py"), _text),
}
