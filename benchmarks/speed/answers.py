"""How many of DPG's questions mPLUG answers a second here, against one full pass for each question.

    python benchmarks/speed/answers.py [--images 1] [--questions 15] [--device cuda] [--small]

The straightforward way is what the original's pipeline does: for each question resize and see the
image, read the question, and search with all beams tiled, each step over the whole text so far and
over keys and values computed anew for each beam. It is written out below from the same modules and
weights, and its answers must be the same. Weights are random, of the full size unless `--small`,
with a decoder that mostly says yes or no and ends, as the trained one does; images are made up.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from PIL import Image

from sar_eval.networks.mplug.search import Rules, search
from sar_eval.networks.mplug.shape import MplugShape, read_shape
from sar_eval.networks.mplug.tokenizer import END, LENGTH, START
from sar_eval.networks.mplug.vqa import MplugVqa
from sar_eval.networks.mplug.weights import WEIGHTS, expected_shapes
from sar_eval.runtime.slots import cores

NAMES = "dog cat car red house blue tree old man woman small table round glass green river".split()  # noqa: SIM905
FULL = {"text_encoder_layers": 6, "fusion_layers": 6, "text_decode_layers": 12, "num_hidden_layers": 12}
WIDE = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "vocab_size": 30522}
REST = {"max_position_embeddings": 512, "type_vocab_size": 2, "stride_layer": 6, "layer_norm_eps": 1e-12}
SMALL = {"image_res": 112, "clip_vision_layers": 4, "clip_vision_width": 256}
MOSTLY = {"yes": 13.18, "no": 14.0, "two": 11.0, "red": 11.0, "left": 11.0}  # added to the decoder's bias


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
    state = {name: drawn(name, size) for name, size in expected_shapes(shape).items()}
    # Louder questions: beside 1,296 patches of chance they would change no answer.
    state[f"fusion_encoder.encoder.layer.{shape.running[-1]}.output.LayerNorm.weight"] *= 6
    for word, more in {**MOSTLY, "[SEP]": 22.0}.items():
        state["text_decoder.cls.predictions.bias"][words.index(word)] += more
    torch.save(state, folder / WEIGHTS)
    return folder


def drawn(name: str, size: tuple[int, ...]) -> torch.Tensor:
    """Random values that keep activations of about one."""
    if "norm" in name.lower() or ".ln_" in name:
        return torch.randn(size) * 0.1 + (1.0 if name.endswith("weight") else 0.0)
    if name.endswith("weight") and len(size) > 1 and "embedding" not in name:
        return torch.randn(size) * (1.2 / torch.tensor(size[1:]).prod().sqrt())
    return torch.randn(size) * (0.06 if "word_embeddings" in name else 0.1)


class Plain:
    """A decoding that keeps nothing: each step reads all texts and looks at everything anew."""

    def __init__(self, vqa: MplugVqa, text: torch.Tensor, mask: torch.Tensor, tokens: torch.Tensor) -> None:
        self.decoder, self.heads = vqa.network.text_decoder, vqa.shape.heads
        self.seen, self.beams = torch.cat([tokens, text], 1), vqa.shape.beams
        self.mask = F.pad(mask, (tokens.shape[1], 0), value=True)[:, None, None]
        self.texts = torch.full((self.beams, 1), START, device=text.device)

    def start(self) -> torch.Tensor:
        """Logits `[1, V]`; all beams are computed, though they are the same."""
        return self.logits()[:1]

    def advance(self, tokens: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """See `mplug_search.Decoding`, for one question."""
        self.texts = torch.cat([self.texts[rows[0]], tokens[0][:, None]], 1)
        return self.logits()[None]

    def logits(self) -> torch.Tensor:
        """Of the next token of each beam `[B, V]`."""
        places = torch.arange(self.texts.shape[1], device=self.texts.device)
        x = self.decoder.bert.embeddings(self.texts, places)
        tiled, mask = self.seen.repeat_interleave(self.beams, 0), self.mask.expand(self.beams, -1, -1, -1)
        for layer in self.decoder.bert.encoder:
            own = layer.attention
            mixed = F.scaled_dot_product_attention(own.queries(x), *own.memory(x), is_causal=True)
            x, across = own.finish(mixed, x), layer.crossattention
            mixed = F.scaled_dot_product_attention(across.queries(x), *across.memory(tiled), attn_mask=mask)
            x = layer.feed(across.finish(mixed, x))
        return self.decoder.logits(x[:, -1])


@torch.inference_mode()
def straightforward(vqa: MplugVqa, image: np.ndarray, question: str, rules: Rules) -> tuple[str, int]:
    """One question's answer by a full pass, and the steps it took."""
    encoded, network = vqa.words.encode(question), vqa.network
    ids = torch.tensor([encoded.ids], device=vqa.device)
    mask = torch.arange(LENGTH, device=vqa.device)[None] < encoded.length
    tokens = network.see(vqa.pixels([vqa.prepare(image)]))
    text, tokens, _ = network.fusion_encoder(network.text_encoder(ids, mask), mask, tokens, [1])
    plain = Plain(vqa, text, mask, tokens)
    found = search(plain.start(), plain, rules)[0]
    return vqa.words.decode(found.ids), found.steps


def products(shape: MplugShape, questions: int) -> dict[str, float]:
    """Least floating-point operations of an image with its questions and two-token answers.

    Two for each weight and token of a product; attention's two products; nothing else.
    """
    tokens, width, text = shape.image_tokens, shape.vision_width, LENGTH * questions
    own, layer = 8 * shape.hidden**2, 8 * shape.hidden**2 + 4 * shape.hidden * shape.inner
    looks = questions * (1 + shape.beams)  # rows of the decoder: one step of one beam, one of all
    vision = shape.vision_layers * tokens * (24 * width**2 + 4 * tokens * width)
    memory = (shape.fusion_layers + shape.decoder_layers) * tokens * 4 * shape.hidden**2
    across = 4 * shape.hidden**2 + 4 * tokens * shape.hidden
    return {
        "vision tower": vision + 2 * tokens * width * shape.hidden,
        "keys and values of the image": memory,
        "questions and fusion": text * (shape.text_layers * layer + shape.fusion_layers * (layer + across)),
        "decoder": looks * shape.decoder_layers * (layer + across)
        + text * shape.decoder_layers * own / 2
        + looks * 2 * shape.hidden * (shape.vocabulary + shape.hidden),
    }


def peak(device: torch.device) -> float:
    """Floating-point operations a second of a large product here."""
    a = torch.randn(2048, 2048, device=device)
    best = 0.0
    for _ in range(8):
        began = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * 2048**3 / (time.perf_counter() - began))
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
    told = read_options()
    torch.set_num_threads(told.threads)
    chance = np.random.default_rng(0)
    coarse = [Image.fromarray(chance.integers(0, 255, (8, 8, 3), np.uint8)) for _ in range(told.images)]
    images = [np.asarray(one.resize((1024, 1024))) for one in coarse]
    texts = [
        f"Is there a {NAMES[n % 16]} left the {NAMES[(n // 16 + n + 5) % 16]}?"
        for n in range(told.questions)
    ]
    with tempfile.TemporaryDirectory() as place:
        vqa = MplugVqa(write_random(Path(place) / "mplug", told.small), device=told.device)
    rules = Rules(vqa.shape.beams, vqa.shape.shortest, vqa.shape.longest, START, END)

    def ours() -> list[str]:
        found: list[str] = []
        for start in range(0, told.images, told.batch):
            part = [vqa.prepare(image) for image in images[start : start + told.batch]]
            replies = vqa.answer(part, [texts] * len(part))
            found += [reply.text for own in replies for reply in own if reply]
        return found

    def plainly() -> list[tuple[str, int]]:
        return [straightforward(vqa, image, text, rules) for image in images for text in texts]

    vqa.answer([vqa.prepare(images[0])], [texts[:1]])  # warm
    best = peak(vqa.device)
    began = time.perf_counter()
    fast = ours()
    middle = time.perf_counter()
    slow = plainly()
    ended = time.perf_counter()
    assert fast == [text for text, _ in slow], "the two ways answer differently"
    report(told, vqa, slow, (middle - began, ended - middle), best)


def report(
    told: argparse.Namespace,
    vqa: MplugVqa,
    slow: list[tuple[str, int]],
    seconds: tuple[float, float],
    best: float,
) -> None:
    """Print what was measured beside what the arithmetic alone would take."""
    number, cuda = len(slow), told.device.startswith("cuda")
    card = torch.cuda.get_device_name() if cuda else f"{told.threads} threads of {cores()} cores"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {card}, torch {torch.__version__}, float32")
    size = "small" if told.small else "full"
    print(f"{told.images} image(s), {told.questions} questions each, {size} size\n")
    parts = products(vqa.shape, told.questions)
    least = sum(parts.values()) * told.images / best
    print("| way | seconds | questions/s | ratio |\n|---|---:|---:|---:|")
    rows = {"one pass a question": seconds[1], "one pass an image": seconds[0], "arithmetic alone": least}
    for name, taken in rows.items():
        print(f"| {name} | {taken:.2f} | {number / taken:.2f} | {seconds[1] / taken:.1f}x |")
    print(f"\nArithmetic of an image at {best / 1e9:.0f} GFLOP/s (a 2048 x 2048 product here):", end=" ")
    print(", ".join(f"{name} {amount / 1e9:.0f} GFLOP" for name, amount in parts.items()))
    said = {text for text, _ in slow}
    count = {text: sum(text == other for other, _ in slow) for text in sorted(said)}
    steps = sum(taken for _, taken in slow) / number
    print(f"\nAnswers are identical: {count}; {steps:.1f} steps a question")


if __name__ == "__main__":
    main()
