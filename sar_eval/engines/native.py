"""Batched decoding in plain PyTorch: one forward per step for both branches of guidance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sar_eval.decoding.token_engine import TokenEngine
from sar_eval.errors import BadInput
from sar_eval.types import Draw, DrawProtocol

if TYPE_CHECKING:
    from torch import Tensor

    from sar_eval.decoding.loop import DecodeOutput

MAX_WAVE = 128  # draws; beyond this the KV caches outweigh the weights, and a larger wave gains little
PROMPT_LENGTH_MULTIPLE = 32  # prompt lengths are rounded up to it, so that waves share the same buffers
MAX_SPECULATIVE_WAVE = 4  # draws


class NativeEngine(TokenEngine):
    """Draws with a checkpoint of any family of tokens.

    Noise is a function of (seed, position, token id), so a draw's tokens do not depend on its batch, its
    worker or the order; in float32 they equal those of the engine `hf`. docs/engines.md explains the loop.
    """

    version = "2"
    speed_options = (*TokenEngine.speed_options, "speculate", "window", "compile")

    def __init__(
        self,
        checkpoint: str,
        protocol: DrawProtocol,
        *,
        speculate: bool = False,
        window: int = 16,
        compile: bool = False,  # noqa: A002 - torch's own name
        **options: Any,
    ) -> None:
        """Like `TokenEngine`, and:

        Args:
            checkpoint: name of the checkpoint.
            protocol: how to draw.
            speculate: lossless speculative decoding (see `decoding.speculation`), for few images at a time.
            window: positions that speculation samples in one forward.
            compile: use torch.compile on the step (half a minute at the start; needs a C++ compiler).
            options: those of `TokenEngine`.

        Raises:
            BadInput: a value that cannot work.
        """
        super().__init__(checkpoint, protocol, **options)
        if not isinstance(window, int) or window < 1:
            raise BadInput(f"window is {window!r}: a whole number of at least 1")
        self.speculate, self.window, self.compile = bool(speculate), window, bool(compile)

    def load(self) -> None:
        """Load the decoder; batch buffers are allocated for the first wave."""
        from sar_eval.decoding.load import load_decoder
        from sar_eval.decoding.loop import BatchDecoder, Vocabulary

        self.decoder = load_decoder(self.checkpoint, self.device, self.dtype)
        if self.compile:
            self.decoder.compile()
        visual_ids = self.checkpoint.visual_ids
        self.vocabulary = Vocabulary(self.decoder, visual_ids, self.protocol.full_vocab)
        self.batch: BatchDecoder | None = None

    def unload(self) -> None:
        """Release weights and buffers."""
        del self.decoder, self.vocabulary, self.batch

    def wave_limit(self, draws: Sequence[Draw]) -> int:
        """As many as fit in the free memory beside the weights, at most `batch_size`."""
        from sar_eval.decoding.memory import draw_bytes, free_bytes, max_draws

        limit = min(self.batch_size, MAX_SPECULATIVE_WAVE if self.speculate else MAX_WAVE)
        if not draws:
            return limit
        length = max(map(len, self.branch_rows(list(draws)))) + self.plan.slots
        itemsize, vocab_size = self.decoder.norm.element_size(), len(self.vocabulary.noise_ids)
        per_draw = draw_bytes(self.decoder.config, itemsize, self.plan.branches, length, vocab_size)
        allocated = self.batch.cache_bytes if self.batch is not None else 0  # reused or released
        return min(limit, max_draws(free_bytes(self.device) + allocated, per_draw))

    def release_buffers(self) -> None:
        """Release the buffers of the last wave, which was too large or is not followed by one."""
        import torch

        self.batch = None
        if self.device != "cpu":
            torch.cuda.empty_cache()

    def decode_tokens(self, draws: Sequence[Draw]) -> DecodeOutput:
        """Decode the visual codes of a wave."""
        return self._decode(draws, scored=False)

    def decode_with_log_probs(self, draws: Sequence[Draw]) -> DecodeOutput:
        """Decode the visual codes of a wave and their log-probabilities.

        Raises:
            BadInput: with speculation.
        """
        if self.speculate:
            raise BadInput("speculation gives no log-probabilities: leave out speculate=true")
        return self._decode(draws, scored=True)

    def _decode(self, draws: Sequence[Draw], scored: bool) -> DecodeOutput:
        import torch

        from sar_eval.decoding.loop import BatchDecoder
        from sar_eval.decoding.noise import noise_keys
        from sar_eval.decoding.speculation import SpeculativeDecoder

        prompts = self.branch_rows(draws)
        length = -(-max(map(len, prompts)) // PROMPT_LENGTH_MULTIPLE) * PROMPT_LENGTH_MULTIPLE
        keys = noise_keys([draw.seed for draw in draws], self.image_tokens, torch.device(self.device))
        common = (self.decoder, self.vocabulary, self.protocol)
        with torch.inference_mode():
            if self.speculate:
                return SpeculativeDecoder(*common, self.plan, prompts, keys, self.window).run()
            if self.batch is None or not self.batch.fits(len(draws), length, scored):
                self.batch = None  # release the old buffers before new ones are allocated
                self.batch = BatchDecoder(*common, len(draws), length, self.plan, scored)
            return self.batch.run(prompts, keys)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copy a trainer's weights into the tensors that are there (see `TokenEngine`)."""
        self.decoder.load_weights(self.checkpoint.checked_weights(dict(weights), "the new weights"))
        self.vocabulary.load_weights(self.decoder)


ENGINE = NativeEngine
