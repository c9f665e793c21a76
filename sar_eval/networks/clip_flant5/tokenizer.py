"""T5's tokenizer as the official code uses it: the slow one of transformers 4, in its `legacy` form.

transformers 5 tokenizes some texts otherwise (decomposed accents, U+0085, a text that ends in `</s>`), so
the SentencePiece model is asked directly. Special tokens that a text spells out are tokens, as there.
"""

from __future__ import annotations

import re
from pathlib import Path

from sar_eval.discover import need
from sar_eval.documents import read_json
from sar_eval.errors import BadInput

MODEL, CONFIG = "spiece.model", "tokenizer_config.json"
PAD, END, UNKNOWN = 0, 1, 2
SPECIAL = {"<pad>": PAD, "</s>": END, "<unk>": UNKNOWN}
EXTRA_IDS = 100
_MARKED = re.compile(r"(<pad>|</s>|<unk>|<extra_id_(?:0|[1-9]\d{0,6})>)")


class T5Tokenizer:
    """Texts to ids; the ids above the model's are `<extra_id_0>` (the last) and so on downwards."""

    def __init__(self, folder: Path) -> None:
        """Read `spiece.model`.

        Raises:
            BadInput: it is missing, damaged, or of another network: T5's begins with pad, end, unknown.
            MissingExtra: sentencepiece is not installed.
        """
        sentencepiece = need("sentencepiece", extra="scorers", what="scorer 'vqascore'")
        path = folder / MODEL
        if not path.is_file():
            raise BadInput(
                f"no {path}: it holds T5's word pieces; `sar-eval fetch scorers vqascore` gets it"
            )
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise BadInput(f"{path} is no SentencePiece model: {error}") from error
        found = (self._pieces.pad_id(), self._pieces.eos_id(), self._pieces.unk_id())
        if found != (PAD, END, UNKNOWN):
            raise BadInput(
                f"{path} is not T5's: its pad, end and unknown are {found}, not {PAD, END, UNKNOWN}"
            )
        self._extra_ids = _extra_ids(folder / CONFIG)

    def __len__(self) -> int:
        """How many ids there are: 32,100 of FlanT5, fewer than its embedding has rows."""
        return int(self._pieces.get_piece_size()) + self._extra_ids

    def encode(self, text: str) -> list[int]:
        """Ids of a text, and `</s>` at the end unless the text itself ends in one."""
        ids: list[int] = []
        parts = _MARKED.split(text)
        for number, part in enumerate(parts):
            if number % 2:
                ids += self._special(part)
            elif part:
                ids += self._pieces.encode(self._stripped(parts, number))
        return ids if ids[-1:] == [END] else [*ids, END]

    def _special(self, token: str) -> list[int]:
        if token in SPECIAL:
            return [SPECIAL[token]]
        number = int(token[len("<extra_id_") : -1])
        if number >= self._extra_ids:  # no token of this tokenizer
            return list(self._pieces.encode(token))
        return [len(self) - 1 - number]

    @staticmethod
    def _stripped(parts: list[str], number: int) -> str:
        """The text between two special tokens: the extra ones swallow the blanks beside them."""
        part = parts[number]
        if number and parts[number - 1].startswith("<extra"):
            part = part.lstrip()
        if number + 1 < len(parts) and parts[number + 1].startswith("<extra"):
            part = part.rstrip()
        return part


def _extra_ids(config: Path) -> int:
    found = read_json(config) if config.is_file() else {}
    number = found.get("extra_ids", EXTRA_IDS) if isinstance(found, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= 1_000_000:
        raise BadInput(f"{config}: extra_ids {number!r} must be a whole number")
    return number
