"""mPLUG's network: vision tower, question encoder, fusion encoder, and the decoder with its cache.

Architecture: `MPlugForVisualQuestionAnswering` in
modelscope/models/multi_modal/mplug/modeling_mplug.py (modelscope 1.40.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sar_eval.networks.mplug.shape import MplugShape
from sar_eval.networks.mplug.text import (
    FusionEncoder,
    KeyValues,
    TextDecoder,
    TextEncoder,
    attend_image_and_question,
)
from sar_eval.networks.mplug.vision import VisionTransformer


class Mplug(nn.Module):
    """The network; parameters have the names of the original's state dict."""

    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.visual_encoder = _VisualEncoder(shape)
        self.visn_fc = nn.Linear(shape.vision_width, shape.hidden)
        self.visn_layer_norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.text_encoder = TextEncoder(shape)
        self.fusion_encoder = FusionEncoder(shape)
        self.text_decoder = TextDecoder(shape)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Tokens `[P, N, hidden]` of normalised images `[P, 3, S, S]`."""
        tokens: Tensor = self.visn_layer_norm(self.visn_fc(self.visual_encoder.visual(pixels)))
        return tokens

    def encode_questions(
        self, image_tokens: Tensor, ids: Tensor, mask: Tensor, counts: Sequence[int]
    ) -> AnswerDecoder:
        """Encode questions, fuse them with their images, and return a decoder of the answers.

        Args:
            image_tokens: of P images (see `encode_images`).
            ids: of R questions `[R, T]`, sorted by image.
            mask: `[R, T]`, True where there is a token.
            counts: questions of each image, at least one each.
        """
        text = self.text_encoder(ids, mask)
        text, image_tokens, counts = self.fusion_encoder(text, mask, image_tokens, counts)
        return AnswerDecoder(self.text_decoder, text, mask, image_tokens, counts)


class _VisualEncoder(nn.Module):
    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.visual = VisionTransformer(shape)


class AnswerDecoder:
    """The decoder with cached keys and values: of images, questions and the answers so far."""

    def __init__(
        self, decoder: TextDecoder, text: Tensor, mask: Tensor, image_tokens: Tensor, counts: Sequence[int]
    ) -> None:
        """Compute the keys and values of images `[P, N, hidden]` and questions `[R, T, hidden]`."""
        self.decoder, self.mask = decoder, mask
        layers = list(decoder.bert.encoder)
        self.images = [layer.crossattention.keys_values(image_tokens) for layer in layers]
        self.questions = [layer.crossattention.keys_values(text) for layer in layers]
        images = torch.arange(len(image_tokens), device=image_tokens.device)
        self.image_of = images.repeat_interleave(torch.tensor(counts, device=image_tokens.device))
        self.counts, self.num_beams, self.length = list(counts), 1, 0
        self.past: list[KeyValues] = []

    def start(self, token: int) -> Tensor:
        """Logits `[R, V]`, float32, of the first token after `token`."""
        tokens = torch.full((len(self.image_of), 1), token, device=self.image_of.device)
        return self._step(tokens)[:, 0]

    def advance(self, tokens: Tensor, beams: Tensor) -> Tensor:
        """See `search.StepDecoder`."""
        self._keep_questions(beams[:, 0] // self.num_beams)
        indices = beams.flatten()
        self.past = [(keys[indices], values[indices]) for keys, values in self.past]
        return self._step(tokens)

    def _keep_questions(self, indices: Tensor) -> None:
        if len(indices) == len(self.image_of):
            return
        self.mask, self.image_of = self.mask[indices], self.image_of[indices]
        self.questions = [(keys[indices], values[indices]) for keys, values in self.questions]
        self.counts = self.image_of.bincount(minlength=len(self.counts)).tolist()

    def _step(self, tokens: Tensor) -> Tensor:
        """Logits `[R, B, V]` after one more token of each beam `[R, B]`, all at the same position."""
        position = torch.tensor(self.length, device=tokens.device)
        x, past = self.decoder.bert.embeddings(tokens, position), []
        for number, layer in enumerate(self.decoder.bert.encoder):
            beams = x.reshape(-1, 1, x.shape[-1])
            keys_values = layer.attention.keys_values(beams)
            if self.past:
                keys, values = self.past[number]
                keys_values = torch.cat([keys, keys_values[0]], 2), torch.cat([values, keys_values[1]], 2)
            past.append(keys_values)
            attended = F.scaled_dot_product_attention(layer.attention.queries(beams), *keys_values)
            x = layer.attention.project(attended, beams).view_as(x)
            queries = layer.crossattention.queries(x)
            attended = attend_image_and_question(
                queries, self.images[number], self.questions[number], self.mask, self.counts
            )
            x = layer.feed_forward(layer.crossattention.project(attended, x))
        self.past, self.num_beams, self.length = past, tokens.shape[1], self.length + 1
        return self.decoder.logits(x)
