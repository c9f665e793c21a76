"""The caption cleaning of LlamaGen: what its T5 encoder was given in training, so what it must be given.

The rules are those of FoundationVision/LlamaGen, language/t5.py (commit 5a50452; PixArt and DeepFloyd IF
have the same), written anew and in their order. Some only make sense together: a rule that leaves half an
address leaves it. One pass is not idempotent, and the reference makes two.

Markup is taken off with Python's own HTML parser under the rules by which Beautiful Soup (which the
reference uses) makes text of what that parser reports; texts were equal to Beautiful Soup 4.15's over
generated markup. What Python's parser or ftfy change in another version changes captions here as it does
there.
"""

from __future__ import annotations

import html
import re
from html.entities import html5
from html.parser import HTMLParser
from urllib.parse import unquote_plus

from sar_eval.discover import need
from sar_eval.documents import shorten
from sar_eval.errors import BadInput

_Rules = tuple[tuple[re.Pattern[str], str], ...]


def _rules(*pairs: tuple[str, str]) -> _Rules:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


_HOSTS = r"[a-z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
_ENDINGS = "(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)"
_DASHES = (
    "\\-\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u301c\u3030\u30a0\ufe31\ufe32"
    "\ufe58\ufe63\uff0d"
)
_PUNCTUATION = "#\u00ae\u2022\u00a9\u2122&@\u00b7\u00ba\u00bd\u00be\u00bf\u00a1\u00a7~()\\[\\]{}|\\\\/*"

# The text is in lower case here.
_BEFORE_MARKUP = _rules(
    ("<person>", "person"),
    (rf"\b(?:https?:(?:/{{1,3}}|[a-z0-9%])|{_HOSTS})", ""),
    (rf"\b(?:www:(?:/{{1,3}}|[a-z0-9%])|{_HOSTS})", ""),
)
# Character references may have brought capitals back.
_AFTER_MARKUP = _rules(
    (r"@\w+\b", ""),
    ("[\u31c0-\u9fff]+", ""),  # strokes, kana extensions, enclosed and compatible forms, ideographs
    (f"[{_DASHES}]+", "-"),
    ("[`\u00b4\u00ab\u00bb\u201c\u201d\u00a8]", '"'),
    ("[\u2018\u2019]", "'"),
    ("&quot;?", ""),
    ("&amp", ""),
    (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),  # addresses of machines
    (r"\d:\d\d\s+$", ""),
    (r"\\n", " "),
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"\S+\.{_ENDINGS}", ""),  # names of files
    ("[\"']{2,}", '"'),
    (r"\.{2,}", " "),
    (f"[{_PUNCTUATION}]+", " "),
    (r"\s+\.\s+", " "),
)
_AFTER_REPAIR = _rules(
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),  # jc6640
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),  # jc6640vc
    (r"\b\d+[a-zA-Z]+\d+\b", ""),  # 6640vc231
    (r"(?:worldwide\s+)?(?:free\s+)?shipping", ""),
    (r"(?:free\s)?download(?:\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b{_ENDINGS}(?:\simages?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),
    ("\\b\\d+\\.?\\d*[x\u0445\u00d7]\\d+\\.?\\d*\\b", ""),  # 1920x1080, with x, Cyrillic x or the sign
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", r"\1 "),
    (r"\s+", " "),
    # Blanks at the ends stay until all is done, so behind one these four find nothing.
    ("^[\"']([\\w\\W]+)[\"']$", r"\1"),
    ("^['_,\\-:;]", ""),
    ("['_,\\-:+]$", ""),
    (r"^\.\S+$", ""),
)


def clean_caption(caption: str) -> str:
    """A caption as LlamaGen's T5 encoder gets it: two passes of the cleaning.

    Raises:
        BadInput: its markup is of a kind that the reference's parser refuses, too (`<![name ...]>`).
        MissingExtra: ftfy is not installed.
    """
    return clean_once(clean_once(caption))


def clean_once(caption: str) -> str:
    """One pass of the cleaning.

    Raises:
        BadInput, MissingExtra: see `clean_caption`.
    """
    ftfy = need("ftfy", extra="llamagen", what="LlamaGen's caption cleaning")
    text = _apply(_BEFORE_MARKUP, unquote_plus(caption).strip().lower())
    text = _apply(_AFTER_MARKUP, text_of_markup(text))
    if len(re.findall("[-_]", text)) > 3:  # this-is-my-cute-cat
        text = re.sub("[-_]", " ", text)
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return _apply(_AFTER_REPAIR, text).strip()


def _apply(rules: _Rules, text: str) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def text_of_markup(text: str) -> str:
    """What is left of a text without its HTML tags, comments and declarations, references replaced.

    Raises:
        BadInput: Python's parser refuses it.
    """
    parser = _Text()
    try:
        parser.feed(text)
        parser.close()
    except AssertionError as error:
        raise BadInput(
            f"the caption {shorten(text)} has markup that neither LlamaGen's own cleaning nor this one can "
            f"read ({error}): take it out of the prompt"
        ) from error
    return "".join(parser.found)


class _Text(HTMLParser):
    """Collects what Beautiful Soup counts as a document's text."""

    HIDDEN = frozenset({"rt", "rp", "style", "script", "template"})
    EMPTY = frozenset(
        (
            *(
                "area",
                "base",
                "br",
                "col",
                "embed",
                "hr",
                "img",
                "input",
                "keygen",
                "link",
                "menuitem",
                "meta",
            ),
            *(
                "param",
                "source",
                "track",
                "wbr",
                "basefont",
                "bgsound",
                "command",
                "frame",
                "image",
                "isindex",
            ),
            *("nextid", "spacer"),
        )
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag not in self.EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """`<tag/>` is opened and closed at once."""

    def handle_endtag(self, tag: str) -> None:
        """Close the tag and all that were opened in it; a tag that is not open closes nothing."""
        if tag in self._open:
            last = len(self._open) - 1 - self._open[::-1].index(tag)
            del self._open[last:]

    def handle_data(self, data: str) -> None:
        if not self.HIDDEN.intersection(self._open):
            self.found.append(data)

    def handle_entityref(self, name: str) -> None:
        self.handle_data(html5.get(f"{name};", f"&{name}"))

    def handle_charref(self, name: str) -> None:
        number, rest = _number(name)
        self.handle_data(("" if number is None else _character(number)) + rest)

    def unknown_decl(self, data: str) -> None:
        if data.upper().startswith("CDATA["):
            self.found.append(data[len("CDATA[") :] or " ")  # Beautiful Soup makes a blank of an empty one


def _number(name: str) -> tuple[int | None, str]:
    """The number of a character reference, and text after it where no semicolon ended it."""
    base, digits = (16, name[1:]) if name[:1] in ("x", "X") else (10, name)
    match = re.match("[0-9a-fA-F]+" if base == 16 else "[0-9]+", digits)
    if match is None:
        return None, digits
    return int(match[0][:20], base), digits[match.end() :]  # 20 digits say that it is beyond all characters


def _character(number: int) -> str:
    """The character of a reference's number, as the HTML standard repairs wrong ones."""
    if number == 0 or number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        return "\ufffd"
    if 0x80 <= number <= 0x9F:
        return bytes([number]).decode("cp1252", "replace").replace("\ufffd", chr(number))
    return chr(number)
