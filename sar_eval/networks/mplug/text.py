"""mPLUG's text parts: BERT layers of the question encoder, the fusion encoder and the answer decoder.

Architecture: modelscope/models/multi_modal/mplug/modeling_mplug.py (modelscope 1.40.2), after BERT:
post-norm layers, exact GELU. Parameters have the original's names.

The batch dimension R is over questions, sorted by image; `counts` has the number of questions of each
image. All questions of an image (and all beams of a question) share its keys and values: their queries
are concatenated for one product, so nothing of the image is computed or copied for each question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sar_eval.networks.mplug.shape import MplugShape

KeyValues = tuple[Tensor, Tensor]  # [R, heads, T, head width] each


class Attention(nn.Module):
    """Multi-head attention with projections, residual and norm."""

    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.self = _Projections(shape.hidden)
        self.output = _ResidualOutput(shape.hidden, shape)

    def queries(self, x: Tensor) -> Tensor:
        """`[R, heads, T, head width]` of `[R, T, hidden]`."""
        return self._split(self.self.query(x))

    def keys_values(self, x: Tensor) -> KeyValues:
        """Keys and values of `[R, T, hidden]`."""
        return self._split(self.self.key(x)), self._split(self.self.value(x))

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return heads

    def project(self, attended: Tensor, x: Tensor) -> Tensor:
        """Output projection, residual and norm.

        Args:
            attended: outputs of the heads `[R, heads, T, head width]`.
            x: input of the attention `[R, T, hidden]`.

        Returns:
            `[R, T, hidden]`.
        """
        out: Tensor = self.output(attended.transpose(1, 2).flatten(2), x)
        return out

    def self_attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """Self-attention of `[R, T, hidden]` under a mask `[R, 1, 1, T]`, True where there is a token."""
        attended = F.scaled_dot_product_attention(self.queries(x), *self.keys_values(x), attn_mask=mask)
        return self.project(attended, x)

    def image_attention(self, x: Tensor, image_tokens: Tensor, counts: Sequence[int]) -> Tensor:
        """Cross-attention of questions `[R, T, hidden]` to their images' tokens `[P, N, hidden]`."""
        keys, values = self.keys_values(image_tokens)
        outputs = []
        for number, queries in enumerate(self.queries(x).split(list(counts))):
            image = slice(number, number + 1)
            attended = F.scaled_dot_product_attention(_fold(queries)[None], keys[image], values[image])
            outputs.append(_unfold(attended[0], len(queries)))
        return self.project(torch.cat(outputs), x)


def attend_image_and_question(
    queries: Tensor, image: KeyValues, question: KeyValues, mask: Tensor, counts: Sequence[int]
) -> Tensor:
    """Attention with one softmax over an image's and a question's tokens; questions share their image's.

    Args:
        queries: `[R, heads, T, width]`.
        image: of all images, `[P, heads, N, width]` each.
        question: of all questions, `[R, heads, L, width]` each.
        mask: `[R, L]`, True where the question has a token.
        counts: questions of each image, R in total; 0 is allowed.

    Returns:
        `[R, heads, T, width]`.
    """
    sizes, scale = list(counts), queries.shape[-1] ** -0.5
    text_scores = (queries @ question[0].transpose(-1, -2)).masked_fill(~mask[:, None, None], -torch.inf)
    outputs = []
    by_image = zip(queries.split(sizes), text_scores.split(sizes), question[1].split(sizes), strict=True)
    for number, (part, part_scores, text_values) in enumerate(by_image):
        if len(part) == 0:
            continue
        keys, values = image[0][number], image[1][number]
        scores = torch.cat([_fold(part) @ keys.transpose(-1, -2), _fold(part_scores)], -1) * scale
        lengths = [keys.shape[1], part_scores.shape[-1]]
        image_weights, text_weights = scores.softmax(-1).split(lengths, -1)
        text_output = _unfold(text_weights, len(part)) @ text_values
        outputs.append(_unfold(image_weights @ values, len(part)) + text_output)
    return torch.cat(outputs)


def _fold(x: Tensor) -> Tensor:
    """`[R, heads, T, width]` to `[heads, R * T, width]`."""
    return x.transpose(0, 1).flatten(1, 2)


def _unfold(x: Tensor, questions: int) -> Tensor:
    """`[heads, R * T, width]` to `[R, heads, T, width]`."""
    unfolded: Tensor = x.unflatten(1, (questions, -1)).transpose(0, 1)
    return unfolded


class _Projections(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)


class _ResidualOutput(nn.Module):
    def __init__(self, width: int, shape: MplugShape) -> None:
        super().__init__()
        self.dense = nn.Linear(width, shape.hidden)
        self.LayerNorm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dense(x) + residual)
        return out


class _Intermediate(nn.Module):
    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden, shape.inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    """Self-attention, cross-attention if wanted, and feed-forward part."""

    def __init__(self, shape: MplugShape, *, cross_attention: bool) -> None:
        super().__init__()
        self.attention = Attention(shape)
        if cross_attention:
            self.crossattention = Attention(shape)
        self.intermediate = _Intermediate(shape)
        self.output = _ResidualOutput(shape.inner, shape)

    def feed_forward(self, x: Tensor) -> Tensor:
        """The feed-forward part with residual and norm."""
        out: Tensor = self.output(self.intermediate(x), x)
        return out


class Embeddings(nn.Module):
    """Sum of word, position and token type embeddings, normalised."""

    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocabulary, shape.hidden)
        self.position_embeddings = nn.Embedding(shape.positions, shape.hidden)
        self.token_type_embeddings = nn.Embedding(shape.types, shape.hidden)
        self.LayerNorm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """`[R, T, hidden]` of ids `[R, T]` at positions that broadcast to them, all of token type 0."""
        x = self.word_embeddings(ids) + self.token_type_embeddings.weight[0]
        out: Tensor = self.LayerNorm(x + self.position_embeddings(positions))
        return out


class _Layers(nn.Module):
    def __init__(self, shape: MplugShape, number: int, *, cross_attention: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(shape, cross_attention=cross_attention) for _ in range(number))

    def __iter__(self) -> Iterator[Layer]:
        return cast("Iterator[Layer]", iter(self.layer))


class TextEncoder(nn.Module):
    """Encodes questions without their images."""

    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.embeddings = Embeddings(shape)
        self.encoder = _Layers(shape, shape.text_layers, cross_attention=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """`[R, T, hidden]` of ids and mask `[R, T]`."""
        x: Tensor = self.embeddings(ids, torch.arange(ids.shape[1], device=ids.device))
        for layer in self.encoder:
            x = layer.feed_forward(layer.attention.self_attention(x, mask[:, None, None]))
        return x


class _FusionLayers(nn.Module):
    """The layers that run, under their numbers in the original."""

    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        layers = {str(number): Layer(shape, cross_attention=True) for number in shape.active_layers}
        self.layer = nn.ModuleDict(layers)

    def __iter__(self) -> Iterator[tuple[int, Layer]]:
        return ((int(number), cast("Layer", layer)) for number, layer in self.layer.items())


class FusionEncoder(nn.Module):
    """Fuses questions with their images."""

    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.connected_layers = shape.connected_layers
        self.encoder = _FusionLayers(shape)

    def forward(
        self, text: Tensor, mask: Tensor, image_tokens: Tensor, counts: Sequence[int]
    ) -> tuple[Tensor, Tensor, list[int]]:
        """Fuse questions with their images.

        Args:
            text: questions `[R, T, hidden]`, sorted by image.
            mask: `[R, T]`, True where there is a token.
            image_tokens: `[P, N, hidden]`.
            counts: questions of each image.

        Returns:
            Questions `[R, T, hidden]`; image tokens, unchanged or, after a connected layer,
            `[R, N, hidden]` with one image for each question; questions of each of these images.
        """
        sizes = list(counts)
        for number, layer in self.encoder:
            if number in self.connected_layers:
                repeats = torch.tensor(sizes, device=image_tokens.device)
                image_tokens = image_tokens.repeat_interleave(repeats, 0)
                text, image_tokens = _connected_attention(layer, text, mask, image_tokens)
                sizes = [1] * len(text)
            else:
                text = layer.attention.self_attention(text, mask[:, None, None])
                text = layer.feed_forward(layer.crossattention.image_attention(text, image_tokens, sizes))
        return text, image_tokens, sizes


def _connected_attention(
    layer: Layer, text: Tensor, mask: Tensor, image_tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """Self-attention over image and question as one text; the image has one more residual."""
    length = image_tokens.shape[1]
    joint_mask = F.pad(mask, (length, 0), value=True)[:, None, None]
    joint = torch.cat([image_tokens, text], 1)
    output = layer.feed_forward(layer.attention.self_attention(joint, joint_mask))
    return output[:, length:], image_tokens + output[:, :length]


class TextDecoder(nn.Module):
    """Decodes the answer; the output projection is tied to the word embeddings."""

    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.bert = _DecoderStack(shape)
        self.cls = _Head(shape)

    def logits(self, x: Tensor) -> Tensor:
        """Logits `[..., vocabulary]`, float32, of final hidden states `[..., hidden]`."""
        predictions = self.cls.predictions
        x = predictions.transform(x)
        return F.linear(x, self.bert.embeddings.word_embeddings.weight, predictions.bias).float()


class _DecoderStack(nn.Module):
    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.embeddings = Embeddings(shape)
        self.encoder = _Layers(shape, shape.decoder_layers, cross_attention=True)


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
