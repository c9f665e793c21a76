"""Batched decoding in plain PyTorch: one forward a step for guided and negative rows together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sar_eval.decoding.token_engine import TokenEngine
from sar_eval.errors import BadInput
from sar_eval.types import Draw, DrawProtocol

if TYPE_CHECKING:
    from sar_eval.decoding.loop import Decoded

WAVE = 128  # from here on the caches' bytes outweigh the weights': more in flight gain little
ROOM_STEP = 32  # prompts of the next wave are a little longer or shorter: the same buffers serve them
FEW = 4  # images that speculate together


class NativeEngine(TokenEngine):
    """Draws with a SimpleAR-shaped checkpoint.

    Noise is shared by (seed, position, token id), so a draw's tokens do not depend on its batch, its
    worker or the order; in float32 they are those of the engine `hf`. docs/engines.md explains the loop.
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
        compile: bool = False,  # noqa: A002 - torch's own word
        **options: Any,
    ) -> None:
        """As `TokenEngine`, and:

        Args:
            checkpoint: its name.
            protocol: how to draw.
            speculate: lossless speculation (see `decoding.speculation`), for few images at a time.
            window: positions that speculation samples at once.
            compile: let torch compile the step (half a minute at the start; needs a C++ compiler).
            options: those of `TokenEngine`.

        Raises:
            BadInput: a value that cannot work.
        """
        super().__init__(checkpoint, protocol, **options)
        if not isinstance(window, int) or window < 1:
            raise BadInput(f"window is {window!r}: a whole number of at least 1")
        self.speculate, self.window, self.compile = bool(speculate), window, bool(compile)

    def load(self) -> None:
        """Load the decoder; batch buffers are made when the first wave is known."""
        from sar_eval.decoding.load import load_decoder
        from sar_eval.decoding.loop import BatchDecoder, Vocabulary

        self.decoder = load_decoder(self.checkpoint, self.device, self.dtype)
        if self.compile:
            self.decoder.compile()
        first = self.checkpoint.text_vocabulary
        visual = range(first, first + self.checkpoint.codebook_size)
        self.vocabulary = Vocabulary(self.decoder, visual, self.protocol.full_vocab)
        self.batch: BatchDecoder | None = None

    def unload(self) -> None:
        """Let go of weights and buffers."""
        del self.decoder, self.vocabulary, self.batch

    def wave_limit(self, draws: Sequence[Draw]) -> int:
        """As many as fit in the free memory beside the weights, at most `batch_size`."""
        from sar_eval.decoding.memory import draw_bytes, fitting, free_bytes

        limit = min(self.batch_size, FEW if self.speculate else WAVE)
        if not draws:
            return limit
        branches = 1 if self.protocol.guidance == 1 else 2
        slots = max(map(len, self.prompts(list(draws)))) + self.steps
        itemsize, tokens = self.decoder.norm.element_size(), len(self.vocabulary.ids)
        one = draw_bytes(self.decoder.shape, itemsize, branches, slots, tokens)
        kept = self.batch.cache_bytes if self.batch is not None else 0  # taken over, or let go
        return min(limit, fitting(free_bytes(self.device) + kept, one))

    def after_out_of_memory(self) -> None:
        """Free the buffers of the wave that was too large."""
        import torch

        self.batch = None
        if self.device != "cpu":
            torch.cuda.empty_cache()

    def decode_tokens(self, draws: Sequence[Draw]) -> Decoded:
        """Visual codes of a wave."""
        import torch

        from sar_eval.decoding.loop import BatchDecoder
        from sar_eval.decoding.noise import noise_keys
        from sar_eval.decoding.speculation import Speculation

        prompts = self.prompts(draws)
        room = -(-max(map(len, prompts)) // ROOM_STEP) * ROOM_STEP
        keys = noise_keys([draw.seed for draw in draws], self.steps, torch.device(self.device))
        with torch.inference_mode():
            if self.speculate:
                setting = (self.decoder, self.vocabulary, self.protocol)
                return Speculation(*setting, prompts, keys, self.window).run()
            if self.batch is None or not self.batch.fits(len(draws), room):
                self.batch = None  # the old buffers go before the new ones come
                self.batch = BatchDecoder(
                    self.decoder, self.vocabulary, self.protocol, len(draws), room, self.steps
                )
            return self.batch.run(prompts, keys)


ENGINE = NativeEngine
