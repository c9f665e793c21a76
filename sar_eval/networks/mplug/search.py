"""The beam search that ends an mPLUG answer, with the original's rules.

Rules: `TextGenerator._fast_translate_batch` in modelscope/models/multi_modal/mplug/predictor.py
(modelscope 1.40.2). A text of n tokens scores log P / ((5 + n) / 6)^0.6. The end token cannot come
before the least length. A question's search stops when its best beam ends (or at the greatest
length); all its beams are then hypotheses. A lower beam that ends is stored and also goes on.

So where the best two-token continuation of the best first tokens ends, nothing was stored before and
nothing stored with it is better: its first token is the answer, after two steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

ALPHA = 0.6


class Decoding(Protocol):
    """A decoder in the midst of answering several questions."""

    def advance(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """Append a token to each beam; a question that is not named any more is forgotten.

        Args:
            tokens: `[Q, B]`.
            rows: `[Q, B]`, the beam each goes on from, counted through the last call's beams
                `[Q', B']` question by question (one beam each after the start).

        Returns:
            Logits of the next token `[Q, B, V]`, float32.
        """
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """Of the search.

    Attributes:
        beams: how many continuations are followed.
        shortest: tokens before the end token may come.
        longest: tokens of an answer, the end token included.
        start: id that begins every text.
        end: id that ends it.
    """

    beams: int = 5
    shortest: int = 1
    longest: int = 10
    start: int = 101
    end: int = 102


@dataclass(slots=True)
class Found:
    """What came of one question.

    Attributes:
        hypotheses: score and ids (start token first), the best first, at most as many as beams.
        steps: tokens that were searched.
    """

    hypotheses: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)
    steps: int = 0

    @property
    def ids(self) -> tuple[int, ...]:
        """Of the answer."""
        return self.hypotheses[0][1]


@torch.inference_mode()
def search(first: Tensor, decoding: Decoding, rules: Rules) -> list[Found]:
    """The best answers to each question.

    Args:
        first: logits of the first token `[Q, V]`, float32, after the start token.
        decoding: gives those that follow.
        rules: of the search.
    """
    found = [Found() for _ in range(len(first))]
    asked = list(range(len(first)))
    logits, sums = first[:, None], first.new_zeros(len(first), 1)
    texts = torch.full((len(first), 1, 1), rules.start, device=first.device)
    for step in range(rules.longest):
        width = logits.shape[1]
        scores, parents, tokens, sums = _best(logits, sums, step, rules)
        texts = torch.cat([texts.take_along_dim(parents[..., None], 1), tokens[..., None]], 2)
        ended = (tokens == rules.end) | (step + 1 == rules.longest)
        closed = ended[:, :1]
        _store(ended | closed, scores, texts, [found[number] for number in asked])
        going = (~closed[:, 0]).nonzero()[:, 0]
        asked = [asked[place] for place in going.tolist()]
        for number in asked:
            found[number].steps = step + 1
        if not asked:
            break
        rows = going[:, None] * width + parents[going]
        texts, sums, tokens = texts[going], sums[going], tokens[going]
        logits = decoding.advance(tokens, rows)
    for one in found:
        one.steps += 1
        one.hypotheses = sorted(one.hypotheses, key=lambda told: told[0], reverse=True)[: rules.beams]
    return found


def _best(logits: Tensor, sums: Tensor, step: int, rules: Rules) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Score, parent, token and log P of the best continuations, `[Q, B]` each."""
    chances = logits.softmax(-1).log()  # the original's two steps, which round otherwise than log_softmax
    if step < rules.shortest:
        chances[..., rules.end] = -1e20
    penalty = ((5.0 + (step + 1)) / 6.0) ** ALPHA
    scores = ((chances + sums[..., None]) / penalty).flatten(1)
    best, places = scores.topk(rules.beams, -1)
    vocabulary = logits.shape[-1]
    return best, places // vocabulary, places % vocabulary, best * penalty


def _store(ended: Tensor, scores: Tensor, texts: Tensor, found: Sequence[Found]) -> None:
    if not ended.any():
        return
    told, ids = scores.tolist(), texts.tolist()
    for question, beam in ended.nonzero().tolist():
        found[question].hypotheses.append((told[question][beam], tuple(ids[question][beam])))
