"""Reference implementation: transformers' own decoder, two forwards per token, no optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sar_eval.decoding.token_engine import TokenEngine
from sar_eval.discover import need
from sar_eval.types import Draw

if TYPE_CHECKING:
    from torch import Tensor

    from sar_eval.decoding.loop import DecodeOutput


class HfEngine(TokenEngine):
    """Draws with transformers' `Qwen2ForCausalLM`, as SimpleAR's script does except for the noise.

    Slow and simple on purpose: the tokens and the speed of other engines are compared with it, and guidance
    is written out here instead of shared with them.
    """

    version = "1"

    def load(self) -> None:
        """Load the model from `config.json` and the weights; no remote code.

        Raises:
            MissingExtra: transformers is not installed.
        """
        need("transformers", extra="hf", what="engine 'hf'")
        from sar_eval.decoding.load import load_transformers

        self.model = load_transformers(self.checkpoint, self.device, self.dtype)

    def unload(self) -> None:
        """Release the weights."""
        del self.model

    def decode_tokens(self, draws: Sequence[Draw]) -> DecodeOutput:
        """Decode the visual codes of a wave."""
        import torch

        from sar_eval.decoding.loop import DecodeOutput
        from sar_eval.decoding.noise import noise_keys

        prompts, number = self.prompt_ids(draws), len(draws)
        keys = noise_keys([draw.seed for draw in draws], self.image_tokens, torch.device(self.device))
        with torch.inference_mode():
            ids, failed_at = self.decode_ids(prompts[:number], prompts[number:], keys)
        codes = ids - self.checkpoint.text_vocab_size
        clamped = codes.clamp(0, self.checkpoint.codebook_size - 1)
        out_of_range = (codes != clamped).sum(1)
        steps = [self.image_tokens - 1] * number
        return DecodeOutput(clamped.cpu(), failed_at.cpu(), out_of_range.cpu(), steps)

    def decode_ids(
        self, prompts: list[list[int]], negatives: list[list[int]], keys: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode token by token.

        Args:
            prompts: token ids of B prompts.
            negatives: token ids of their negative prompts; empty where guidance is 1.
            keys: noise keys int32 `[N, B, 2]`.

        Returns:
            Token ids `[B, N]`, and the first token whose scores were not finite `[B]` (-1 for none).
        """
        import torch

        prompted = BranchDecoder(self.model, prompts, self.device)
        negative = BranchDecoder(self.model, negatives, self.device) if negatives else None
        last: Tensor | None = None
        ids, failed_at = [], torch.full((len(prompts),), -1, device=self.device)
        for step in range(self.image_tokens):
            scores = prompted.log_probabilities(last)
            if negative is not None:
                negative_scores = negative.log_probabilities(last)
                scores = negative_scores + self.protocol.guidance * (scores - negative_scores)
            last = self._sample(scores, keys[step])
            failed_at = torch.where(scores.isfinite().all(-1) | (failed_at >= 0), failed_at, step)
            ids.append(last)
        return torch.stack(ids, 1), failed_at

    def _sample(self, scores: Tensor, keys: Tensor) -> Tensor:
        import torch

        from sar_eval.decoding.noise import gumbel
        from sar_eval.decoding.sampling import apply_min_p, apply_top_k_top_p

        protocol, first_visual = self.protocol, self.checkpoint.text_vocab_size
        first = 0 if protocol.full_vocab else first_visual
        scores = scores[:, first:]
        if protocol.temperature == 0:
            return scores.argmax(-1) + first
        start = first - first_visual
        noise_ids = torch.arange(start, start + scores.shape[1], dtype=torch.int32)
        scores = apply_top_k_top_p(scores / protocol.temperature, protocol.top_k, protocol.top_p)
        scores = apply_min_p(scores, protocol.min_p)
        return (scores + gumbel(keys, noise_ids.to(keys.device))).argmax(-1) + first


class BranchDecoder:
    """One branch of guidance for a batch of draws, with its KV cache."""

    def __init__(self, model: Any, prompts: list[list[int]], device: str) -> None:
        """Left-pad the prompts."""
        import torch

        length = max(map(len, prompts))
        self.model, self.cache = model, None
        self.tokens = torch.tensor([[0] * (length - len(p)) + p for p in prompts], device=device)
        self.mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts], device=device)

    def log_probabilities(self, last: Tensor | None) -> Tensor:
        """Append the last tokens `[B]` and return the next token's log-probabilities, float32 `[B, V]`."""
        import torch

        if last is not None:
            self.tokens = last[:, None]
            self.mask = torch.cat([self.mask, torch.ones_like(self.tokens)], 1)
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -self.tokens.shape[1] :]
        output = self.model(
            self.tokens,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = output.past_key_values
        scores: Tensor = output.logits[:, -1].float().log_softmax(-1)
        return scores


ENGINE = HfEngine
