"""Images by vLLM and by plain PyTorch, to compare."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sar_eval.decoding.load import load_decoder
from sar_eval.decoding.loop import BatchDecoder, Vocabulary
from sar_eval.decoding.noise import noise_keys
from sar_eval.engines.vllm import VllmEngine
from sar_eval.families.simplear import Checkpoint, find_checkpoint
from sar_eval.types import DrawProtocol
from sar_eval.vllm_guided.driver import Drawn, Order

WORDS = ("a", "photo", "of", "one", "red", "blue", "ring", "star", "above", "left", "right", "two", "three")
NEGATIVE = " ".join(WORDS[:9])  # long enough for its prefill to be split


class ReferenceFiles(Checkpoint):
    """The reference's weights, which have no tokenizers beside them."""

    text_vocabulary = 120
    codebook_size = 1000

    def prompt_ids(self, text: str) -> list[int]:
        """Ids for the check at the start, which asks for some of any text."""
        return [1, *(3 + ord(letter) % 100 for letter in text), 2]


@contextmanager
def reference_engine(folder: Path, side: int, **how: Any) -> Iterator[VllmEngine]:
    """The engine on the reference's tiny weights."""
    protocol = how.pop("protocol", DrawProtocol("test", 64, guidance=3.0))
    engine = VllmEngine.__new__(VllmEngine)
    engine.checkpoint = ReferenceFiles(folder.name, folder, folder)
    engine.protocol, engine.device, engine.dtype, engine.batch_size = protocol, "cpu", "float32", 16
    engine.steps, engine.waves, engine.rounding, engine.options = side**2, True, 0.0, how
    engine.load()
    try:
        yield engine
    finally:
        engine.unload()


@contextmanager
def demo_engine(guidance: float = 3.0, name: str = "demo:sft", **how: Any) -> Iterator[VllmEngine]:
    """The engine on a demo checkpoint, without its visual tokenizer."""
    engine = VllmEngine(name, DrawProtocol("test", 64, guidance=guidance), **how)
    engine.load()
    try:
        yield engine
    finally:
        engine.unload()


def demo_orders(number: int, guidance: float = 3.0, **how: Any) -> list[Order]:
    """Orders for the demo checkpoint whose prompts have many different lengths."""
    checkpoint = find_checkpoint("demo:sft")
    negative = tuple(checkpoint.prompt_ids(NEGATIVE)) if guidance != 1 else None
    orders = []
    for n in range(number):
        words = [WORDS[(n * 7 + k * 3) % len(WORDS)] for k in range(1 + n * 5 % 17)]
        prompt = tuple(checkpoint.prompt_ids(" ".join(words)))
        rows = (prompt,) if negative is None else (prompt, negative)
        orders.append(Order(rows, 100 + n, guidance, **how))
    return orders


def codes(engine: VllmEngine, drawn: Sequence[Drawn]) -> list[list[int]]:
    """Visual codes (below 0 for text) of finished images."""
    assert [(p.error, p.failed_at) for p in drawn] == [("", -1)] * len(drawn)
    return [
        [token - engine.layout.text for token in engine.layout.outward(image.tokens)] for image in drawn
    ]


@torch.inference_mode()
def plain_codes(orders: Sequence[Order], steps: int = 64) -> list[list[int]]:
    """What the engine `native` decodes, one image after the other."""
    checkpoint = find_checkpoint("demo:sft")
    decoder = load_decoder(checkpoint, "cpu", "float32")
    first = checkpoint.text_vocabulary
    vocabulary = Vocabulary(decoder, range(first, first + checkpoint.codebook_size), full=False)
    found = []
    for order in orders:
        protocol = DrawProtocol(
            "test",
            64,
            guidance=order.guidance,
            temperature=order.temperature,
            top_k=order.top_k,
            top_p=order.top_p,
        )
        room = max(map(len, order.prompts))
        batch = BatchDecoder(decoder, vocabulary, protocol, 1, room, steps)
        keys = noise_keys([order.seed], steps, torch.device("cpu"))
        found.append(batch.run([list(p) for p in order.prompts], keys).codes[0].tolist())
    return found
