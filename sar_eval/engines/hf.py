"""Reference implementation: transformers' own network, a forward per branch and token, no optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sar_eval.decoding.token_engine import TokenEngine
from sar_eval.discover import need
from sar_eval.errors import BadInput
from sar_eval.types import Draw

if TYPE_CHECKING:
    from torch import Tensor

    from sar_eval.decoding.loop import DecodeOutput
    from sar_eval.families.family import Row
    from sar_eval.families.transformers_network import TransformersNetwork


class HfEngine(TokenEngine):
    """Draws with transformers' own network, as the authors' scripts do except for the noise.

    Slow and simple on purpose: the tokens and the speed of other engines are compared with it, and guidance
    is written out here instead of shared with them. Which class of transformers computes the network, its
    family says (`families.transformers_network`).
    """

    version = "1"

    def check_checkpoint(self) -> None:
        """Refuse families whose network transformers has no class for.

        Raises:
            BadInput: the checkpoint is of one.
        """
        from sar_eval.families.transformers_network import LoadsTransformers

        if not isinstance(self.checkpoint, LoadsTransformers):
            raise BadInput(
                f"engine 'hf' draws with transformers' own class of a network, and the family "
                f"{self.checkpoint.family!r} of {self.checkpoint.name} names none: use --engine native"
            )

    def load(self) -> None:
        """Load the weights into transformers' network; no remote code.

        Raises:
            MissingExtra: transformers is not installed.
        """
        need("transformers", extra="hf", what="engine 'hf'")
        import torch

        from sar_eval.families.transformers_network import LoadsTransformers

        assert isinstance(self.checkpoint, LoadsTransformers)  # see `check_checkpoint`
        dtype = getattr(torch, self.dtype)
        self.network: TransformersNetwork = self.checkpoint.load_transformers(self.device, dtype)

    def unload(self) -> None:
        """Release the weights."""
        del self.network

    def decode_tokens(self, draws: Sequence[Draw]) -> DecodeOutput:
        """Decode the visual codes of a wave."""
        import torch

        from sar_eval.decoding.loop import DecodeOutput
        from sar_eval.decoding.noise import noise_keys

        rows, number = self.branch_rows(draws), len(draws)
        branches = [rows[start : start + number] for start in range(0, len(rows), number)]
        keys = noise_keys([draw.seed for draw in draws], self.image_tokens, torch.device(self.device))
        with torch.inference_mode():
            ids, failed_at = self.decode_ids(branches, keys)
        codes = ids - self.checkpoint.visual_ids.start
        clamped = codes.clamp(0, self.checkpoint.codebook_size - 1)
        out_of_range = (codes != clamped).sum(1)
        steps = [self.plan.slots - 1] * number
        return DecodeOutput(clamped.cpu(), failed_at.cpu(), out_of_range.cpu(), steps)

    def decode_ids(self, branches: Sequence[Sequence[Row]], keys: Tensor) -> tuple[Tensor, Tensor]:
        """Decode token by token.

        Args:
            branches: what stands before the pictures, of the B draws in each of the plan's K branches.
            keys: noise keys int32 `[N, B, 2]`.

        Returns:
            Ids of the codes `[B, N]`, and the first whose scores were not finite `[B]` (-1 for none).
        """
        import torch

        decoders = [BranchDecoder(self.network, rows, self.device) for rows in branches]
        last: Tensor | None = None
        ids: list[Tensor] = []
        failed_at = torch.full((keys.shape[1],), -1, device=self.device)
        for slot in range(self.plan.slots):
            log_probs = [decoder.log_probabilities(last) for decoder in decoders]
            if slot in self.plan.forced:  # whatever its scores are
                last = torch.full_like(failed_at, self.plan.forced[slot])
                continue
            scores, code = self._guided(log_probs, len(ids)), len(ids)
            last = self._sample(scores, keys[code])
            failed_at = torch.where(scores.isfinite().all(-1) | (failed_at >= 0), failed_at, code)
            ids.append(last)
        return torch.stack(ids, 1), failed_at

    def _guided(self, log_probs: Sequence[Tensor], code: int) -> Tensor:
        """Log-probabilities of the guided distribution up to a constant, of those of the K branches."""
        *branches, unconditional = log_probs
        weights = self.plan.weights[code if len(self.plan.weights) > 1 else 0]
        scores = unconditional
        for weight, branch in zip(weights, branches, strict=True):
            scores = scores + weight * (branch - unconditional)
        return scores

    def _sample(self, scores: Tensor, keys: Tensor) -> Tensor:
        import torch

        from sar_eval.decoding.noise import gumbel
        from sar_eval.decoding.sampling import apply_min_p, apply_top_k_top_p

        protocol, visual_ids = self.protocol, self.checkpoint.visual_ids
        if not protocol.full_vocab:
            scores = scores[:, visual_ids.start - self.network.first_id :][:, : len(visual_ids)]
        first = self.network.first_id if protocol.full_vocab else visual_ids.start
        if protocol.temperature == 0:
            return scores.argmax(-1) + first
        start = first - visual_ids.start
        noise_ids = torch.arange(start, start + scores.shape[1], dtype=torch.int32)
        scores = apply_top_k_top_p(scores / protocol.temperature, protocol.top_k, protocol.top_p)
        scores = apply_min_p(scores, protocol.min_p)
        return (scores + gumbel(keys, noise_ids.to(keys.device))).argmax(-1) + first


class BranchDecoder:
    """One branch of guidance for a batch of draws, with its KV cache."""

    def __init__(self, network: TransformersNetwork, rows: Sequence[Row], device: str) -> None:
        """Embed the rows, and pad them on the left."""
        import torch
        import torch.nn.functional as F

        self.network: TransformersNetwork = network
        self.cache: Any = None
        like = network.embed(torch.zeros((1, 1), dtype=torch.int64, device=device))
        embedded = [
            row.to(like)
            if isinstance(row, torch.Tensor)
            else network.embed(torch.tensor([row], device=device))[0]
            for row in rows
        ]
        length = max(map(len, rows))
        padding = [length - len(row) for row in rows]
        pairs = zip(embedded, padding, strict=True)
        self.inputs = torch.stack([F.pad(row, (0, 0, empty, 0)) for row, empty in pairs])
        self.mask = torch.tensor([[0] * empty + [1] * (length - empty) for empty in padding], device=device)

    def log_probabilities(self, last: Tensor | None) -> Tensor:
        """Append the last tokens `[B]` and return the next token's log-probabilities, float32 `[B, V]`."""
        import torch

        if last is not None:
            self.inputs = self.network.embed(last[:, None])
            self.mask = torch.cat([self.mask, torch.ones_like(last[:, None])], 1)
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -self.inputs.shape[1] :]
        logits, self.cache = self.network.logits(self.inputs, self.mask, positions, self.cache)
        scores: Tensor = logits.float().log_softmax(-1)
        return scores


ENGINE = HfEngine
