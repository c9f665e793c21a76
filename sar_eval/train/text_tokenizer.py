"""The text tokenizer of a training, as transformers saves it beside the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from sar_eval.errors import BadInput
from sar_eval.families.demo import SPECIAL_TOKENS
from sar_eval.families.locate import locate_folder
from sar_eval.families.text_tokenizer import (
    ADDED,
    FAST,
    MERGES,
    SETTINGS,
    SPECIAL,
    VOCABULARY,
    read_text_tokenizer,
)

FILES = [FAST, VOCABULARY, MERGES, ADDED, SPECIAL, SETTINGS]


def find_text_tokenizer(name: str) -> tuple[str, Path]:
    """Name (of the hub with its commit) and folder of a text tokenizer; no weights are downloaded.

    Raises:
        UnknownName: there is none of that name.
        BadInput: the folder has none.
    """
    return locate_folder(name, "text tokenizer", FILES)


def load_text_tokenizer(folder: Path) -> Any:
    """The text tokenizer in a folder, of either form (see `families.text_tokenizer`).

    Raises:
        BadInput: its files are missing or cannot be read.
    """
    plain = read_text_tokenizer(folder)
    if not (folder / FAST).is_file():
        return PreTrainedTokenizerFast(tokenizer_object=plain)
    try:
        # Not AutoTokenizer: for `model_type: qwen2` it builds Qwen2's own class, which adds a token.
        return PreTrainedTokenizerFast.from_pretrained(folder)
    except Exception as error:  # whatever transformers does not like about the settings beside it
        first = (str(error).splitlines() or [""])[0]
        raise BadInput(
            f"the text tokenizer in {folder} cannot be loaded: {type(error).__name__}: {first}"
        ) from error


def add_special_tokens(tokenizer: Any, where: str) -> None:
    """Add the seven tokens of the family after the others, where they are not there already.

    Ids must be 0 to len(tokenizer) - 1: the visual codes' begin after them.

    Raises:
        BadInput: they are not, as where a vocabulary has gaps.
    """
    tokens = [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    tokenizer.add_tokens(tokens, special_tokens=True)
    highest = max(tokenizer.get_vocab().values())
    if highest != len(tokenizer) - 1:
        raise BadInput(
            f"{where}: the text tokenizer has {len(tokenizer)} tokens, but ids up to {highest}: visual "
            "codes begin after its last id, so it must have no gaps"
        )
