"""The text tokenizer of a checkpoint: `tokenizer.json`, or the files that Qwen2's slow tokenizer saves.

Trainers that load the slow tokenizer (`use_fast=False`, as SimpleAR's do) save `vocab.json`,
`merges.txt` and `added_tokens.json`. The same tokenizer is built of them as transformers builds: byte-level
BPE with Qwen2's rule for splitting text into words, and the added tokens under their ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sar_eval.documents import check_text, read_bytes, read_json, shorten
from sar_eval.errors import BadInput

FAST, VOCABULARY, MERGES, ADDED = "tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json"
SETTINGS, SPECIAL = "tokenizer_config.json", "special_tokens_map.json"
# Of Qwen2's tokenizer in transformers: contractions, words, single digits, signs, newlines, blanks.
WORDS = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"""
    r""" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)


def tokenizer_files(folder: Path) -> list[Path]:
    """The files that the text tokenizer is made of.

    Raises:
        BadInput: there are none.
    """
    if (folder / FAST).is_file():
        return [folder / FAST]
    if (folder / VOCABULARY).is_file() and (folder / MERGES).is_file():
        names = (VOCABULARY, MERGES, ADDED, SPECIAL, SETTINGS)
        return [folder / name for name in names if (folder / name).is_file()]
    raise BadInput(
        f"no {FAST} in checkpoint {folder}, and not both of {VOCABULARY} and {MERGES}: copy the text "
        "tokenizer's files there, from the checkpoint that the training began with"
    )


def read_text_tokenizer(folder: Path) -> Any:
    """The `tokenizers.Tokenizer` of a checkpoint's folder.

    Raises:
        BadInput: its files are missing or unreadable, or do not fit together.
    """
    paths = tokenizer_files(folder)
    if paths[0].name != FAST:
        return _build(folder)
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(paths[0]))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # The library raises plain Exception, and its panics are no subclass of that.
        raise BadInput(f"{paths[0]} is no readable tokenizer: {error}") from error


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text, special tokens in it parsed, none added, nothing cut off or padded.

    Raises:
        BadInput: the text has a lone surrogate.
    """
    check_text(text.replace("\0", ""), "a prompt")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def token_ids(tokenizer: Any, tokens: Iterable[str], where: Path) -> list[int]:
    """Ids of tokens that a family needs.

    Raises:
        BadInput: the tokenizer, of the file `where`, lacks one.
    """
    ids = {token: tokenizer.token_to_id(token) for token in tokens}
    if missing := [token for token, number in ids.items() if number is None]:
        raise BadInput(f"{where} has no token {missing[0]}: is it this checkpoint's tokenizer?")
    return list(ids.values())


def _build(folder: Path) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary, merges = _vocabulary(folder / VOCABULARY), _merges(folder / MERGES)
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise BadInput(f"{folder / VOCABULARY} and {MERGES} do not fit together: {error}") from error
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(WORDS), behavior="isolated", invert=False)
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pieces])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    _add_tokens(tokenizer, folder)
    return tokenizer


def _vocabulary(path: Path) -> dict[str, int]:
    table = read_json(path)
    if not isinstance(table, dict) or not all(
        type(number) is int and number >= 0 for number in table.values()
    ):
        raise BadInput(f"{path} must be a table of token to id")
    if sorted(table.values()) != list(range(len(table))):
        raise BadInput(f"{path}: the ids are not 0 to {len(table) - 1}, each once")
    return table


def _merges(path: Path) -> list[tuple[str, str]]:
    try:
        lines = read_bytes(path).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8: {error}") from error
    pairs = [
        tuple(line.rstrip("\r").split(" ")) for line in lines if line.strip() and line[:9] != "#version:"
    ]
    if odd := [pair for pair in pairs if len(pair) != 2]:
        raise BadInput(f"{path}: {shorten(' '.join(odd[0]))} is no pair of tokens")
    if not pairs:
        raise BadInput(f"{path} holds no merges: it is no tokenizer of Qwen2")
    return [(pair[0], pair[1]) for pair in pairs]


def _add_tokens(tokenizer: Any, folder: Path) -> None:
    """Add the tokens beside the vocabulary, in the order of their ids."""
    from tokenizers import AddedToken

    tokens, special = _added(folder), _special(folder)
    for number, text in sorted((number, text) for text, number in tokens.items()):
        is_special = text in special or re.fullmatch(r"<\|.*\|>", text) is not None
        add = tokenizer.add_special_tokens if is_special else tokenizer.add_tokens
        add([AddedToken(text, special=is_special, normalized=False)])
        if tokenizer.token_to_id(text) != number:
            raise BadInput(
                f"{folder / ADDED}: {shorten(text)} has id {number}, after {VOCABULARY} it gets "
                f"{tokenizer.token_to_id(text)}: the files are of two tokenizers"
            )


def _added(folder: Path) -> dict[str, int]:
    """Added tokens and their ids, of `added_tokens.json` and of `tokenizer_config.json`."""
    found: dict[str, Any] = {}
    table = _table(folder / SETTINGS).get("added_tokens_decoder")
    for number, entry in table.items() if isinstance(table, dict) else ():
        text = entry.get("content") if isinstance(entry, dict) else None
        found |= {str(text): int(number) if str(number).isascii() and str(number).isdigit() else number}
    found |= _table(folder / ADDED)
    if odd := [text for text, number in found.items() if type(number) is not int or number < 0 or not text]:
        raise BadInput(f"{folder / ADDED}: {shorten(odd[0])} has the id {shorten(found[odd[0]])}")
    return found


def _special(folder: Path) -> set[str]:
    """Texts of the tokens that the settings call special."""
    values = [*_table(folder / SPECIAL).values()]
    values += [v for k, v in _table(folder / SETTINGS).items() if k.endswith(("_token", "special_tokens"))]
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return {str(item.get("content")) if isinstance(item, dict) else str(item) for item in flat}


def _table(path: Path) -> dict[str, Any]:
    data = read_json(path) if path.is_file() else {}
    if not isinstance(data, dict):
        raise BadInput(f"{path} must hold a JSON object")
    return data
