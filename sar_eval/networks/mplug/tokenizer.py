"""mPLUG's word pieces: questions to ids, ids to answers, as BERT's uncased tokenizer does it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from sar_eval.errors import BadInput

LENGTH = 25  # ids of a question, [CLS] and [SEP] included (modelscope's MPlugPreprocessor)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
START, END = 101, 102  # the original's search has these two ids in its code


class Encoded(NamedTuple):
    """A question as the network reads it.

    Attributes:
        ids: `LENGTH` of them, the rest filled with [PAD].
        length: how many are no filling; 2 for a question without a word.
        truncated: its end was cut off.
    """

    ids: tuple[int, ...]
    length: int
    truncated: bool


class Words:
    """The vocabulary of `vocab.txt`.

    Attributes:
        yes: id of the word "yes".
        no: id of the word "no".
    """

    def __init__(self, path: Path, size: int) -> None:
        """Read the vocabulary, whose line numbers are the ids.

        Raises:
            BadInput: unreadable, not of `size` lines, or without a word that is needed.
        """
        try:
            self.words = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"cannot read {path}: {error}; `sar-eval fetch dpg` downloads it") from error
        if len(self.words) != size:
            raise BadInput(f"{path} has {len(self.words)} words, but vocab_size is {size}")
        places = {word: number for number, word in enumerate(self.words)}
        if missing := [word for word in (*SPECIAL, "yes", "no") if word not in places]:
            raise BadInput(f"{path} has no word {missing[0]!r}")
        if (places["[CLS]"], places["[SEP]"]) != (START, END):
            raise BadInput(f"{path}: [CLS] and [SEP] must be ids {START} and {END}, as in BERT's")
        self.yes, self.no, self._padding = places["yes"], places["no"], places["[PAD]"]
        self._special = {places[word] for word in SPECIAL}
        self._tokenizer = Tokenizer(WordPiece(places, unk_token="[UNK]", max_input_chars_per_word=100))
        self._tokenizer.normalizer = BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()

    def encode(self, question: str) -> Encoded:
        """A question's ids; special tokens inside it are plain text."""
        pieces = self._tokenizer.encode(question.lower(), add_special_tokens=False).ids
        kept = [START, *pieces[: LENGTH - 2], END]
        filling = [self._padding] * (LENGTH - len(kept))
        return Encoded((*kept, *filling), len(kept), len(pieces) > LENGTH - 2)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids without special tokens (transformers' slow BERT tokenizer, no clean-up)."""
        words = [self.words[number] for number in ids if number not in self._special]
        return " ".join(words).replace(" ##", "").strip()
