"""mPLUG's tokenizer: BERT's uncased WordPiece, for questions and answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from sar_eval.errors import BadInput

MAX_LENGTH = 25  # ids of a question, [CLS] and [SEP] included (modelscope's MPlugPreprocessor)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
START, END = 101, 102  # constants in the original's search


class Encoded(NamedTuple):
    """A tokenized question.

    Attributes:
        ids: `MAX_LENGTH` of them, padded with [PAD].
        length: number of ids before the padding; 2 for an empty question.
        truncated: the question was cut.
    """

    ids: tuple[int, ...]
    length: int
    truncated: bool


class MplugTokenizer:
    """Tokenizer of a `vocab.txt`.

    Attributes:
        words: the vocabulary; a word's id is its index.
        yes_id: id of the word "yes".
        no_id: id of the word "no".
    """

    def __init__(self, path: Path, size: int) -> None:
        """Read the vocabulary, one word a line.

        Raises:
            BadInput: the file is unreadable, does not have `size` lines, or lacks a required word.
        """
        try:
            self.words = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"cannot read {path}: {error}; `sar-eval fetch dpg` downloads it") from error
        if len(self.words) != size:
            raise BadInput(f"{path} has {len(self.words)} words, but vocab_size is {size}")
        ids = {word: number for number, word in enumerate(self.words)}
        if missing := [word for word in (*SPECIAL, "yes", "no") if word not in ids]:
            raise BadInput(f"{path} has no word {missing[0]!r}")
        if (ids["[CLS]"], ids["[SEP]"]) != (START, END):
            raise BadInput(f"{path}: [CLS] and [SEP] must be ids {START} and {END}, as in BERT's")
        self.yes_id, self.no_id, self._padding_id = ids["yes"], ids["no"], ids["[PAD]"]
        self._special_ids = {ids[word] for word in SPECIAL}
        self._tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
        self._tokenizer.normalizer = BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()

    def encode(self, question: str) -> Encoded:
        """Tokenize a question; names of special tokens in it are plain text."""
        pieces = self._tokenizer.encode(question.lower(), add_special_tokens=False).ids
        ids = [START, *pieces[: MAX_LENGTH - 2], END]
        padding = [self._padding_id] * (MAX_LENGTH - len(ids))
        return Encoded((*ids, *padding), len(ids), len(pieces) > MAX_LENGTH - 2)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids without special tokens, as transformers' slow BERT tokenizer without clean-up."""
        words = [self.words[number] for number in ids if number not in self._special_ids]
        return " ".join(words).replace(" ##", "").strip()
