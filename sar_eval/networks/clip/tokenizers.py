"""Token ids of texts, by the three rules in use for CLIP's one vocabulary.

- `open_clip_tokens`: as open_clip and HPSv2. ftfy, HTML entities twice, white space collapsed, lower case.
- `openai_tokens`: the same, but for the spelling of the special tokens when a prompt holds them literally.
- `hf_tokens`: as Hugging Face's fast tokenizer. NFC, white space collapsed, lower case; neither ftfy nor
  HTML entities, so that curly quotes or `&amp;` give other ids.

All cut to 77 ids with the end token last. `hf_tokens_without_end` cuts blindly, as torchmetrics does.
"""

from __future__ import annotations

import gzip
import html
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from sar_eval.discover import need

CONTEXT = 77
START, END = 49406, 49407  # ids
MERGES = 49152 - 256 - 2  # of the file's lines, those that the vocabulary has
OPEN_CLIP_SPECIAL = ("<start_of_text>", "<end_of_text>")
OPENAI_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokens(NamedTuple):
    """Ids of a text, at most 77 and not padded, and whether its end was cut off."""

    ids: tuple[int, ...]
    truncated: bool


def open_clip_tokens(text: str) -> Tokens:
    """As open_clip's `SimpleTokenizer` and HPSv2's."""
    return _cut(_simple_ids(text, OPEN_CLIP_SPECIAL))


def openai_tokens(text: str) -> Tokens:
    """As OpenAI's `clip.tokenize(text, truncate=True)`."""
    return _cut(_simple_ids(text, OPENAI_SPECIAL))


def hf_tokens(text: str) -> Tokens:
    """As `CLIPTokenizerFast(text, truncation=True, max_length=77)`."""
    return _cut(_hf_ids(text))


def hf_tokens_without_end(text: str) -> Tokens:
    """As torchmetrics 1.9: a text of more than 75 tokens loses its end token.

    The network then reads the greatest id that is left, the start token's, which has seen no word: all
    such texts have the same features (`functional/multimodal/clip_score.py`).
    """
    ids = (START, *_hf_ids(text), END)
    return Tokens(ids[:CONTEXT], truncated=len(ids) > CONTEXT)


def _cut(ids: list[int]) -> Tokens:
    return Tokens((START, *ids[: CONTEXT - 2], END), truncated=len(ids) > CONTEXT - 2)


def _simple_ids(text: str, special: tuple[str, str]) -> list[int]:
    ids: list[int] = []
    for word in _simple_pattern(special).findall(_clean(text)):
        if word in special:
            ids.append(START if word == special[0] else END)
        else:
            ids += [token.id for token in _bpe().tokenize(_as_characters(word))]
    return ids


def _hf_ids(text: str) -> list[int]:
    ids: list[int] = _hf_tokenizer().encode(_valid(text), add_special_tokens=False).ids
    return ids


def _clean(text: str) -> str:
    ftfy: Any = need("ftfy", extra="scorers", what="CLIP")
    fixed = ftfy.fix_text(text)  # which also replaces half surrogates
    return " ".join(html.unescape(html.unescape(fixed)).split()).lower()


def _valid(text: str) -> str:
    """With U+FFFD for half surrogates, which UTF-8 cannot hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@cache
def _simple_pattern(special: tuple[str, str]) -> Any:
    regex: Any = need("regex", extra="scorers", what="CLIP")
    names = "|".join(map(regex.escape, special))
    return regex.compile(f"{names}|{WORDS}", regex.IGNORECASE)


def _as_characters(word: str) -> str:
    return "".join(byte_characters()[byte] for byte in word.encode("utf-8", "replace"))


@cache
def byte_characters() -> dict[int, str]:
    """A printable character for each byte, in the vocabulary's order: itself, or one from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


@cache
def merges() -> list[tuple[str, str]]:
    """Pairs of pieces that byte-pair encoding joins, in order (open_clip ships OpenAI's file)."""
    tokenizer = need("open_clip", extra="scorers", what="CLIP").tokenizer
    lines = gzip.decompress(Path(tokenizer.default_bpe()).read_bytes()).decode().split("\n")
    return [(left, right) for left, _, right in (line.partition(" ") for line in lines[1 : MERGES + 1])]


@cache
def vocabulary() -> dict[str, int]:
    """Ids by piece, with Hugging Face's names of the special tokens."""
    characters = list(byte_characters().values())
    words = [*characters, *(f"{c}</w>" for c in characters), *(a + b for a, b in merges()), *OPENAI_SPECIAL]
    return {word: number for number, word in enumerate(words)}


@cache
def _bpe() -> Any:
    from tokenizers.models import BPE

    affixes = {"continuing_subword_prefix": "", "end_of_word_suffix": "</w>"}
    return BPE(vocab=vocabulary(), merges=merges(), unk_token=OPENAI_SPECIAL[1], **affixes)


@cache
def _hf_tokenizer() -> Any:
    """The pipeline that transformers builds for CLIP (`models/clip/tokenization_clip.py`)."""
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

    tokenizer = Tokenizer(_bpe())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    names = "|".join(name.replace("|", r"\|") for name in OPENAI_SPECIAL)
    split = pre_tokenizers.Split(Regex(f"{names}|{WORDS}"), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.add_special_tokens(list(OPENAI_SPECIAL))
    return tokenizer
