"""What of GRPO fits on one card, by arithmetic from a checkpoint's `config.json`: nothing is run.

    python -m benchmarks.speed.grpo_memory                              # SimpleAR's shapes, 80 GB
    python -m benchmarks.speed.grpo_memory --config path/to/config.json --card 48 --draws 64

One process a card holds trainer, reference, engine and judge at once. Counted are tensors, each with its
formula below; what a CUDA context, fragmentation and kernels' work space take is the share that is left
free. A test holds the activations against what torch saves for the backward pass of a small decoder.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from benchmarks.speed.decode import CODEBOOK_SIZE, SHAPES, shape_config
from sar_eval.decoding.memory import MEMORY_UTILIZATION, kv_bytes
from sar_eval.documents import read_json
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.rl.policy import SCORES_PER_CHUNK
from sar_eval.train.throughput import (
    BFLOAT16,
    FLOAT32,
    GB,
    layer_activation_bytes,
    layer_parameters,
    table_parameters,
)

ADAM = 4 * FLOAT32  # bytes a parameter: weight, gradient and two moments
PROMPT_TOKENS = 48  # of a branch: the protocol's text and a short prompt
DOWNSAMPLE = 16  # pixels of a token's side, Cosmos 16 x 16
# Of the size of the scores at once: scores, log-probabilities, two factors of the entropy, three gradients.
SCORE_TENSORS = 7
JUDGE_GB = 5.0  # allowance for the visual decoder and one judge; CLIP's ViT-H/14 is 3.9 GB in float32


@dataclass(frozen=True, slots=True)
class Setup:
    """What one chooses.

    Attributes:
        pixels: side of a picture.
        precision: bytes of a value in the trainer's forward pass: weights and optimiser are float32.
        checkpointing: keep each layer's input alone and compute the rest again.
        chunked: compute the scores of a part of the places at a time, and again in the backward pass.
    """

    pixels: int
    precision: int = BFLOAT16
    checkpointing: bool = False
    chunked: bool = True

    @property
    def tokens(self) -> int:
        """Of a picture."""
        return (self.pixels // DOWNSAMPLE) ** 2

    @property
    def length(self) -> int:
        """Of a branch, with its prompt."""
        return self.tokens + PROMPT_TOKENS


def trainer_bytes(config: DecoderConfig) -> int:
    """Float32 weights, gradients and Adam's moments: 16 bytes a parameter."""
    return ADAM * (layer_parameters(config) + table_parameters(config))


def copy_bytes(config: DecoderConfig, precision: int) -> int:
    """A copy of the weights: the reference's in float32, the engine's in bfloat16."""
    return precision * (layer_parameters(config) + table_parameters(config))


def passing_bytes(config: DecoderConfig, codes: int, precision: int) -> int:
    """What a backward pass makes besides: autocast's copies of the layers, and the head's gradient.

    The gradient of the visual rows is summed over chunks (two tensors of their size) and then widened to
    the whole table.
    """
    casts = BFLOAT16 * layer_parameters(config) if precision == BFLOAT16 else 0
    return casts + FLOAT32 * config.hidden_size * (2 * codes + config.vocab_size)


def fixed_bytes(config: DecoderConfig, codes: int, precision: int) -> float:
    """All that does not grow with pictures: trainer, its passing tensors, reference, engine, judge."""
    held = trainer_bytes(config) + copy_bytes(config, FLOAT32) + copy_bytes(config, BFLOAT16)
    return held + passing_bytes(config, codes, precision) + JUDGE_GB * GB


def cache_bytes(config: DecoderConfig, setup: Setup, draws: int) -> int:
    """The engine's bfloat16 keys and values of guided draws, two rows each."""
    return 2 * draws * setup.length * kv_bytes(config, BFLOAT16)


def kept_bytes(config: DecoderConfig, setup: Setup) -> int:
    """Activations of one guided picture (two branches) until the backward pass.

    With checkpointing a layer keeps its float32 input of each token, 4 H.
    """
    layer = layer_activation_bytes(config, setup.precision)
    token = FLOAT32 * config.hidden_size if setup.checkpointing else layer
    return 2 * setup.length * config.num_hidden_layers * token


def recomputed_bytes(config: DecoderConfig, setup: Setup) -> int:
    """Of one guided picture with checkpointing: the one layer that is computed again."""
    layer = layer_activation_bytes(config, setup.precision)
    return 2 * setup.length * layer if setup.checkpointing else 0


def scores_bytes(setup: Setup, codes: int) -> int:
    """Float32 scores of a whole picture."""
    return FLOAT32 * setup.tokens * codes


def chunk_bytes() -> int:
    """The loss's tensors of one chunk, however many pictures there are."""
    return SCORE_TENSORS * FLOAT32 * SCORES_PER_CHUNK


def picture_bytes(config: DecoderConfig, setup: Setup, codes: int) -> int:
    """All that one more picture in the micro-batch takes."""
    loss = 0 if setup.chunked else SCORE_TENSORS * scores_bytes(setup, codes)
    return kept_bytes(config, setup) + recomputed_bytes(config, setup) + loss


def largest_micro(config: DecoderConfig, setup: Setup, codes: int, card: float, draws: int) -> int:
    """Guided pictures of one forward and backward pass that fit beside all else; 0 if none does."""
    taken = fixed_bytes(config, codes, setup.precision) + cache_bytes(config, setup, draws)
    free = MEMORY_UTILIZATION * (card - taken) - (chunk_bytes() if setup.chunked else 0)
    return max(0, int(free // picture_bytes(config, setup, codes)))


def training_flop(config: DecoderConfig, setup: Setup, codes: int) -> float:
    """Multiplications and additions of one guided picture, forward and backward.

    Layers: 6 a parameter, token and branch, 8 with checkpointing. Attention over a causal square: 2 T^2 H
    a layer and branch forward, twice that backward. The head sees guided hidden states, so one branch's
    places alone: 6 a weight, and 2 more if the chunks are computed again.
    """
    passes = 4 if setup.checkpointing else 3
    width = config.num_attention_heads * config.head_dim
    layers = 2 * layer_parameters(config) * setup.length
    attention = 2 * setup.length**2 * width * config.num_hidden_layers
    head = 2 * codes * config.hidden_size * setup.tokens * (4 if setup.chunked else 3)
    return 2.0 * passes * (layers + attention) + head


def _row(config: DecoderConfig, setup: Setup, codes: int, card: float, draws: int) -> Iterator[str]:
    yield f"{setup.pixels:,}"
    yield "float32" if setup.precision == FLOAT32 else "bfloat16"
    yield "yes" if setup.checkpointing else "no"
    yield "yes" if setup.chunked else "no"
    yield f"{fixed_bytes(config, codes, setup.precision) / GB:.1f}"
    yield f"{cache_bytes(config, setup, draws) / GB:.1f}"
    yield f"{picture_bytes(config, setup, codes) / GB:.2f}"
    yield str(largest_micro(config, setup, codes, card, draws) or "none")
    yield f"{training_flop(config, setup, codes) / 1e12:.1f}"


def table(config: DecoderConfig, codes: int, card: float, draws: int, sides: list[int]) -> str:
    """All setups as a Markdown table."""
    names = ["pixels", "precision", "checkpointing", "chunks", "fixed GB", "KV GB", "GB a picture"]
    names += ["micro-batch that fits", "TFLOP a picture"]
    lines = [" | ".join(names), " | ".join(["---:", "---", "---", "---", *["---:"] * 5])]
    for side, *chosen in product(sides, (BFLOAT16, FLOAT32), (False, True), (True, False)):
        lines.append(" | ".join(_row(config, Setup(side, *chosen), codes, card, draws)))
    return "\n".join(f"| {line} |" for line in lines)


def summary(config: DecoderConfig, codes: int) -> str:
    """Where the fixed part comes from."""
    trainer = trainer_bytes(config) / GB
    reference, engine = (copy_bytes(config, precision) / GB for precision in (FLOAT32, BFLOAT16))
    return (
        f"{layer_parameters(config) / 1e6:.0f} M parameters in layers, "
        f"{table_parameters(config) / 1e6:.0f} M in tables: trainer {trainer:.1f} GB, reference "
        f"{reference:.1f} GB, engine {engine:.1f} GB, passing tensors of a backward pass "
        f"{passing_bytes(config, codes, BFLOAT16) / GB:.1f} GB (bfloat16), visual decoder and judge "
        f"{JUDGE_GB:.0f} GB allowed for. Keys and values: {kv_bytes(config, BFLOAT16):,} B a token and row."
    )


def main() -> None:
    """Print a table for each configuration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, action="append", default=[], help="a config.json")
    parser.add_argument("--card", type=float, default=80.0, help="GB of the card")
    parser.add_argument("--draws", type=int, default=128, help="guided pictures drawn at once")
    parser.add_argument("--codebook", type=int, default=CODEBOOK_SIZE, help="visual codes")
    parser.add_argument("--pixels", type=int, nargs="+", default=[512, 1024])
    options = parser.parse_args()
    configs = {str(path): read_json(path) for path in options.config}
    configs = configs or {f"SimpleAR-{name}": shape_config(name) for name in SHAPES if name != "tiny"}
    print(
        f"By arithmetic, not measured: one card of {options.card:.0f} GB, {options.draws} draws at once\n"
    )
    for name, config in configs.items():
        decoder = DecoderConfig.from_dict(config)
        print(f"## {name}\n\n{summary(decoder, options.codebook)}\n")
        print(table(decoder, options.codebook, options.card * GB, options.draws, options.pixels) + "\n")


if __name__ == "__main__":
    main()
