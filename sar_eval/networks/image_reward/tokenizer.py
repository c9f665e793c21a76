"""ImageReward's tokenizer: bert-base-uncased's WordPiece and BLIP's two tokens."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from sar_eval.errors import BadInput

MAX_LENGTH = 35  # ids of a prompt with [CLS] and [SEP] (image-reward 1.5, `score`)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ADDED = ("[DEC]", "[ENC]")  # BLIP appends them to the vocabulary


class Encoded(NamedTuple):
    """A tokenized prompt.

    Attributes:
        ids: `MAX_LENGTH` of them, padded with [PAD].
        length: number of ids before the padding.
        truncated: the prompt was cut.
    """

    ids: tuple[int, ...]
    length: int
    truncated: bool


class PromptTokenizer:
    """Tokenizer of a `vocab.txt`, one word a line; a word's id is its line.

    Attributes:
        size: number of ids, with BLIP's two.
    """

    def __init__(self, path: Path) -> None:
        """Read the vocabulary.

        Raises:
            BadInput: the file is unreadable or lacks a special token.
        """
        try:
            words = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"cannot read {path}: {error}") from error
        ids = {word: number for number, word in enumerate(words)}
        if missing := [word for word in SPECIAL if word not in ids]:
            raise BadInput(f"{path} has no word {missing[0]!r}: it is no vocabulary of bert-base-uncased")
        self._pad, self._start, self._end = (ids[word] for word in ("[PAD]", "[CLS]", "[SEP]"))
        self._tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
        self._tokenizer.normalizer = BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()
        special = [AddedToken(word, special=True, normalized=False) for word in (*SPECIAL, *ADDED)]
        self._tokenizer.add_special_tokens(special)
        self.size = self._tokenizer.get_vocab_size()

    def encode(self, prompt: str) -> Encoded:
        """Tokenize a prompt. The names of special tokens in it are those tokens, as officially."""
        pieces = self._tokenizer.encode(prompt, add_special_tokens=False).ids
        ids = [self._start, *pieces[: MAX_LENGTH - 2], self._end]
        padding = [self._pad] * (MAX_LENGTH - len(ids))
        return Encoded((*ids, *padding), len(ids), len(pieces) > MAX_LENGTH - 2)
