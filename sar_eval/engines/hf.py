"""The yardstick: transformers' own decoder, two forwards a token, nothing clever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sar_eval.decoding.token_engine import TokenEngine
from sar_eval.discover import need
from sar_eval.types import Draw

if TYPE_CHECKING:
    from torch import Tensor

    from sar_eval.decoding.loop import Decoded


class HfEngine(TokenEngine):
    """Draws with transformers' `Qwen2ForCausalLM`, as SimpleAR's script does but for the noise.

    Slow and plain on purpose: other engines are compared with it, in tokens and in speed.
    """

    version = "1"

    def load(self) -> None:
        """Build the model from `config.json` and the checked weights; no remote code.

        Raises:
            MissingExtra: transformers is not installed.
        """
        need("transformers", extra="hf", what="engine 'hf'")
        from sar_eval.decoding.load import load_transformers

        self.model = load_transformers(self.checkpoint, self.device, self.dtype)

    def unload(self) -> None:
        """Let go of the weights."""
        del self.model

    def decode_tokens(self, draws: Sequence[Draw]) -> Decoded:
        """Visual codes of a wave."""
        import torch

        from sar_eval.decoding.loop import Decoded
        from sar_eval.decoding.noise import noise_keys

        prompts, number = self.prompts(draws), len(draws)
        keys = noise_keys([draw.seed for draw in draws], self.steps, torch.device(self.device))
        first = self.checkpoint.text_vocabulary
        with torch.inference_mode():
            tokens, failed_at = self.loop(prompts[:number], prompts[number:], keys)
        codes = tokens - first
        inside = codes.clamp(0, self.checkpoint.codebook_size - 1)
        outside = (codes != inside).sum(1)
        return Decoded(inside.cpu(), failed_at.cpu(), outside.cpu(), [self.steps - 1] * number)

    def loop(
        self, prompts: list[list[int]], negatives: list[list[int]], keys: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Token ids `[B, N]` and the first faulty token `[B]` (-1 for none)."""
        import torch

        positive = Branch(self.model, prompts, self.device)
        negative = Branch(self.model, negatives, self.device) if negatives else None
        last: Tensor | None = None
        drawn, failed_at = [], torch.full((len(prompts),), -1, device=self.device)
        for step in range(self.steps):
            scores = positive.log_probabilities(last)
            if negative is not None:
                other = negative.log_probabilities(last)
                scores = other + self.protocol.guidance * (scores - other)
            last = self._sample(scores, keys[step])
            failed_at = torch.where(scores.isfinite().all(-1) | (failed_at >= 0), failed_at, step)
            drawn.append(last)
        return torch.stack(drawn, 1), failed_at

    def _sample(self, scores: Tensor, keys: Tensor) -> Tensor:
        import torch

        from sar_eval.decoding.noise import gumbel
        from sar_eval.decoding.sampling import narrow

        start = self.checkpoint.text_vocabulary
        first = 0 if self.protocol.full_vocab else start
        scores = scores[:, first:]
        if self.protocol.temperature == 0:
            return scores.argmax(-1) + first
        ids = torch.arange(first - start, first - start + scores.shape[1], dtype=torch.int32)
        scores = narrow(scores / self.protocol.temperature, self.protocol.top_k, self.protocol.top_p)
        return (scores + gumbel(keys, ids.to(keys.device))).argmax(-1) + first


class Branch:
    """One of the two sequences a draw has under guidance, with a cache of its own."""

    def __init__(self, model: Any, prompts: list[list[int]], device: str) -> None:
        """Pad the prompts on the left."""
        import torch

        length = max(map(len, prompts))
        self.model, self.cache = model, None
        self.tokens = torch.tensor([[0] * (length - len(p)) + p for p in prompts], device=device)
        self.mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts], device=device)

    def log_probabilities(self, last: Tensor | None) -> Tensor:
        """Of the next token, float32 `[B, vocabulary]`, after taking in the last one `[B]`."""
        import torch

        if last is not None:
            self.tokens = last[:, None]
            self.mask = torch.cat([self.mask, torch.ones_like(self.tokens)], 1)
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -self.tokens.shape[1] :]
        answer = self.model(
            self.tokens,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = answer.past_key_values
        scores: Tensor = answer.logits[:, -1].float().log_softmax(-1)
        return scores


ENGINE = HfEngine
