"""Find a text file's encoding: UTF-8, or UTF-16 and UTF-32 with their marks.

A file in any other is refused with the one that it looks like: a guess would garble texts in silence.
"""

from __future__ import annotations

import codecs
import functools
import re
import shlex
import unicodedata
from collections.abc import Callable
from pathlib import Path

from sar_eval.errors import BadInput

MAX_LINE = 64_000_000  # bytes
MAX_TEXT = 1_000_000  # characters of a file that is one text
CHUNK = 1 << 20  # bytes
MARKS = {  # UTF-32's begins with UTF-16's
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Files that are often met under the name of a table.
OTHERS = {
    b"PK\x03\x04": "is a ZIP file (a spreadsheet?): save it as CSV UTF-8, or unpack it",
    b"\x1f\x8b": "is compressed by gzip: unpack it",
    b"PAR1": "is a Parquet file: name it .parquet",
    b"version https://git-lfs": "is a git-lfs pointer, not the file: run `git lfs pull`",
    b"<!doctype html": "is an HTML page, not a table: did the download ask to log in?",
    b"<html": "is an HTML page, not a table: did the download ask to log in?",
}
_FOREIGN = re.compile(r"[^\x00-\x7f]+")
_FOREIGN_WORD = re.compile(r"[A-Za-z]?[^\x00-\x7f]+[A-Za-z]?")
_ENOUGH = 200  # characters that are UTF-8 by chance: never that many


def find_encoding(path: Path, notes: list[str], given: str | None = None) -> str:
    """The encoding of a text file, for `open`; the whole file is read once, and is then known to decode.

    Args:
        path: a regular file.
        notes: UTF-16, and doubts, are appended.
        given: the encoding, where it is known.

    Raises:
        BadInput: no such file, it is no text, contains NUL characters, has an endless line, or is in
            another encoding: the message names the one that it looks like.
    """
    if given is not None:
        _check_name(given)
    try:
        mark = _mark(path)
        encoding = given or mark or "utf-8"
        foreign = _read_through(path, encoding)
    except FileNotFoundError as error:
        raise BadInput(f"no file {path}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise BadInput(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if given is None and mark in ("utf-16", "utf-32"):
        notes.append(f"{path}: read as {encoding.upper()}")
    elif not given and not mark and foreign and len(foreign) < _ENOUGH:
        _check_by_chance(path, foreign, notes)
    return encoding


def read_text(path: Path, notes: list[str], encoding: str | None = None) -> str:
    """The contents of a text file, newlines as they are; see `find_encoding`.

    Raises:
        BadInput: it is longer than `MAX_TEXT`, or for the reasons of `find_encoding`.
    """
    known = find_encoding(path, notes, encoding)
    try:
        with path.open(encoding=known, newline="") as file:
            text = file.read(MAX_TEXT + 1)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error
    if len(text) > MAX_TEXT:
        raise BadInput(f"{path} has over {MAX_TEXT:,} characters: is it the right file?")
    return text


def _mark(path: Path) -> str:
    """The encoding that the file's first bytes say, or ""; refuses what is known to be no text."""
    if path.exists() and not path.is_file():  # a pipe or a device: reading it may never end
        raise BadInput(f"{path} is {'a directory' if path.is_dir() else 'no regular file'}, not a file")
    with path.open("rb") as file:
        head = file.read(32)
    for start, problem in OTHERS.items():
        if head.lstrip().lower().startswith(start.lower()):
            raise BadInput(f"{path} {problem}")
    return next((name for mark, name in MARKS.items() if head.startswith(mark)), "")


def _read_through(path: Path, encoding: str) -> str:
    """Decode the whole file; gives its first characters beyond ASCII, with the letters beside them."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line, foreign = 1, ""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            chunk += file.readline(MAX_LINE)
            if len(chunk) >= CHUNK + MAX_LINE:
                raise BadInput(f"{path} has a line of over {MAX_LINE:,} bytes: is it the right file?")
            text = _decode(decoder, chunk, path, line)
            if "\x00" in text:
                raise BadInput(_nul_problem(chunk, text, path, line))
            if not text.isascii() and len(foreign) < _ENOUGH:
                foreign += " ".join(["", *_FOREIGN_WORD.findall(text)])[: _ENOUGH + 1]
            line += text.count("\n")
    _decode(decoder, b"", path, line, final=True)
    return foreign.strip()


def _decode(
    decoder: codecs.IncrementalDecoder, data: bytes, path: Path, line: int, final: bool = False
) -> str:
    try:
        return decoder.decode(data, final)
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        looks = guess_encoding(data)
        raise BadInput(
            f"{path}:{line}: not {error.encoding.upper()} ({error.reason})"
            + (f"; it looks like {looks}: {_advice(path, looks)}" if looks else ": is it a text file?")
        ) from error


def _advice(path: Path, encoding: str) -> str:
    name = _legacy()[encoding][0] if encoding in _legacy() else encoding
    command = f"iconv -f {name.upper().replace('_', '-')} -t UTF-8"
    old, new = shlex.quote(path.name), shlex.quote(f"{path.stem}-utf8{path.suffix}")
    return f"convert it with `{command} {old} > {new}`, or save it as UTF-8"


def _nul_problem(data: bytes, text: str, path: Path, line: int) -> str:
    even, odd = data[::2].count(0), data[1::2].count(0)
    if max(even, odd) > len(data) / 4 and min(even, odd) < max(even, odd) / 8:
        looks = "UTF-16BE" if even > odd else "UTF-16LE"
        return f"{path} looks like {looks} without a byte order mark: {_advice(path, looks)}"
    line += text.count("\n", 0, text.index("\x00"))
    return f"{path}:{line}: contains a NUL character: is it a text file?"


def guess_encoding(data: bytes) -> str:
    """The name of the legacy encoding in which most of these characters are everyday ones; "" if none.

    Args:
        data: whole lines that are not UTF-8.
    """
    scores = {name: _score(data, codec, everyday) for name, (codec, everyday) in _legacy().items()}
    best = max(scores, key=lambda name: scores[name])
    if scores[best] < 0.5:
        return ""
    return "CP1252" if best == "Latin-1" and re.search(rb"[\x80-\x9f]", data) else best


def _score(data: bytes, codec: str, everyday: Callable[[str], float]) -> float:
    """Share of the characters beyond ASCII that people write in this encoding; 0 if it does not decode."""
    try:
        text = data.decode(codec)
    except UnicodeDecodeError:
        return 0
    return everyday(" ".join(_FOREIGN.findall(text)))


@functools.cache
def _legacy() -> dict[str, tuple[str, Callable[[str], float]]]:
    """Encodings, each with its codec and how everyday a text would be in it; ties go to the first."""
    chinese = _characters("gb2312", 0xB0, 0xD7)
    taiwanese = _characters("big5", 0xA4, 0xC6)
    kana = frozenset(chr(code) for code in range(0x3041, 0x30FF))
    kanji = _characters("shift_jis", 0x88, 0x97) | kana
    hangul = frozenset(chr(code) for code in range(0xAC00, 0xD7A4))
    latin = frozenset("\u2018\u2019\u201c\u201d\u2013\u2014\u2026\u20ac\u0153\u0152") | frozenset(
        chr(code) for code in range(0xC0, 0x100)
    )
    return {
        "Shift-JIS": ("cp932", lambda text: _share(text, kanji) * (1.01 if kana & set(text) else 0.98)),
        # Chinese by chance for a word or two, not for long: hangul are few of GBK's pairs of bytes.
        "EUC-KR": ("cp949", lambda text: _share(text, hangul) * (1.01 if len(text) > 5 else 0.99)),
        "GBK": ("gbk", lambda text: _share(text, chinese | _PUNCTUATION)),
        "GB18030": ("gb18030", lambda text: _share(text, chinese | _PUNCTUATION) * 0.99),
        "Big5": ("big5", lambda text: _share(text, taiwanese | _PUNCTUATION)),
        "EUC-JP": ("euc_jp", lambda text: _share(text, kanji) if kana & set(text) else 0),
        **{
            name: (codec, functools.partial(_alphabetic, letters=letters, often=frozenset(often)))
            for name, (codec, letters, often) in _ALPHABETS.items()
        },
        "CP1252": ("cp1252", lambda _: 0),  # Latin-1 with the quotes of Windows
        "Latin-1": ("cp1252", lambda text: _share(text, latin) * (1 - _share_in_runs(text) / 2)),
    }


# Of one byte each: the codec, the alphabet, and the letters that make up most of a text. The alphabets
# lie in the same bytes, so that only the frequent letters tell them apart.
_ALPHABETS = {
    "CP1251": ("cp1251", frozenset(map(chr, range(0x410, 0x450))) | {"ё", "Ё"}, "оеаинтсрвлкмдпуяг"),
    "KOI8-R": ("koi8_r", frozenset(map(chr, range(0x410, 0x450))) | {"ё", "Ё"}, "оеаинтсрвлкмдпуя"),
    "CP1255": ("cp1255", frozenset(map(chr, range(0x5D0, 0x5EB))), "יוהלאמרבתשנםחד"),
    "CP1253": ("cp1253", frozenset(map(chr, range(0x386, 0x3CF))), "αοιετνςσηυρπκμλάίόέήύ"),
    "CP1256": ("cp1256", frozenset(map(chr, range(0x621, 0x653))), "اليمونرتبةعدس"),
}
_PUNCTUATION = frozenset("，。、！？：；（）《》“”‘’…—　")  # noqa: RUF001


def _characters(codec: str, first: int, last: int) -> frozenset[str]:
    """The characters whose first byte is in this range: encodings begin with the everyday ones."""
    pairs = (bytes((lead, trail)) for lead in range(first, last + 1) for trail in range(0x40, 0xFF))
    return frozenset("".join(pair.decode(codec, "ignore") for pair in pairs)) - set(map(chr, range(128)))


def _share(text: str, everyday: frozenset[str]) -> float:
    foreign = "".join(_FOREIGN.findall(text))
    return sum(character in everyday for character in foreign) / max(len(foreign), 1)


def _alphabetic(text: str, letters: frozenset[str], often: frozenset[str]) -> float:
    """How everyday a text in words of an alphabet is; a little less where its letters are rare ones."""
    frequent = 0.6 * _share(text.lower(), often) if text.isupper() else _share(text, often)
    return _share(text, letters) * _share_in_runs(text) * (0.6 + 0.4 * frequent)


def _share_in_runs(text: str) -> float:
    """Share of the characters with a neighbour: in Western texts accented letters stand alone."""
    return sum(len(run) for run in text.split(" ") if len(run) > 1) / max(len(text.replace(" ", "")), 1)


def _check_name(encoding: str) -> None:
    try:
        "".encode(encoding)
    except (LookupError, ValueError) as error:
        raise BadInput(f"no encoding {encoding!r}: utf-8, utf-16, gbk, cp932, cp1252 and others") from error


def _check_by_chance(path: Path, foreign: str, notes: list[str]) -> None:
    """Two or three Chinese characters of GBK may be UTF-8 by chance, and would stay garbled.

    Raises:
        BadInput: as UTF-8 letters of several scripts stand side by side, as GBK all are everyday ones.
    """
    try:
        chinese = foreign.encode().decode("gb2312")
    except UnicodeDecodeError:
        return
    if _legacy()["GBK"][1](chinese) < 0.9:
        return
    doubt = f"{path}: {foreign[:20]!r} in UTF-8 would be {chinese[:20]!r} in GBK"
    if any(len(_scripts(run)) > 1 for run in _FOREIGN.findall(foreign)):
        raise BadInput(
            f"{doubt}, and it looks like GBK: {_advice(path, 'GBK')} (UTF-8 needs a byte order mark here)"
        )
    # Signs such as £ stand alone in UTF-8 too, but accented letters stand in words.
    if foreign.replace(" ", "").isalpha() and not re.search("[A-Za-z]", foreign):
        notes.append(f"{doubt}; it is read as UTF-8")


def _scripts(run: str) -> set[str]:
    letters = (character for character in run if unicodedata.category(character)[0] in "LM")
    return {unicodedata.name(character, "?").split()[0] for character in letters}
