"""Engines on vLLM, and the tokens of plain PyTorch to compare with."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sar_eval.decoding.load import load_decoder
from sar_eval.decoding.loop import BatchDecoder, Vocabulary
from sar_eval.decoding.noise import noise_keys
from sar_eval.engines.vllm import VllmEngine
from sar_eval.families.image_plan import ImagePlan, guidance_weights
from sar_eval.families.simplear import Checkpoint, find_checkpoint
from sar_eval.types import DrawProtocol
from sar_eval.vllm_guided.driver import ImageOutput, ImageRequest

WORDS = ("a", "photo", "of", "one", "red", "blue", "ring", "star", "above", "left", "right", "two", "three")
NEGATIVE = " ".join(WORDS[:9])  # long enough for its prefill to be split


class ReferenceFiles(Checkpoint):
    """The reference's weights, which come without tokenizers."""

    text_vocab_size = 120
    codebook_size = 1000

    def prompt_ids(self, text: str) -> list[int]:
        """Any ids, for the engine's self-check."""
        return [1, *(3 + ord(letter) % 100 for letter in text), 2]


@contextmanager
def reference_engine(folder: Path, grid_side: int, **options: Any) -> Iterator[VllmEngine]:
    """The engine on the reference's tiny weights."""
    protocol = options.pop("protocol", DrawProtocol("test", 64, guidance=3.0))
    engine = VllmEngine.__new__(VllmEngine)
    engine.checkpoint = ReferenceFiles(folder.name, folder, folder)
    engine.protocol, engine.device, engine.dtype, engine.batch_size = protocol, "cpu", "float32", 16
    engine.image_tokens, engine.waves, engine.rounding, engine.options = grid_side**2, True, 0.0, options
    engine.grid = (grid_side, grid_side)
    engine.plan = engine.checkpoint.plan(protocol, engine.grid)
    engine.load()
    try:
        yield engine
    finally:
        engine.unload()


@contextmanager
def demo_engine(guidance: float = 3.0, name: str = "demo:sft", **options: Any) -> Iterator[VllmEngine]:
    """The engine on a demo checkpoint, without its visual tokenizer."""
    engine = VllmEngine(name, DrawProtocol("test", 64, guidance=guidance), **options)
    engine.load()
    try:
        yield engine
    finally:
        engine.unload()


def demo_requests(number: int, guidance: float = 3.0, **sampling: Any) -> list[ImageRequest]:
    """Requests for the demo checkpoint, with prompts of many different lengths."""
    checkpoint = find_checkpoint("demo:sft")
    negative = tuple(checkpoint.prompt_ids(NEGATIVE)) if guidance != 1 else None
    requests = []
    for n in range(number):
        words = [WORDS[(n * 7 + k * 3) % len(WORDS)] for k in range(1 + n * 5 % 17)]
        prompt = tuple(checkpoint.prompt_ids(" ".join(words)))
        prompts = (prompt,) if negative is None else (prompt, negative)
        requests.append(ImageRequest(prompts, 100 + n, guidance, **sampling))
    return requests


def codes(engine: VllmEngine, outputs: Sequence[ImageOutput]) -> list[list[int]]:
    """Visual codes (below 0 for text) of finished images."""
    assert [(output.error, output.failed_at) for output in outputs] == [("", -1)] * len(outputs)
    layout = engine.layout
    return [
        [token - layout.text_vocab_size for token in layout.to_checkpoint_ids(output.tokens)]
        for output in outputs
    ]


@torch.inference_mode()
def native_codes(requests: Sequence[ImageRequest], image_tokens: int = 64) -> list[list[int]]:
    """The codes that the engine `native` decodes, one image after the other."""
    checkpoint = find_checkpoint("demo:sft")
    decoder = load_decoder(checkpoint, "cpu", "float32")
    vocabulary = Vocabulary(decoder, checkpoint.visual_ids, full_vocab=False)
    codes_of_images = []
    for request in requests:
        protocol = DrawProtocol(
            "test",
            64,
            guidance=request.guidance,
            temperature=request.temperature,
            top_k=request.top_k,
            top_p=request.top_p,
        )
        length = max(map(len, request.prompts))
        side = math.isqrt(image_tokens)
        plan = ImagePlan(side, side, guidance_weights(request.guidance))
        batch = BatchDecoder(decoder, vocabulary, protocol, 1, length, plan)
        keys = noise_keys([request.seed], image_tokens, torch.device("cpu"))
        output = batch.run([list(prompt) for prompt in request.prompts], keys)
        codes_of_images.append(output.codes[0].tolist())
    return codes_of_images
