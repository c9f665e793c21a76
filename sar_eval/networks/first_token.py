"""Probabilities of listed answers by their first tokens, as GenEval 2, PairComp and VQAScore take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sar_eval.answers import Asked
from sar_eval.errors import BadInput


@dataclass(frozen=True, slots=True)
class ListedIds:
    """First tokens of the spellings of an answer.

    Attributes:
        expect: one for each spelling, in its order; some may be the same.
        distinct: the same without repeats, and without tokens that are only blanks: where a tokenizer has
            no piece for " 4", its first token is the blank of every other answer, too.
        against: those of the other answers, neither repeated, nor blank, nor in `distinct`.
    """

    expect: tuple[int, ...]
    distinct: tuple[int, ...]
    against: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Masses:
    """Sums of probabilities over the ids of `ListedIds`, at the first new token."""

    mass: float
    distinct: float
    against: float


def first_ids(tokenizer: Any, spellings: Sequence[str]) -> tuple[int, ...]:
    """The first token of each spelling, as "Yes" and " yes", by a tokenizer of transformers."""
    return tuple(int(tokenizer.encode(text, add_special_tokens=False)[0]) for text in spellings)


def piece_ids(tokenizer: Any, spellings: Sequence[str]) -> tuple[int, ...]:
    """The tokens that are called so in the vocabulary; a spelling that is no piece of it has none."""
    vocabulary = tokenizer.get_vocab()
    return tuple(int(vocabulary[text]) for text in spellings if text in vocabulary)


def listed_ids(tokenizer: Any, asked: Asked) -> ListedIds:
    """The ids of an answer's spellings and of those of the other answers.

    Raises:
        BadInput: none of the expected spellings is a piece of the vocabulary, where they must be.
    """
    find = piece_ids if asked.are_pieces else first_ids
    expected, others = find(tokenizer, asked.expect), find(tokenizer, asked.against)
    if not expected:
        raise BadInput(f"none of {', '.join(asked.expect)} is a piece of the network's vocabulary")
    distinct = tuple(i for i in dict.fromkeys(expected) if tokenizer.decode([i]).strip())
    rest = tuple(i for i in dict.fromkeys(others) if i not in distinct and tokenizer.decode([i]).strip())
    return ListedIds(expected, distinct, rest)


def sum_masses(probabilities: Tensor, ids: ListedIds) -> Masses:
    """Sums in float64 over float32 probabilities `[V]`; `mass` counts an id as often as it is listed."""
    return Masses(
        *(sum(float(probabilities[i]) for i in of) for of in (ids.expect, ids.distinct, ids.against))
    )
