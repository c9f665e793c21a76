"""The text tokenizer of Emu3 from either form of its repository, as one `tokenizers.Tokenizer`.

`BAAI/Emu3-Gen` holds `emu3.tiktoken` (words and their ranks) and `emu3_vision_tokens.txt`; the rule that
splits text into words and the first special tokens are in its code (baaivision/Emu3,
emu3/mllm/tokenization_emu3.py, commit f6ea9aa: Qwen2's rule; `<|endoftext|>`, `<|im_start|>`, `<|im_end|>`,
`<|extra_0|>` to `<|extra_204|>`). There the first special id is a constant, 151,643, the number of the
hub's words; here it is the number of words in the file.

`BAAI/Emu3-Gen-hf` holds a `tokenizer.json`. transformers' converter writes GPT-2's rule for splitting text
into it, by which signs, digits and line ends get other ids than in the original. So only words and special
tokens are taken from that file, and both forms give the original's ids.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sar_eval.documents import read_bytes, read_json, shorten
from sar_eval.errors import BadInput
from sar_eval.families.text_tokenizer import FAST, WORDS

RANKS, VISION_TOKENS = "emu3.tiktoken", "emu3_vision_tokens.txt"
FIRST_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{n}|>" for n in range(205)))


def emu3_tokenizer_files(folder: Path) -> list[Path]:
    """The files that the tokenizer is made of.

    Raises:
        BadInput: there are none.
    """
    if (folder / RANKS).is_file() and (folder / VISION_TOKENS).is_file():
        return [folder / RANKS, folder / VISION_TOKENS]
    if (folder / FAST).is_file():
        return [folder / FAST]
    raise BadInput(
        f"no {FAST} in {folder}, and not both of {RANKS} and {VISION_TOKENS}: copy the text tokenizer's "
        "files there, from the hub's repository"
    )


def read_emu3_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checkpoint's folder; texts must be brought to NFC before.

    Raises:
        BadInput: its files are missing or damaged, or ids are left out or given twice.
    """
    paths = emu3_tokenizer_files(folder)
    if len(paths) == 1:
        return byte_pair_tokenizer(*_read_table(paths[0]), paths[0])
    tokens = [*FIRST_TOKENS, *_read_lines(paths[1])]
    return byte_pair_tokenizer(_read_ranks(paths[0]), tokens, paths[0])


def byte_pair_tokenizer(ranks: Mapping[bytes, int], special: Sequence[str], where: Path) -> Any:
    """A byte-level tokenizer of words and their ranks, special tokens numbered after them.

    A word of the vocabulary is taken whole; else neighbours are merged, of all pairs that make a word the
    one of the lowest rank first, as tiktoken does.

    Args:
        ranks: words and their ids.
        special: tokens in the order of their ids.
        where: file, for messages.

    Raises:
        BadInput: ranks are not 0, 1, ... each once, one of the 256 bytes is no word, or a special token is
            given twice.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

    _check(ranks, special, where)
    letters = byte_letters()
    vocabulary = {_spelled(word, letters): rank for word, rank in ranks.items()}
    by_rank = sorted(ranks, key=ranks.__getitem__)
    merges = [
        (_spelled(a, letters), _spelled(b, letters)) for word in by_rank for a, b in _splits(word, ranks)
    ]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    words = pre_tokenizers.Split(Regex(WORDS), behavior="isolated", invert=False)
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pieces])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    if tokenizer.get_vocab_size() != len(ranks) + len(special):
        raise BadInput(f"{where}: one of its words is spelled as a special token is")
    return tokenizer


def _check(ranks: Mapping[bytes, int], special: Sequence[str], where: Path) -> None:
    if sorted(ranks.values()) != list(range(len(ranks))):
        gap = min(set(range(len(ranks))) - set(ranks.values()))
        raise BadInput(f"{where}: no word has id {gap} (they must be 0 to {len(ranks) - 1}, each once)")
    if missing := [number for number in range(256) if bytes([number]) not in ranks]:
        raise BadInput(f"{where}: byte {missing[0]} is no word of it, so some texts would have no ids")
    if len(set(special)) != len(special):
        twice = next(token for number, token in enumerate(special) if token in special[:number])
        raise BadInput(f"{where}: special token {shorten(twice)} is given twice")


def _splits(word: bytes, ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """All pairs of words that make this one, those of earlier words first."""
    pairs = [(word[:cut], word[cut:]) for cut in range(1, len(word))]
    known = [(left, right) for left, right in pairs if left in ranks and right in ranks]
    return sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def byte_letters() -> list[str]:
    """The printable character by which GPT-2's byte-level spelling writes each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [number for number in range(256) if number not in printable]
    letters = {number: chr(number) for number in printable}
    letters |= {number: chr(256 + place) for place, number in enumerate(others)}
    return [letters[number] for number in range(256)]


def _spelled(word: bytes, letters: Sequence[str]) -> str:
    return "".join(letters[number] for number in word)


def _read_ranks(path: Path) -> dict[bytes, int]:
    """Words and ids of a file of tiktoken's: a line has the word in base64, a blank, the id."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(read_bytes(path).splitlines(), start=1):
        if not line:
            continue
        try:
            coded, rank = line.split()
            word = base64.b64decode(coded, validate=True)
            taken = ranks.setdefault(word, int(rank)) != int(rank) or not word
        except (ValueError, binascii.Error) as error:
            raise BadInput(f"{path}, line {number}: no word in base64 and its id: {error}") from error
        if taken:
            raise BadInput(f"{path}, line {number}: an empty word, or one that has another id above")
    return ranks


def _read_lines(path: Path) -> list[str]:
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8: {error}") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def _read_table(path: Path) -> tuple[dict[bytes, int], list[str]]:
    """Ranks and special tokens of a `tokenizer.json`."""
    data = read_json(path)
    model = data.get("model") if isinstance(data, dict) else None
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    added = dict(_added(data.get("added_tokens") if isinstance(data, dict) else None, path))
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise BadInput(f"{path} has no vocabulary of a byte-level BPE (model.vocab)")
    numbers = set(added.values())
    words = {w: rank for w, rank in vocabulary.items() if type(rank) is not int or rank not in numbers}
    ranks = _ranks(words, path)
    if sorted(added.values()) != list(range(len(ranks), len(ranks) + len(added))):
        raise BadInput(
            f"{path}: ids of its special tokens do not follow the words' {len(ranks)}, each once"
        )
    tokens = sorted(added, key=added.__getitem__)
    tokens[: len(FIRST_TOKENS)] = FIRST_TOKENS[: len(tokens)]  # whatever a converter has called them
    return ranks, tokens


def _added(tokens: Any, path: Path) -> Iterator[tuple[str, int]]:
    for token in tokens if isinstance(tokens, list) else ():
        text, number = (token.get("content"), token.get("id")) if isinstance(token, dict) else (None, None)
        if not isinstance(text, str) or type(number) is not int or not text:
            raise BadInput(f"{path}: {shorten(token)} is no special token with an id")
        yield text, number


def _ranks(vocabulary: Mapping[str, Any], path: Path) -> dict[bytes, int]:
    numbers = {letter: number for number, letter in enumerate(byte_letters())}
    ranks: dict[bytes, int] = {}
    for word, rank in vocabulary.items():
        if type(rank) is not int or not word or not all(letter in numbers for letter in word):
            raise BadInput(
                f"{path}: {shorten(word)} with id {shorten(rank)} is no word in byte-level spelling"
            )
        ranks[bytes(numbers[letter] for letter in word)] = rank
    return ranks
