"""Captions as they come, which are anyone's, as texts to train on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sar_eval.tokenization.reasons import Refused

MAX_NESTING = 2  # a column of lists of texts, in a list of columns


def usable_captions(cells: Sequence[Any], length: tuple[int, int]) -> tuple[str, ...]:
    """The texts among the cells of a picture, each once, without blanks around them.

    Args:
        cells: texts, lists of texts, None, or what else a table may hold, which counts as nothing.
        length: characters, least and most.

    Raises:
        Refused: none is left.
    """
    found = list(dict.fromkeys(_texts(cells, MAX_NESTING)))
    if not found:
        raise Refused("no_caption")
    kept = tuple(text for text in found if length[0] <= len(text) <= length[1])
    if not kept:
        raise Refused("caption_length", f"{len(found[0])} characters")
    return kept


def _texts(cells: Sequence[Any], depth: int) -> Iterator[str]:
    for cell in cells:
        if isinstance(cell, str):
            if (text := cell.strip()) and _is_storable(text):
                yield text
        elif isinstance(cell, list | tuple) and depth:
            yield from _texts(cell, depth - 1)


def _is_storable(text: str) -> bool:
    """Neither NUL characters nor halves of characters: no file and no tokenizer takes those."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
