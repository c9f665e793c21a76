"""mPLUG's network: the vision tower, the question encoder, their fusion, and the decoder at work.

Architecture: `MPlugForVisualQuestionAnswering` in
modelscope/models/multi_modal/mplug/modeling_mplug.py (modelscope 1.40.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sar_eval.networks.mplug.shape import MplugShape
from sar_eval.networks.mplug.text import FusionEncoder, Memory, TextDecoder, TextEncoder, attend_both
from sar_eval.networks.mplug.vision import VisionTransformer


class Mplug(nn.Module):
    """The network; parameters carry the names of the original's state dict."""

    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.visual_encoder = _VisualEncoder(shape)
        self.visn_fc = nn.Linear(shape.vision_width, shape.hidden)
        self.visn_layer_norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.text_encoder = TextEncoder(shape)
        self.fusion_encoder = FusionEncoder(shape)
        self.text_decoder = TextDecoder(shape)

    def see(self, pixels: Tensor) -> Tensor:
        """Tokens `[P, N, hidden]` of normalised images `[P, 3, S, S]`."""
        tokens: Tensor = self.visn_layer_norm(self.visn_fc(self.visual_encoder.visual(pixels)))
        return tokens

    def ask(self, tokens: Tensor, ids: Tensor, mask: Tensor, counts: Sequence[int]) -> Answering:
        """Read questions and look at the images for them.

        Args:
            tokens: of P images, see `see`.
            ids: of R questions `[R, T]`, sorted by image.
            mask: `[R, T]`, True where there is a token.
            counts: questions of each image, at least one each.
        """
        text = self.text_encoder(ids, mask)
        text, tokens, sizes = self.fusion_encoder(text, mask, tokens, counts)
        return Answering(self.text_decoder, text, mask, tokens, sizes)


class _VisualEncoder(nn.Module):
    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        self.visual = VisionTransformer(shape)


class Answering:
    """The decoder in the midst of answering: what it has looked at and what it has said."""

    def __init__(
        self, decoder: TextDecoder, text: Tensor, mask: Tensor, tokens: Tensor, counts: Sequence[int]
    ) -> None:
        """Keys and values of images `[P, N, hidden]` and questions `[R, T, hidden]`, once each."""
        self.decoder, self.mask = decoder, mask
        layers = list(decoder.bert.encoder)
        self.images = [layer.crossattention.memory(tokens) for layer in layers]
        self.questions = [layer.crossattention.memory(text) for layer in layers]
        images = torch.arange(len(tokens), device=tokens.device)
        self.owners = images.repeat_interleave(torch.tensor(counts, device=tokens.device))
        self.counts, self.width, self.length = list(counts), 1, 0
        self.past: list[Memory] = []

    def start(self, token: int) -> Tensor:
        """Logits of the first token after `token`, `[R, V]`, float32."""
        begin = torch.full((len(self.owners), 1), token, device=self.owners.device)
        return self._step(begin)[:, 0]

    def advance(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """See `mplug_search.Decoding`."""
        self._keep(rows[:, 0] // self.width)
        places = rows.flatten()
        self.past = [(keys[places], values[places]) for keys, values in self.past]
        return self._step(tokens)

    def _keep(self, places: Tensor) -> None:
        if len(places) == len(self.owners):
            return
        self.mask, self.owners = self.mask[places], self.owners[places]
        self.questions = [(keys[places], values[places]) for keys, values in self.questions]
        self.counts = self.owners.bincount(minlength=len(self.counts)).tolist()

    def _step(self, tokens: Tensor) -> Tensor:
        """One token of each beam, all at the same place of their texts."""
        place = torch.tensor(self.length, device=tokens.device)
        x, past = self.decoder.bert.embeddings(tokens, place), []
        for number, layer in enumerate(self.decoder.bert.encoder):
            rows = x.reshape(-1, 1, x.shape[-1])
            memory = layer.attention.memory(rows)
            if self.past:
                keys, values = self.past[number]
                memory = torch.cat([keys, memory[0]], 2), torch.cat([values, memory[1]], 2)
            past.append(memory)
            mixed = F.scaled_dot_product_attention(layer.attention.queries(rows), *memory)
            x = layer.attention.finish(mixed, rows).view_as(x)
            queries = layer.crossattention.queries(x)
            seen = (self.images[number], self.questions[number], self.mask, self.counts)
            x = layer.feed(layer.crossattention.finish(attend_both(queries, *seen), x))
        self.past, self.width, self.length = past, tokens.shape[1], self.length + 1
        return self.decoder.logits(x)
