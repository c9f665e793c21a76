"""What a training costs by arithmetic: bytes a device holds, FLOPs a token, and its peak.

Products of sizes, with a formula beside each. Not counted: a CUDA context, fragmentation, kernels' work
space, DDP's buckets, and attention that keeps its scores ("eager": 4 T^2 bytes a head and more).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.train.training_options import Precision
from sar_eval.train.visual_loss import SCORES_PER_CHUNK

FLOAT32, BFLOAT16 = 4, 2  # bytes
GB = 1e9
# Dense bfloat16 with float32 sums, in TFLOP/s, by NVIDIA's and AMD's data sheets; of several names that a
# device's contains, the longest counts. Sheets give twice these where they count 2:4 sparsity.
PEAKS = {
    "A10": 125.0,
    "A100": 312.0,
    "A30": 165.0,
    "A40": 149.7,
    "A800": 312.0,
    "B200": 2250.0,
    "GH200": 989.4,
    "H100": 989.4,
    "H100 NVL": 835.5,
    "H100 PCIe": 756.5,
    "H20": 148.0,
    "H200": 989.4,
    "H800": 989.4,
    "L4": 121.0,
    "L40": 181.0,
    "L40S": 362.0,
    "MI250X": 191.5,  # of a die: torch shows its two as devices
    "MI300X": 1307.4,
    "RTX 3090": 71.0,
    "RTX 4090": 165.2,
}


def layer_parameters(config: DecoderConfig) -> int:
    """Of all layers: q, k, v with biases, attention output, the MLP's three, norms; and the last norm."""
    hidden, key_width = config.hidden_size, config.num_key_value_heads * config.head_dim
    query_width = config.num_attention_heads * config.head_dim
    attention = (hidden + 1) * (query_width + 2 * key_width) + query_width * hidden
    layer = attention + 3 * hidden * config.intermediate_size + 2 * hidden
    return config.num_hidden_layers * layer + hidden


def table_parameters(config: DecoderConfig) -> int:
    """Parameters of the embedding, and of the head if that is another table."""
    return config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)


def layer_activation_bytes(config: DecoderConfig, precision: int) -> int:
    """What a layer keeps of one token for the backward pass, with an attention that keeps no scores.

    With H the hidden size, I the MLP's, K the width of the keys, A the heads. Float32: both norms keep
    their input and their normalised value (16 H); the inputs of q, k, v and of gate and up (8 H), the
    queries and attention's result (8 H), keys and values (8 K), gate, SiLU, up and their product (16 I).
    bfloat16 by autocast: residuals and norms stay float32 (16 H), each of the five products casts its input
    anew (10 H), queries and result 4 H, keys and values 4 K, the MLP 8 I. Always: attention's log-sum
    (4 A), both norms' factor (8).
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    key_width = config.num_key_value_heads * config.head_dim
    scalars = 4 * config.num_attention_heads + 8
    if precision == FLOAT32:
        return 32 * hidden + 16 * inner + 8 * key_width + scalars
    return 30 * hidden + 8 * inner + 4 * key_width + scalars


def forward_flops(config: DecoderConfig, length: int, predicted: int, rows: int) -> int:
    """FLOPs of one picture's forward pass, a multiplication and an addition counting as two.

    2 a parameter and token in the layers; 2 T^2 a layer and unit of width for the causal half of both of
    attention's products; 2 a weight of the head and predicted token (PaLM, https://arxiv.org/abs/2204.02311,
    appendix B, which counts all of attention's square; an embedding is a look-up, not a product).

    Args:
        config: the decoder's shape.
        length: T, tokens of the sequence, text included, padding not.
        predicted: how many of them are visual.
        rows: of the head that the softmax runs over: the codebook, or the whole vocabulary.
    """
    width = config.num_attention_heads * config.head_dim
    layers = 2 * layer_parameters(config) * length
    attention = 2 * length**2 * width * config.num_hidden_layers
    return layers + attention + 2 * rows * config.hidden_size * predicted


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCost:
    """What one device holds and computes.

    Attributes:
        config: the decoder's shape.
        rows: of the head that the loss uses.
        lengths: tokens of some pictures' sequences, and how many of them are visual, for the mean.
        micro: pictures of a forward pass.
        precision: of the forward pass.
        checkpointing: whether activations are computed again.
        chunked: whether the loss takes a chunk of tokens at a time ("visual"), or all of them ("full").
        ema: whether averaged weights are kept.
        trained: parameters with gradients; None if all of them are.
        packed: whether they are in one row, where attention needs a mask.
        shards: devices that share weights, gradients and optimiser (FSDP2); 1 if each has all (DDP).
    """

    config: DecoderConfig
    rows: int
    lengths: Sequence[tuple[int, int]]
    micro: int
    precision: Precision = "bfloat16"
    checkpointing: bool = False
    chunked: bool = True
    ema: bool = False
    trained: int | None = None
    packed: bool = False
    shards: int = 1

    @property
    def parameters(self) -> int:
        """All of them."""
        return layer_parameters(self.config) + table_parameters(self.config)

    @property
    def flops_a_token(self) -> float:
        """Of a predicted token, forward and backward: three times forward, and no recomputation (MFU's)."""
        flops = sum(3 * forward_flops(self.config, *lengths, self.rows) for lengths in self.lengths)
        return flops / sum(predicted for _, predicted in self.lengths)

    @property
    def state_bytes(self) -> int:
        """Float32 weights, gradients, AdamW's two moments, and averaged weights."""
        trained = self.parameters if self.trained is None else self.trained
        copies = self.parameters * (1 + self.ema) + 3 * trained
        return math.ceil(FLOAT32 * copies / self.shards)

    @property
    def activation_bytes(self) -> int:
        """Of the layers until the backward pass, for a forward pass of average pictures.

        With checkpointing a layer keeps its float32 input of each token, and one layer is there anew. The
        mask of a packed row has a byte for each pair of its tokens.
        """
        tokens = self.micro * sum(length for length, _ in self.lengths) / len(self.lengths)
        itemsize = FLOAT32 if self.precision == "float32" else BFLOAT16
        layer = layer_activation_bytes(self.config, itemsize)
        layers = self.config.num_hidden_layers
        kept = layers * FLOAT32 * self.config.hidden_size + layer if self.checkpointing else layers * layer
        casts = BFLOAT16 * layer_parameters(self.config) if itemsize == BFLOAT16 else 0
        mask = tokens**2 if self.packed else 0
        return math.ceil(tokens * kept + mask) + casts

    @property
    def loss_bytes(self) -> int:
        """Of scores, their copies in the product's precision, and the gradient of the head's rows.

        In chunks: float32 log-probabilities, scores and their gradient in the product's precision; of the
        head the gradient's sum, one chunk's part of it and a copy in the product's precision. At once:
        the logits, float32 scores, log-probabilities and their gradient, and the logits' gradient. The
        gradient of the whole head, which takes in that of its rows, is not the loss's own.
        """
        itemsize = FLOAT32 if self.precision == "float32" else BFLOAT16
        predicted = self.micro * sum(visual for _, visual in self.lengths) / len(self.lengths)
        scores = predicted * self.rows
        if not self.chunked:
            return math.ceil(scores * (3 * FLOAT32 + 2 * itemsize))
        head = self.rows * self.config.hidden_size
        return math.ceil((min(scores, SCORES_PER_CHUNK) + head) * (FLOAT32 + 2 * itemsize))

    def summary(self) -> str:
        """One paragraph for the terminal, before the first step."""
        state, activations, loss = self.state_bytes, self.activation_bytes, self.loss_bytes
        return (
            f"{self.parameters / 1e6:,.1f} M parameters: {_size(state)} of weights, gradients, optimiser; "
            f"by estimate {_size(activations)} of activations for {self.micro} pictures at once and "
            f"{_size(loss)} for the loss; {_flops(self.flops_a_token)} a visual token"
        )


def _size(count: float) -> str:
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / 1e6:.0f} MB"


def _flops(count: float) -> str:
    return f"{count / 1e9:.2f} GFLOP" if count >= 1e9 else f"{count / 1e6:.1f} MFLOP"


def peak_flops(device: torch.device, precision: Precision) -> float | None:
    """FLOP/s of a GPU's matrix products by its data sheet, in bfloat16; None where none is known.

    In float32 it depends on whether TF32 is allowed. CPUs clock as they are used, and are shared.
    """
    if device.type != "cuda" or precision != "bfloat16":
        return None
    return data_sheet_flops(torch.cuda.get_device_name(device))


def data_sheet_flops(name: str) -> float | None:
    """Dense bfloat16 FLOP/s of a GPU by the name that its driver gives."""
    known = [part for part in PEAKS if f" {part} " in f" {name.replace('-', ' ')} "]
    return PEAKS[max(known, key=len)] * 1e12 if known else None


def picture_lengths(batch: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Tokens of each picture's sequence in a micro-batch, padding left out, and how many are visual."""
    visual = batch["labels"] != -100
    if (positions := batch.get("position_ids")) is not None:
        starts = (positions[0] == 0).nonzero().flatten().tolist()
        parts = [visual[0, slice(*span)] for span in pairwise([*starts, visual.shape[1]])]
        return [(len(part), int(part.sum())) for part in parts]
    return [(int(row.nonzero().max()) + 1, int(row.sum())) for row in visual]
