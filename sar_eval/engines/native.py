"""Batched decoding in plain PyTorch: one forward a step for guided and negative rows together."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sar_eval.errors import BadInput
from sar_eval.models.checkpoint import Checkpoint, find_checkpoint
from sar_eval.types import Draw, DrawProtocol, Generation

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sar_eval.models.qwen2 import Decoder

VERSION = "1"


class NativeEngine:
    """Draws with a SimpleAR-shaped checkpoint.

    Visual tokens only, float32 by default, noise shared by (seed, position, token id): a draw's
    tokens do not depend on its batch, its worker or the order.
    """

    def __init__(
        self,
        checkpoint: str,
        protocol: DrawProtocol,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int = 64,
    ) -> None:
        """Find and check the checkpoint; weights are loaded on entry.

        Raises:
            BadInput: the resolution does not fit the visual tokenizer, or `dtype` is unknown.
        """
        if dtype not in ("float32", "bfloat16", "float16"):
            raise BadInput(f"unknown dtype {dtype!r}: float32, bfloat16 or float16")
        self.checkpoint: Checkpoint = find_checkpoint(checkpoint)
        self.protocol, self.device, self.dtype, self.batch_size = protocol, device, dtype, batch_size
        self.side, rest = divmod(protocol.resolution, self.checkpoint.downsample)
        if rest or self.side < 1:
            raise BadInput(
                f"resolution {protocol.resolution} is no multiple of {self.checkpoint.downsample}, "
                f"the visual tokenizer's pixels a token"
            )
        positions = self.checkpoint.shape.positions
        if self.side**2 >= positions:
            raise BadInput(
                f"resolution {protocol.resolution} takes {self.side**2} visual tokens; the checkpoint "
                f"has {positions} positions for prompt and picture"
            )
        self.version = VERSION

    def __enter__(self) -> Self:
        from sar_eval.models.cosmos import VisualTokenizer

        self.decoder = self.checkpoint.load_decoder(self.device, self.dtype)
        self.visual = VisualTokenizer(self.checkpoint.visual_folder, self.device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self.decoder, self.visual

    def generate(self, draws: Sequence[Draw]) -> Iterator[Generation]:
        """Draw in batches of at most `batch_size`, in the order given."""
        for start in range(0, len(draws), self.batch_size):
            yield from self._batch(draws[start : start + self.batch_size])

    def _batch(self, draws: Sequence[Draw]) -> Iterator[Generation]:
        began = time.perf_counter()
        codes = self.decode_tokens(draws)
        pictures = self.visual.decode(codes, self.side)
        elapsed = (time.perf_counter() - began) / len(draws)
        for draw, row, picture in zip(draws, codes.tolist(), pictures, strict=True):
            yield Generation(draw.key, draw.seed, tuple(row), _png(picture), elapsed)

    def decode_tokens(self, draws: Sequence[Draw]) -> Tensor:
        """Visual codes `[B, N]` int64 of the draws, N tokens in raster order."""
        import torch

        from sar_eval.models.noise import noise_keys

        device, steps = torch.device(self.device), self.side**2
        first = self.checkpoint.text_vocabulary
        visual = range(first, first + self.checkpoint.codebook_size)
        keys = noise_keys([draw.seed for draw in draws], steps, device)
        with torch.inference_mode():
            return decode(self.decoder, visual, self.protocol, self._prompts(draws), keys)

    def _prompts(self, draws: Sequence[Draw]) -> list[list[int]]:
        """Token ids of the guided rows, then (with guidance) of the negative rows."""
        rows = [self.checkpoint.prompt_ids(self.protocol.prefix + draw.prompt.text) for draw in draws]
        if self.protocol.guidance != 1:
            rows += [self.checkpoint.prompt_ids(self.protocol.negative_prompt)] * len(draws)
        return rows


def decode(
    decoder: Decoder, visual: range, protocol: DrawProtocol, prompts: list[list[int]], keys: Tensor
) -> Tensor:
    """The sampling loop: prefill, then one forward a visual token.

    Args:
        decoder: the weights.
        visual: ids of the visual tokens.
        protocol: guidance, temperature, top-k and top-p are used.
        prompts: token ids of B guided rows, then (guidance other than 1) of their B negative rows.
        keys: noise keys int32 `[N, B, 2]`, which also say how many tokens to draw.

    Returns:
        Visual codes int64 `[B, N]`, counted from `visual.start`.
    """
    import torch
    import torch.nn.functional as F

    from sar_eval.models.sampling import guide, sample

    steps, guided = len(keys), protocol.guidance != 1
    tokens, positions, visible = _pad_left(prompts, steps, keys.device)
    length = tokens.shape[1]
    head = decoder.head[visual.start : visual.stop]
    ids = torch.arange(len(head), dtype=torch.int32, device=keys.device)
    cache = decoder.new_cache(len(prompts), length + steps - 1)
    codes = torch.empty((keys.shape[1], steps), dtype=torch.int64, device=keys.device)
    seen = visible[..., :length] & torch.ones(length, length, dtype=torch.bool, device=keys.device).tril()
    for step in range(steps):
        logits = F.linear(decoder.forward(tokens, positions, cache, seen), head)
        scores = guide(logits, protocol.guidance) if guided else logits.float().log_softmax(-1)
        codes[:, step] = sample(scores, keys[step], ids, protocol)
        tokens = (codes[:, step] + visual.start).repeat(2 if guided else 1)[:, None]
        positions = positions[:, -1:] + 1
        seen = visible[..., : length + step + 1]
    return codes.cpu()


def _pad_left(prompts: list[list[int]], steps: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Ids `[R, L]`, positions `[R, L]` and key visibility `[R, 1, 1, L + steps]` of padded prompts."""
    import torch

    length = max(map(len, prompts))
    padding = torch.tensor([length - len(p) for p in prompts], device=device)[:, None]
    tokens = torch.tensor([[0] * (length - len(p)) + p for p in prompts], device=device)
    positions = (torch.arange(length, device=device) - padding).clamp(min=0)
    visible = torch.arange(length + steps, device=device) >= padding
    return tokens, positions, visible[:, None, None]


def _png(picture: Tensor) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture.numpy()).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


ENGINE = NativeEngine
