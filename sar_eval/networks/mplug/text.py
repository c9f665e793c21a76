"""mPLUG's text parts: BERT layers that read the question, join it with the image, and answer.

Architecture: modelscope/models/multi_modal/mplug/modeling_mplug.py (modelscope 1.40.2), after BERT:
post-norm layers, exact GELU. Parameters carry the original's names.

Rows are questions, sorted by image. All questions of an image (and all beams of a question) look
at one set of keys and values of the image: they are folded into the queries of one product, so
nothing of the image is computed or copied for a question. `counts` says how many rows each image
has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sar_eval.networks.mplug.shape import MplugShape

Memory = tuple[Tensor, Tensor]  # keys and values, [R, heads, T, head width]


class Attention(nn.Module):
    """One attention with its projections, residual and norm."""

    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.self = _Projections(shape.hidden)
        self.output = _Residual(shape.hidden, shape)

    def queries(self, x: Tensor) -> Tensor:
        """`[R, heads, T, head width]` of `[R, T, hidden]`."""
        return self._split(self.self.query(x))

    def memory(self, x: Tensor) -> Memory:
        """Keys and values of what is looked at."""
        return self._split(self.self.key(x)), self._split(self.self.value(x))

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return heads

    def finish(self, mixed: Tensor, x: Tensor) -> Tensor:
        """`[R, T, hidden]` from what the heads saw `[R, heads, T, head width]` and the input."""
        out: Tensor = self.output(mixed.transpose(1, 2).flatten(2), x)
        return out

    def among(self, x: Tensor, mask: Tensor) -> Tensor:
        """Self-attention of `[R, T, hidden]` under a mask `[R, 1, 1, T]`, True where there is a token."""
        mixed = F.scaled_dot_product_attention(self.queries(x), *self.memory(x), attn_mask=mask)
        return self.finish(mixed, x)

    def at_images(self, x: Tensor, tokens: Tensor, counts: Sequence[int]) -> Tensor:
        """Rows `[R, T, hidden]` look at their images' tokens `[P, N, hidden]`."""
        keys, values = self.memory(tokens)
        seen = []
        for number, part in enumerate(self.queries(x).split(list(counts))):
            one = slice(number, number + 1)
            mixed = F.scaled_dot_product_attention(_fold(part)[None], keys[one], values[one])
            seen.append(_unfold(mixed[0], len(part)))
        return self.finish(torch.cat(seen), x)


def attend_both(
    queries: Tensor, image: Memory, question: Memory, mask: Tensor, counts: Sequence[int]
) -> Tensor:
    """One softmax over an image's tokens and a question's, the image's shared by its questions.

    Args:
        queries: `[R, heads, T, width]`.
        image: of all images, `[P, heads, N, width]` each.
        question: of all rows, `[R, heads, L, width]` each.
        mask: `[R, L]`, True where the question has a token.
        counts: rows of each image, together R; 0 is allowed.

    Returns:
        `[R, heads, T, width]`.
    """
    sizes, scale = list(counts), queries.shape[-1] ** -0.5
    own_scores = (queries @ question[0].transpose(-1, -2)).masked_fill(~mask[:, None, None], -torch.inf)
    seen = []
    parts = zip(queries.split(sizes), own_scores.split(sizes), question[1].split(sizes), strict=True)
    for number, (part, own, own_values) in enumerate(parts):
        if len(part) == 0:
            continue
        keys, values = image[0][number], image[1][number]
        scores = torch.cat([_fold(part) @ keys.transpose(-1, -2), _fold(own)], -1) * scale
        at_image, at_question = scores.softmax(-1).split([keys.shape[1], own.shape[-1]], -1)
        own_part = _unfold(at_question, len(part)) @ own_values
        seen.append(_unfold(at_image @ values, len(part)) + own_part)
    return torch.cat(seen)


def _fold(x: Tensor) -> Tensor:
    """`[R, heads, T, width]` to `[heads, R * T, width]`."""
    return x.transpose(0, 1).flatten(1, 2)


def _unfold(x: Tensor, rows: int) -> Tensor:
    """The way back."""
    apart: Tensor = x.unflatten(1, (rows, -1)).transpose(0, 1)
    return apart


class _Projections(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)


class _Residual(nn.Module):
    def __init__(self, width: int, shape: MplugShape) -> None:
        super().__init__()
        self.dense = nn.Linear(width, shape.hidden)
        self.LayerNorm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dense(x) + before)
        return out


class _Widened(nn.Module):
    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden, shape.inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    """Attention, feed-forward part, and attention to the image where the stack has it."""

    def __init__(self, shape: MplugShape, *, crossing: bool) -> None:
        super().__init__()
        self.attention = Attention(shape)
        if crossing:
            self.crossattention = Attention(shape)
        self.intermediate = _Widened(shape)
        self.output = _Residual(shape.inner, shape)

    def feed(self, x: Tensor) -> Tensor:
        """The feed-forward part."""
        out: Tensor = self.output(self.intermediate(x), x)
        return out


class Embeddings(nn.Module):
    """Word, position and token type, normalised."""

    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocabulary, shape.hidden)
        self.position_embeddings = nn.Embedding(shape.positions, shape.hidden)
        self.token_type_embeddings = nn.Embedding(shape.types, shape.hidden)
        self.LayerNorm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """`[R, T, hidden]` of ids `[R, T]` at positions that broadcast to them; all of type 0."""
        x = self.word_embeddings(ids) + self.token_type_embeddings.weight[0]
        out: Tensor = self.LayerNorm(x + self.position_embeddings(positions))
        return out


class _Layers(nn.Module):
    def __init__(self, shape: MplugShape, layers: int, *, crossing: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(shape, crossing=crossing) for _ in range(layers))

    def __iter__(self) -> Iterator[Layer]:
        return cast("Iterator[Layer]", iter(self.layer))


class TextEncoder(nn.Module):
    """Reads the question by itself."""

    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.embeddings = Embeddings(shape)
        self.encoder = _Layers(shape, shape.text_layers, crossing=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """`[R, T, hidden]` of ids and mask `[R, T]`."""
        x: Tensor = self.embeddings(ids, torch.arange(ids.shape[1], device=ids.device))
        for layer in self.encoder:
            x = layer.feed(layer.attention.among(x, mask[:, None, None]))
        return x


class _Numbered(nn.Module):
    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.layer = nn.ModuleDict({str(n): Layer(shape, crossing=True) for n in shape.running})

    def __iter__(self) -> Iterator[tuple[int, Layer]]:
        return ((int(number), cast("Layer", layer)) for number, layer in self.layer.items())


class FusionEncoder(nn.Module):
    """Joins questions with their images; holds only the layers that run, by their original numbers."""

    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.rewriting = shape.rewriting
        self.encoder = _Numbered(shape)

    def forward(
        self, text: Tensor, mask: Tensor, tokens: Tensor, counts: Sequence[int]
    ) -> tuple[Tensor, Tensor, list[int]]:
        """Questions that have seen their image, and the images' tokens.

        Args:
            text: questions `[R, T, hidden]`, sorted by image.
            mask: `[R, T]`, True where there is a token.
            tokens: of the images `[P, N, hidden]`.
            counts: questions of each image.

        Returns:
            Questions `[R, T, hidden]`; image tokens as given, or `[R, N, hidden]` where a layer
            rewrites them for each question; rows of each of those images.
        """
        sizes = list(counts)
        for number, layer in self.encoder:
            if number in self.rewriting:
                text, tokens = _rewrite(layer, text, mask, _by_row(tokens, sizes))
                sizes = [1] * len(text)
            else:
                text = layer.attention.among(text, mask[:, None, None])
                text = layer.feed(layer.crossattention.at_images(text, tokens, sizes))
        return text, tokens, sizes


def _by_row(tokens: Tensor, counts: Sequence[int]) -> Tensor:
    return tokens.repeat_interleave(torch.tensor(counts, device=tokens.device), 0)


def _rewrite(layer: Layer, text: Tensor, mask: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Image and question as one text; the image keeps what it was and gets the outcome added."""
    length = tokens.shape[1]
    whole = F.pad(mask, (length, 0), value=True)[:, None, None]
    seen = layer.feed(layer.attention.among(torch.cat([tokens, text], 1), whole))
    return seen[:, length:], tokens + seen[:, :length]


class TextDecoder(nn.Module):
    """Writes the answer; its head is its word embeddings."""

    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.bert = _DecoderStack(shape)
        self.cls = _Head(shape)

    def logits(self, x: Tensor) -> Tensor:
        """Of every word piece `[..., vocabulary]`, float32, for final states `[..., hidden]`."""
        predictions = self.cls.predictions
        x = predictions.transform(x)
        return F.linear(x, self.bert.embeddings.word_embeddings.weight, predictions.bias).float()


class _DecoderStack(nn.Module):
    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.embeddings = Embeddings(shape)
        self.encoder = _Layers(shape, shape.decoder_layers, crossing=True)


class _Head(nn.Module):
    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.predictions = _Predictions(shape)


class _Predictions(nn.Module):
    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(shape.vocabulary))
        self.transform = _Transform(shape)


class _Transform(nn.Module):
    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden, shape.hidden)
        self.LayerNorm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(F.gelu(self.dense(x)))
        return out
