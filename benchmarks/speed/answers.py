"""Measures how many of DPG's questions mPLUG answers a second, and how many with one full pass for each.

    python benchmarks/speed/answers.py [--images 1] [--questions 15] [--device cuda] [--small]

The baseline is what the original's pipeline does: for each question resize and encode the image, encode
the question, and search with all beams tiled, each step over the whole text so far, with keys and values
computed again for each beam. It uses the same modules and weights, and its answers must be the same.
Weights are random, of the full size unless `--small`, with a decoder that mostly writes yes or no and then
ends, as the trained one does; images are generated.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from PIL import Image

from sar_eval.networks.mplug.search import beam_search
from sar_eval.networks.mplug.shape import MplugShape, read_shape
from sar_eval.networks.mplug.text import Attention
from sar_eval.networks.mplug.tokenizer import MAX_LENGTH, START
from sar_eval.networks.mplug.vqa import MplugVqa
from sar_eval.networks.mplug.weights import WEIGHTS, expected_shapes
from sar_eval.runtime.slots import cores

NAMES = "dog cat car red house blue tree old man woman small table round glass green river".split()  # noqa: SIM905
FULL = {"text_encoder_layers": 6, "fusion_layers": 6, "text_decode_layers": 12, "num_hidden_layers": 12}
WIDE = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "vocab_size": 30522}
REST = {"max_position_embeddings": 512, "type_vocab_size": 2, "stride_layer": 6, "layer_norm_eps": 1e-12}
SMALL = {"image_res": 112, "clip_vision_layers": 4, "clip_vision_width": 256}
BIASES = {"yes": 13.18, "no": 14.0, "two": 11.0, "red": 11.0, "left": 11.0}  # added to the decoder's bias


def write_random(folder: Path, small: bool) -> Path:
    """A folder in the original's format."""
    import json

    folder.mkdir()
    layers = dict.fromkeys(FULL, 2) if small else FULL
    (folder / "config.yaml").write_text(yaml.safe_dump(SMALL if small else {}))
    (folder / "config_bert.json").write_text(json.dumps(layers | WIDE | REST))
    words = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?"]
    words += [*"is there a the yes no two left".split(), *NAMES]  # noqa: SIM905
    words += [f"word{n}" for n in range(len(words), WIDE["vocab_size"])]
    (folder / "vocab.txt").write_text("\n".join(words))
    shape = read_shape(folder)
    torch.manual_seed(0)
    state = {name: random_tensor(name, size) for name, size in expected_shapes(shape).items()}
    # Larger question states: beside 1,296 random patches they would change no answer.
    state[f"fusion_encoder.encoder.layer.{shape.active_layers[-1]}.output.LayerNorm.weight"] *= 6
    for word, amount in {**BIASES, "[SEP]": 22.0}.items():
        state["text_decoder.cls.predictions.bias"][words.index(word)] += amount
    torch.save(state, folder / WEIGHTS)
    return folder


def random_tensor(name: str, size: tuple[int, ...]) -> torch.Tensor:
    """Random values that keep activations near 1."""
    if "norm" in name.lower() or ".ln_" in name:
        return torch.randn(size) * 0.1 + (1.0 if name.endswith("weight") else 0.0)
    if name.endswith("weight") and len(size) > 1 and "embedding" not in name:
        return torch.randn(size) * (1.2 / torch.tensor(size[1:]).prod().sqrt())
    return torch.randn(size) * (0.06 if "word_embeddings" in name else 0.1)


class UncachedDecoder:
    """A decoder without caches: each step computes everything for the whole texts."""

    def __init__(self, vqa: MplugVqa, text: torch.Tensor, mask: torch.Tensor, tokens: torch.Tensor) -> None:
        self.decoder, self.heads = vqa.network.text_decoder, vqa.shape.heads
        self.context, self.num_beams = torch.cat([tokens, text], 1), vqa.shape.beams
        self.mask = F.pad(mask, (tokens.shape[1], 0), value=True)[:, None, None]
        self.texts = torch.full((self.num_beams, 1), START, device=text.device)

    def start(self) -> torch.Tensor:
        """Logits `[1, V]`; all beams are computed, although they are equal."""
        return self.logits()[:1]

    def advance(self, tokens: torch.Tensor, beams: torch.Tensor) -> torch.Tensor:
        """See `search.StepDecoder`, for one question."""
        self.texts = torch.cat([self.texts[beams[0]], tokens[0][:, None]], 1)
        return self.logits()[None]

    def logits(self) -> torch.Tensor:
        """Logits of the next token of each beam `[B, V]`."""
        positions = torch.arange(self.texts.shape[1], device=self.texts.device)
        x = self.decoder.bert.embeddings(self.texts, positions)
        context = self.context.repeat_interleave(self.num_beams, 0)
        mask = self.mask.expand(self.num_beams, -1, -1, -1)
        for layer in self.decoder.bert.encoder:
            x = attend(layer.attention, x, x, is_causal=True)
            x = layer.feed_forward(attend(layer.crossattention, x, context, attn_mask=mask))
        return self.decoder.logits(x[:, -1])


def attend(attention: Attention, x: torch.Tensor, context: torch.Tensor, **options: object) -> torch.Tensor:
    """Attention of `x` to `context`, with projection and residual."""
    queries, keys_values = attention.queries(x), attention.keys_values(context)
    return attention.project(F.scaled_dot_product_attention(queries, *keys_values, **options), x)


@torch.inference_mode()
def baseline(vqa: MplugVqa, image: np.ndarray, question: str) -> tuple[str, int]:
    """One question's answer by a full pass, and its number of steps."""
    encoded, network = vqa.tokenizer.encode(question), vqa.network
    ids = torch.tensor([encoded.ids], device=vqa.device)
    mask = torch.arange(MAX_LENGTH, device=vqa.device)[None] < encoded.length
    tokens = network.encode_images(vqa.pixels([vqa.prepare(image)]))
    text, tokens, _ = network.fusion_encoder(network.text_encoder(ids, mask), mask, tokens, [1])
    decoder = UncachedDecoder(vqa, text, mask, tokens)
    result = beam_search(decoder.start(), decoder, vqa.search_config)[0]
    return vqa.tokenizer.decode(result.ids), result.steps


def count_operations(shape: MplugShape, questions: int) -> dict[str, float]:
    """Minimum floating-point operations of an image with its questions and two-token answers, by part.

    Two for each weight and token of a matrix product, and attention's two products; nothing else.
    """
    tokens, width, text = shape.image_tokens, shape.vision_width, MAX_LENGTH * questions
    attention, layer = 8 * shape.hidden**2, 8 * shape.hidden**2 + 4 * shape.hidden * shape.inner
    decoder_tokens = questions * (1 + shape.beams)  # one step of one beam, one of all beams
    vision = shape.vision_layers * tokens * (24 * width**2 + 4 * tokens * width)
    keys_values = (shape.fusion_layers + shape.decoder_layers) * tokens * 4 * shape.hidden**2
    cross = 4 * shape.hidden**2 + 4 * tokens * shape.hidden
    return {
        "vision tower": vision + 2 * tokens * width * shape.hidden,
        "keys and values of the image": keys_values,
        "questions and fusion": text * (shape.text_layers * layer + shape.fusion_layers * (layer + cross)),
        "decoder": decoder_tokens * shape.decoder_layers * (layer + cross)
        + text * shape.decoder_layers * attention / 2
        + decoder_tokens * 2 * shape.hidden * (shape.vocabulary + shape.hidden),
    }


def peak_speed(device: torch.device) -> float:
    """Floating-point operations a second of a large matrix product on this device."""
    a = torch.randn(2048, 2048, device=device)
    best = 0.0
    for _ in range(8):
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * 2048**3 / (time.perf_counter() - start))
    return best


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--questions", type=int, default=15, help="of each image")
    parser.add_argument("--batch", type=int, default=4, help="images of a pass")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--small", action="store_true", help="a small network, to try the script")
    return parser.parse_args()


def main() -> None:
    """Measure both ways in turn and print a table."""
    options = read_options()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)) for _ in range(options.images)]
    images = [np.asarray(image.resize((1024, 1024))) for image in coarse]
    texts = [
        f"Is there a {NAMES[n % 16]} left the {NAMES[(n // 16 + n + 5) % 16]}?"
        for n in range(options.questions)
    ]
    with tempfile.TemporaryDirectory() as folder:
        vqa = MplugVqa(write_random(Path(folder) / "mplug", options.small), device=options.device)

    def batched() -> list[str]:
        answers: list[str] = []
        for start in range(0, options.images, options.batch):
            batch = [vqa.prepare(image) for image in images[start : start + options.batch]]
            outputs = vqa.answer(batch, [texts] * len(batch))
            answers += [output.text for row in outputs for output in row if output]
        return answers

    vqa.answer([vqa.prepare(images[0])], [texts[:1]])  # warm-up
    best = peak_speed(vqa.device)
    start = time.perf_counter()
    ours = batched()
    middle = time.perf_counter()
    answers = [baseline(vqa, image, text) for image in images for text in texts]
    end = time.perf_counter()
    assert ours == [text for text, _ in answers], "the two ways answer differently"
    report(options, vqa, answers, (middle - start, end - middle), best)


def report(
    options: argparse.Namespace,
    vqa: MplugVqa,
    answers: list[tuple[str, int]],
    seconds: tuple[float, float],
    best: float,
) -> None:
    """Print the measured times beside the time of the arithmetic alone."""
    number, cuda = len(answers), options.device.startswith("cuda")
    card = torch.cuda.get_device_name() if cuda else f"{options.threads} threads of {cores()} cores"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {card}, torch {torch.__version__}, float32")
    size = "small" if options.small else "full"
    print(f"{options.images} image(s), {options.questions} questions each, {size} size\n")
    operations = count_operations(vqa.shape, options.questions)
    minimum = sum(operations.values()) * options.images / best
    print("| way | seconds | questions/s | ratio |\n|---|---:|---:|---:|")
    rows = {"one pass a question": seconds[1], "one pass an image": seconds[0], "arithmetic alone": minimum}
    for name, total in rows.items():
        print(f"| {name} | {total:.2f} | {number / total:.2f} | {seconds[1] / total:.1f}x |")
    print(f"\nArithmetic of an image at {best / 1e9:.0f} GFLOP/s (a 2048 x 2048 product here):", end=" ")
    print(", ".join(f"{name} {amount / 1e9:.0f} GFLOP" for name, amount in operations.items()))
    counts = dict(sorted(Counter(text for text, _ in answers).items()))
    steps = sum(number_of_steps for _, number_of_steps in answers) / number
    print(f"\nAnswers are identical: {counts}; {steps:.1f} steps a question")


if __name__ == "__main__":
    main()
