"""Decoding speed of the families beside SimpleAR at their real shapes, on random weights.

    python benchmarks/speed/decode_families.py                        # Janus-Pro-1B, pictures of 576 tokens
    python benchmarks/speed/decode_families.py --rows 2 --images 1 4  # a part of one
    python benchmarks/speed/decode_families.py --device cuda --images 1 8 64 128

The baseline of Janus and Emu3 is transformers' own `generate`, on the same weights and the same batch, with
guidance, sampling from all codes; LlamaGen, which transformers does not have, is measured against our own
step-by-step loop. Emu3 has 8 billion weights: `--layers` takes a part of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import math
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

if __package__:
    from benchmarks.speed.decode import HEADER, Measurement, copy_bandwidth, now, peak_gb
else:
    from decode import HEADER, Measurement, copy_bandwidth, now, peak_gb

from sar_eval.decoding.linear import HalfStored
from sar_eval.decoding.loop import BatchDecoder, DecodeOutput, Row, Vocabulary
from sar_eval.decoding.memory import kv_bytes
from sar_eval.decoding.noise import noise_keys
from sar_eval.decoding.speculation import SpeculativeDecoder
from sar_eval.decoding.transformer import Decoder
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.emu3_tensors import emu3_config, match_emu3
from sar_eval.families.image_plan import ImagePlan, guidance_weights
from sar_eval.families.janus_tensors import janus_config, match_janus
from sar_eval.families.llamagen_tensors import PREFIX_PLACES, llamagen_config
from sar_eval.families.tensor_names import decoder_shapes
from sar_eval.types import DrawProtocol

PROMPT_LENGTH = 24  # tokens, about those of a GenEval prompt in its template
WINDOW = 16  # of speculation, as the engine's default
Generate = Callable[[list[list[int]]], torch.Tensor]  # token ids of prompts to codes `[B, tokens]`
LLAMAS: dict[str, dict[str, Any]] = {
    "janus-pro-1b": {
        "vocab_size": 102_400,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 16_384,
    },
    "janus-pro-7b": {
        "vocab_size": 102_400,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 30,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 16_384,
    },
    "emu3": {
        "vocab_size": 184_622,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 9216,
        "rope_theta": 1e6,
    },
}
WIDTHS = {"janus-pro-1b": 24, "janus-pro-7b": 24, "emu3": 90, "llamagen-xl-256": 16, "llamagen-xl-512": 32}
EMU3_CODES, EMU3_FIRST = 32_768, 151_854  # the codes' ids are the last of the vocabulary
END_OF_LINE = 151_846
PAD, BOS, BOI = 100_015, 100_000, 100_016  # of Janus-Pro's tokenizer


@dataclasses.dataclass
class Subject:
    """A network of random weights, and what draws with it besides.

    Attributes:
        decoder: ours.
        plan: of a picture.
        visual_ids: ids of the codes.
        protocol: guidance and top-k of its authors.
        generate: transformers' own, of the same weights; None where it has none.
    """

    decoder: Decoder
    plan: ImagePlan
    visual_ids: range
    protocol: DrawProtocol
    generate: Generate | None = None

    def prompts(self, images: int) -> list[list[int]]:
        """Ids of as many prompts, of equal length."""
        generator = torch.Generator().manual_seed(1)
        words = torch.randint(3, 90_000, (images, PROMPT_LENGTH - 2), generator=generator).tolist()
        return [[BOS, *ids, BOI] for ids in words]

    def rows(self, prompts: list[list[int]]) -> list[Row]:
        """The prompted rows, then as many of the other branch."""
        return [*prompts, *([ids[0], *[PAD] * (len(ids) - 2), ids[-1]] for ids in prompts)]


class LlamaGenSubject(Subject):
    """Rows are embeddings, all 120 places of them."""

    def rows(self, prompts: list[list[int]]) -> list[Row]:
        """Random captions, and one row that all share in the other branch."""
        hidden, head = self.decoder.config.hidden_size, self.decoder.norm
        captions = [torch.randn(PREFIX_PLACES, hidden) for _ in range(len(prompts) + 1)]
        rows: list[Row] = [row.to(head.device, head.dtype) for row in captions]
        return rows[:-1] + rows[-1:] * len(prompts)


def janus(shape: str, rows: int, options: argparse.Namespace) -> Subject:
    """Janus-Pro, in transformers' class and in ours, of one set of weights."""
    from transformers import GenerationConfig, JanusConfig, JanusForConditionalGeneration

    llama = LLAMAS[shape] | layers_of(options)
    hidden, tokens = llama["hidden_size"], rows * WIDTHS[shape]
    # What looks at pictures takes no part in drawing: small.
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": hidden}
    vq = {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1, "latent_channels": 32}
    config = JanusConfig(
        text_config={**llama, "model_type": "llama"},
        vision_config={**vision, "num_image_tokens": tokens},
        vq_config={**vq, "projection_dim": hidden, "image_token_embed_dim": hidden},
    )
    model = random_model(JanusForConditionalGeneration, config, options)
    decoder = decoder_of(model, config, match_janus, janus_config)
    own = GenerationConfig(
        bos_token_id=BOS,
        pad_token_id=PAD,
        generation_kwargs={"boi_token_id": BOI},
        guidance_scale=5.0,
        do_sample=True,
        top_k=0,
    )

    def generate(prompts: list[list[int]]) -> torch.Tensor:
        ids = torch.tensor(prompts, device=options.device)
        drawn: torch.Tensor = model.generate(
            ids, torch.ones_like(ids), generation_mode="image", generation_config=own
        )
        return drawn

    text = llama["vocab_size"]
    plan = ImagePlan(rows, WIDTHS[shape], guidance_weights(5.0))
    protocol = DrawProtocol(shape, 0, guidance=5.0)
    return Subject(decoder, plan, range(text, decoder.config.vocab_size), protocol, generate)


def emu3(shape: str, rows: int, options: argparse.Namespace) -> Subject:
    """Emu3-Gen, in transformers' class and in ours, of one set of weights."""
    from transformers import Emu3Config, Emu3ForConditionalGeneration

    llama, width = LLAMAS[shape] | layers_of(options), WIDTHS[shape]
    vq = {"base_channels": 32, "channel_multiplier": [1], "num_res_blocks": 1, "attn_resolutions": []}
    config = Emu3Config(
        text_config=llama, vq_config={**vq, "temporal_downsample_factor": 1}, vocabulary_map={"<image>": 4}
    )
    model = random_model(Emu3ForConditionalGeneration, config, options)
    decoder = decoder_of(model, config, match_emu3, emu3_config)
    visual = list(range(EMU3_FIRST, EMU3_FIRST + EMU3_CODES))
    forced = {row * (width + 1) + width: END_OF_LINE for row in range(rows)}
    plan = ImagePlan(rows, width, guidance_weights(3.0), forced)

    def generate(prompts: list[list[int]]) -> torch.Tensor:
        ids = torch.tensor(prompts, device=options.device)

        def allowed(_: int, row: torch.Tensor) -> list[int]:
            slot = len(row) - ids.shape[1]
            return [forced[slot]] if slot in forced else visual

        drawn: torch.Tensor = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            negative_prompt_ids=ids,
            negative_prompt_attention_mask=torch.ones_like(ids),
            prefix_allowed_tokens_fn=allowed,
            guidance_scale=3.0,
            do_sample=True,
            top_k=2048,
            max_new_tokens=plan.slots,
            min_new_tokens=plan.slots,
        )
        return drawn[:, ids.shape[1] :]

    protocol = DrawProtocol(shape, 0, guidance=3.0, top_k=2048)
    return Subject(decoder, plan, range(EMU3_FIRST, EMU3_FIRST + EMU3_CODES), protocol, generate)


def llamagen(shape: str, rows: int, options: argparse.Namespace) -> Subject:
    """LlamaGen's GPT-XL; of its shapes as its files have them."""
    side, hidden, inner = WIDTHS[shape], 1280, 3584
    stored = {"tok_embeddings.weight": (16_384, hidden), "layers.0.feed_forward.w1.weight": (inner, hidden)}
    number = layers_of(options).get("num_hidden_layers", 36)
    stored |= {f"layers.{n}.ffn_norm.weight": (hidden,) for n in range(36)}
    config = dataclasses.replace(llamagen_config(stored, side, shape), num_hidden_layers=number)
    dtype = getattr(torch, options.dtype)
    weights = {n: random_tensor(n, size, dtype, options.device) for n, size in decoder_shapes(config)}
    plan = ImagePlan(rows, side, guidance_weights(7.5))
    protocol = DrawProtocol(shape, 0, guidance=7.5, top_k=1000)
    return LlamaGenSubject(Decoder(config, weights), plan, range(config.vocab_size), protocol)


def layers_of(options: argparse.Namespace) -> dict[str, int]:
    """The part of the layers that was asked for."""
    return {"num_hidden_layers": options.layers} if options.layers else {}


def random_tensor(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> torch.Tensor:
    """Numbers that keep the size of what goes through them; of a norm ones, of a bias zeros.

    They are numbers of bfloat16 in any dtype, as those of the published checkpoints are.
    """
    if len(shape) == 1:
        return torch.full(shape, float("norm" in name), dtype=dtype, device=device)
    numbers = torch.randn(shape, dtype=dtype, device=device) * max(0.02, shape[-1] ** -0.5)
    return numbers.bfloat16().to(dtype)


def random_model(kind: Any, config: Any, options: argparse.Namespace) -> Any:
    """A model of transformers in the dtype that is measured, filled without its own initialisation."""
    with torch.device("meta"):
        model = kind(config)
    torch.manual_seed(0)
    dtype = getattr(torch, options.dtype)
    state = {
        name: random_tensor(name, tuple(tensor.shape), dtype, options.device)
        if tensor.is_floating_point()
        else torch.zeros_like(tensor, device=options.device)
        for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    refill_buffers(model, options.device)
    return model.eval()


def refill_buffers(model: Any, device: str) -> None:
    """Make anew what is computed and not stored: rotary frequencies, and places of patches."""
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            with torch.device(device):
                fresh = type(module)(module.config)
            module.inv_freq = fresh.inv_freq
            module.original_inv_freq = fresh.inv_freq.clone()
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                setattr(module, name, torch.zeros(buffer.shape, dtype=buffer.dtype, device=device))


def decoder_of(
    model: Any, config: Any, match: Callable[..., Any], read: Callable[..., DecoderConfig]
) -> Decoder:
    """Ours, of the weights of transformers' model."""
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    network = match(shapes, read(config.to_dict()), "random weights")
    return Decoder(network.config, network.weights(tensors))


SUBJECTS = dict.fromkeys(LLAMAS, janus) | {"emu3": emu3}
SUBJECTS |= {"llamagen-xl-256": llamagen, "llamagen-xl-512": llamagen}


class FamilyBench:
    """One network on one device: all variants on the same prompts."""

    def __init__(self, subject: Subject, options: argparse.Namespace) -> None:
        self.subject, self.options = subject, options
        decoder = subject.decoder
        self.vocabulary = Vocabulary(decoder, subject.visual_ids, full_vocab=False)
        self.itemsize = decoder.norm.element_size()
        # A few weights may have a number that 16 bits do not hold: the most frequent kind counts.
        kinds = [type(linear.product) for layer in decoder.layers for linear in (layer.down, layer.gate_up)]
        self.weight_bytes = 2 if kinds.count(HalfStored) > len(kinds) / 2 else self.itemsize

    def step_bytes(self, images: int, prompt: int, weight_bytes: int) -> float:
        """The minimum that a step must read: layers, the codes' head, and each row's filled cache."""
        config = self.subject.decoder.config
        names = dict(decoder_shapes(config))
        layers = sum(math.prod(size) for name, size in names.items() if ".layers." in name)
        inner = config.switches.head_inner
        head = len(self.subject.visual_ids) * (inner or config.hidden_size) + inner * config.hidden_size
        cache = 2 * images * (prompt + self.subject.plan.slots / 2) * kv_bytes(config, self.itemsize)
        return (layers + head) * weight_bytes + cache

    def measure(
        self, images: int, variant: str, run: Callable[[], float], weight_bytes: int
    ) -> Measurement:
        """One run (on a GPU the second); `run` returns the number of steps.

        `weight_bytes` are those that a step reads of each weight.
        """
        if self.options.device != "cpu":
            run()
            torch.cuda.reset_peak_memory_stats()
        started = now(self.options.device)
        steps = run()
        seconds = now(self.options.device) - started
        longest = max(map(len, self.subject.rows(self.subject.prompts(1))))
        size = self.step_bytes(images, longest, weight_bytes)
        codes, peak = self.subject.plan.codes, peak_gb(self.options.device)
        whole = WIDTHS[self.options.shape] ** 2
        return Measurement(images, variant, seconds, steps, codes, size, peak, whole)

    @torch.inference_mode()
    def measurements(self, images: int) -> Iterator[Measurement]:
        """Each variant once."""
        if (generate := self.subject.generate) is not None and "transformers" in self.options.variants:
            prompts = self.subject.prompts(images)

            def run() -> float:
                drawn = generate(prompts)
                assert drawn.shape == (images, self.subject.plan.slots), drawn.shape
                return self.subject.plan.slots - 1

            # Janus' own `generate` computes both rows in one forward, that of all models in two.
            forwards = 1 if self.subject.decoder.config.switches.head_inner else 2
            yield self.measure(images, "transformers generate", run, forwards * self.itemsize)
        own = self.weight_bytes
        yield self.measure(images, "native", lambda: max(self.native(images).steps), own)
        if "speculate" in self.options.variants and images <= 4:
            yield self.measure(images, "native --speculate", lambda: max(self.speculate(images).steps), own)

    def native(self, images: int) -> DecodeOutput:
        """Our loop, with what it allocates."""
        subject, rows = self.subject, self.subject.rows(self.subject.prompts(images))
        parts = (subject.decoder, self.vocabulary, subject.protocol)
        batch = BatchDecoder(*parts, images, max(map(len, rows)), subject.plan)
        return batch.run(rows, self.keys(images))

    def speculate(self, images: int) -> DecodeOutput:
        """Our loop with speculation; guesses that hold for random weights say nothing of trained ones."""
        subject, rows = self.subject, self.subject.rows(self.subject.prompts(images))
        parts = (subject.decoder, self.vocabulary, subject.protocol, subject.plan)
        return SpeculativeDecoder(*parts, rows, self.keys(images), WINDOW).run()

    def keys(self, images: int) -> torch.Tensor:
        """The noise keys of all codes."""
        device = torch.device(self.options.device)
        return noise_keys(list(range(images)), self.subject.plan.codes, device)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="janus-pro-1b", choices=SUBJECTS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rows", type=int, default=0, help="of codes, of a picture; 0 for all")
    parser.add_argument("--layers", type=int, default=0, help="of the network; 0 for all")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--variants", nargs="+", default=["transformers", "speculate"])
    parser.add_argument("--rounds", type=int, default=1, help="of all variants; the fastest counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def main() -> None:
    """Measure and print the table."""
    options = parse()
    torch.set_num_threads(options.threads)
    bandwidth = copy_bandwidth(options.device)
    rows = options.rows or WIDTHS[options.shape]
    subject = SUBJECTS[options.shape](options.shape, rows, options)
    bench, best = FamilyBench(subject, options), {}
    for _ in range(options.rounds):
        for images in options.images:
            for row in bench.measurements(images):
                fastest = best.setdefault((images, row.variant), row)
                best[images, row.variant] = min(row, fastest, key=lambda r: r.seconds)
    base: dict[int, float] = {}
    for row in best.values():
        base.setdefault(row.images, row.images * row.tokens / row.seconds)
    device = torch.cuda.get_device_name() if options.device != "cpu" else platform.processor() or "CPU"
    print(f"{datetime.date.today()}, {device}, {options.threads} threads, torch {torch.__version__}")
    plan, layers = subject.plan, subject.decoder.config.num_hidden_layers
    print(f"{options.shape}, {layers} layers, {options.dtype}, ", end="")
    print(f"guidance {subject.protocol.guidance:g}, ", end="")
    print(f"{plan.height} x {plan.width} codes; copy bandwidth {bandwidth:.1f} GB/s; ", end="")
    print(f"command: {json.dumps(sys.argv[1:])}\n")
    header = ["images/s" if column.startswith("images/s") else column for column in HEADER]
    rows_of_table = [row.table_row(base[row.images], bandwidth) for row in best.values()]
    lines = [header, ["---"] * len(header), *rows_of_table]
    print("\n".join("| " + " | ".join(line) + " |" for line in lines))


if __name__ == "__main__":
    main()
