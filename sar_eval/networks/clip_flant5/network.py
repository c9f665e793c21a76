"""The network: a CLIP tower, two linear layers, and T5 with a head of its own.

transformers' T5 for conditional generation ties the head to the embedding whatever its configuration
says, and scales the logits with it; so the two stacks are used alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from sar_eval.networks.clip_flant5.tokenizer import PAD

MORE_TOKENS = 256  # that the longest question of a batch may have beyond the shortest; a picture has 576
IGNORED = -100  # label of a position that is padding


class Question(NamedTuple):
    """A question about a picture, in ids: what stands before and after the picture, and the answer."""

    before: Sequence[int]
    after: Sequence[int]
    answer: Sequence[int]


class ClipFlanT5(nn.Module):
    """Gives the probability of an answer to a question about a picture."""

    def __init__(self, t5: Any, tower: Any, select_layer: int) -> None:
        """Build it with uninitialised weights.

        Args:
            t5: a `T5Config`.
            tower: a `CLIPVisionConfig`.
            select_layer: which of the tower's hidden states is read (-2: the last but one).
        """
        from transformers import CLIPVisionModel
        from transformers.models.t5.modeling_t5 import T5Stack

        super().__init__()
        width = int(t5.d_model)
        self.shared = nn.Embedding(t5.vocab_size, width)
        self.encoder = T5Stack(_stack_config(t5, t5.num_layers, is_decoder=False))
        self.decoder = T5Stack(_stack_config(t5, t5.num_decoder_layers, is_decoder=True))
        del self.encoder.embed_tokens, self.decoder.embed_tokens
        self.lm_head = nn.Linear(width, t5.vocab_size, bias=False)
        # Hidden state 0 is the embedding, so this many layers are run.
        tower.num_hidden_layers += select_layer + 1
        self.tower = CLIPVisionModel(tower)
        self.mm_projector = nn.Sequential(
            nn.Linear(tower.hidden_size, width), nn.GELU(), nn.Linear(width, width)
        )

    def project(self, pixels: Tensor) -> Tensor:
        """The patches of pictures `[N, 3, H, W]` as words of T5, `[N, patches, width]`."""
        features = self.tower(pixel_values=pixels).last_hidden_state[:, 1:]  # without the class token
        projected: Tensor = self.mm_projector(features)
        return projected

    def encode(self, words: Tensor, questions: Sequence[Question]) -> tuple[Tensor, Tensor]:
        """The encoder's states `[N, length, width]`, padded on the right, and their mask `[N, length]`."""
        rows = [
            torch.cat([self._embed(question.before), picture, self._embed(question.after)])
            for picture, question in zip(words, questions, strict=True)
        ]
        lengths = torch.tensor([len(row) for row in rows], device=words.device)
        padded = pad_sequence(rows, batch_first=True)
        mask = (torch.arange(padded.shape[1], device=words.device) < lengths[:, None]).long()
        states = self.encoder(inputs_embeds=padded, attention_mask=mask).last_hidden_state
        return states, mask

    def answer_logits(self, words: Tensor, questions: Sequence[Question], vocabulary: int) -> Tensor:
        """Logits `[N, length, vocabulary]` of every token of the answer, given those before it, float32.

        Args:
            words: the pictures, projected.
            questions: one for each.
            vocabulary: how many ids the tokenizer has; the head may have more rows, which do not count.
        """
        states, mask = self.encode(words, questions)
        answers = [torch.tensor([PAD, *question.answer[:-1]]) for question in questions]
        ids = pad_sequence(answers, batch_first=True, padding_value=PAD).to(words.device)
        hidden = self.decoder(
            inputs_embeds=self.shared(ids), encoder_hidden_states=states, encoder_attention_mask=mask
        ).last_hidden_state
        logits: Tensor = F.linear(hidden, self.lm_head.weight[:vocabulary]).float()
        return logits

    def _embed(self, ids: Sequence[int]) -> Tensor:
        embedded: Tensor = self.shared(torch.tensor(ids, device=self.shared.weight.device))
        return embedded


def answer_scores(logits: Tensor, answers: Sequence[Sequence[int]]) -> list[float]:
    """exp of the mean log-probability of each answer's tokens: for one word and the end, sqrt(P P')."""
    labels = pad_sequence([torch.tensor(ids) for ids in answers], batch_first=True, padding_value=IGNORED)
    labels = labels.to(logits.device)
    losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    means = losses.sum(1) / (labels != IGNORED).sum(1)
    scores: list[float] = (-means).exp().tolist()
    return scores


@torch.inference_mode()
def score_answers(
    network: ClipFlanT5, pixels: Sequence[Tensor], questions: Sequence[Question], vocabulary: int
) -> list[float]:
    """The score of each picture's question, those of similar length in one batch.

    Args:
        network: in evaluation mode.
        pixels: float32 `[3, H, W]` each.
        questions: one for each.
        vocabulary: number of the tokenizer's ids.
    """
    weight, scores = network.shared.weight, dict[int, float]()
    for batch in _similar_lengths([len(question.before) + len(question.after) for question in questions]):
        words = network.project(torch.stack([pixels[i] for i in batch]).to(weight.device, weight.dtype))
        asked = [questions[i] for i in batch]
        found = answer_scores(network.answer_logits(words, asked, vocabulary), [q.answer for q in asked])
        scores |= zip(batch, found, strict=True)
    return [scores[i] for i in range(len(questions))]


def _similar_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """Batches of indices: one prompt of thousands of words would pad all others to its length."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not batches or lengths[index] > lengths[batches[-1][0]] + MORE_TOKENS:
            batches.append([])
        batches[-1].append(index)
    return batches


def _stack_config(t5: Any, layers: int, *, is_decoder: bool) -> Any:
    config = type(t5).from_dict(t5.to_dict())
    config.is_decoder, config.use_cache, config.num_layers = is_decoder, False, layers
    return config
