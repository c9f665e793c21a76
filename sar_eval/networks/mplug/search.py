"""Beam search for mPLUG's answers, with the original's rules.

Rules: `TextGenerator._fast_translate_batch` in modelscope/models/multi_modal/mplug/predictor.py
(modelscope 1.40.2). A text of n tokens has the score log P / ((5 + n) / 6)^0.6. The end token is excluded
before the minimum length. A question's search stops when its best beam ends (or at the maximum length);
all its beams are then hypotheses. A lower beam that ends is stored, and is also continued.

A search whose best beam ends with the second token is therefore finished after two steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

ALPHA = 0.6  # exponent of the length penalty


class StepDecoder(Protocol):
    """A decoder with the state of several questions' beams."""

    def advance(self, tokens: Tensor, beams: Tensor) -> Tensor:
        """Append a token to each beam; questions without a beam in `beams` are dropped.

        Args:
            tokens: `[Q, B]`.
            beams: `[Q, B]`, the beam that each token continues: its index into the last call's beams
                `[Q', B']`, flattened (one beam each after the start).

        Returns:
            Logits of the next token `[Q, B, V]`, float32.
        """
        ...


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """Settings of the search.

    Attributes:
        num_beams: beams of each question.
        min_length: tokens before the end token.
        max_length: tokens of an answer, the end token included.
        start_id: id of the token before the first one.
        end_id: id of the end token.
    """

    num_beams: int = 5
    min_length: int = 1
    max_length: int = 10
    start_id: int = 101
    end_id: int = 102


@dataclass(slots=True)
class SearchResult:
    """The result for one question.

    Attributes:
        hypotheses: score and ids (start token first), best first, at most `num_beams`.
        steps: number of tokens searched.
    """

    hypotheses: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)
    steps: int = 0

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of the best hypothesis."""
        return self.hypotheses[0][1]


@torch.inference_mode()
def beam_search(first_logits: Tensor, decoder: StepDecoder, config: SearchConfig) -> list[SearchResult]:
    """Search the answers to several questions at once.

    Args:
        first_logits: of the first token `[Q, V]`, float32, after the start token.
        decoder: computes the logits of the following tokens.
        config: of the search.
    """
    results = [SearchResult() for _ in range(len(first_logits))]
    active = list(range(len(first_logits)))  # questions whose search is not finished
    logits, log_probs = first_logits[:, None], first_logits.new_zeros(len(first_logits), 1)
    texts = torch.full((len(first_logits), 1, 1), config.start_id, device=first_logits.device)
    for step in range(config.max_length):
        width = logits.shape[1]
        scores, parents, tokens, log_probs = _top_beams(logits, log_probs, step, config)
        texts = torch.cat([texts.take_along_dim(parents[..., None], 1), tokens[..., None]], 2)
        ended = (tokens == config.end_id) | (step + 1 == config.max_length)
        finished = ended[:, :1]
        _store(ended | finished, scores, texts, [results[question] for question in active])
        remaining = (~finished[:, 0]).nonzero()[:, 0]
        active = [active[index] for index in remaining.tolist()]
        for question in active:
            results[question].steps = step + 1
        if not active:
            break
        beams = remaining[:, None] * width + parents[remaining]
        texts, log_probs, tokens = texts[remaining], log_probs[remaining], tokens[remaining]
        logits = decoder.advance(tokens, beams)
    for result in results:
        result.steps += 1
        ranked = sorted(result.hypotheses, key=lambda hypothesis: hypothesis[0], reverse=True)
        result.hypotheses = ranked[: config.num_beams]
    return results


def _top_beams(
    logits: Tensor, log_probs: Tensor, step: int, config: SearchConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Score, parent beam, token and log P of the best continuations, `[Q, B]` each."""
    token_log_probs = logits.softmax(-1).log()  # as the original; log_softmax rounds differently
    if step < config.min_length:
        token_log_probs[..., config.end_id] = -1e20
    penalty = ((5.0 + (step + 1)) / 6.0) ** ALPHA
    scores = ((token_log_probs + log_probs[..., None]) / penalty).flatten(1)
    top, indices = scores.topk(config.num_beams, -1)
    vocab_size = logits.shape[-1]
    return top, indices // vocab_size, indices % vocab_size, top * penalty


def _store(ended: Tensor, scores: Tensor, texts: Tensor, results: Sequence[SearchResult]) -> None:
    """Add the ended beams `[Q, B]` to the hypotheses of their questions."""
    if not ended.any():
        return
    beam_scores, ids = scores.tolist(), texts.tolist()
    for question, beam in ended.nonzero().tolist():
        results[question].hypotheses.append((beam_scores[question][beam], tuple(ids[question][beam])))
