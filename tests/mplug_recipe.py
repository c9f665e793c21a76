"""The reference data's mPLUG weights, made anew from names, shapes and a seed instead of being committed.

    write_weights(folder)    # pytorch_model.bin beside the folder's keys.json and vocab.txt

The original answered with these very weights: `weights.sha256` is of the file that it had, and other
weights are refused. All depends on numpy's legacy `RandomState`, whose numbers do not change.
"""

import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import torch

NORMS = ("LayerNorm", "layer_norm", "ln_1", "ln_2", "ln_pre", "ln_post", "ln_final")
HEADS = ("text_decoder", "text_decoder_m")


def make_state(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the original's file, in its order."""
    recipe = json.loads((folder / "keys.json").read_text())
    words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    state = {
        name: torch.from_numpy(_make(name, tuple(shape), recipe["seed"]))
        for name, shape in recipe["keys"].items()
    }
    for head in HEADS:
        bias = state.get(f"{head}.cls.predictions.bias")
        if bias is None:
            continue
        for word, more in recipe["bias"].items():
            bias[int(word) if word.isdigit() else words.index(word)] += more
        state[f"{head}.cls.predictions.decoder.bias"] = bias
        state[f"{head}.cls.predictions.decoder.weight"] = state[
            f"{head}.bert.embeddings.word_embeddings.weight"
        ]
    if recipe["wrapped"]:
        state = {f"model.{name}": tensor for name, tensor in state.items()}
    return state


def write_weights(folder: Path) -> None:
    """Write `pytorch_model.bin`; the weights have to be those that the original answered with."""
    state = make_state(folder)
    assert digest(state) == (folder / "weights.sha256").read_text().strip(), (
        "other weights than the original had"
    )
    wrapped = json.loads((folder / "keys.json").read_text())["wrapped"]
    torch.save({"module": state} if wrapped else state, folder / "pytorch_model.bin")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a `pytorch_model.bin` as `make_state` names them."""
    whole = torch.load(path, weights_only=True)
    return whole.get("module", whole)


def digest(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 of all names, types, shapes and numbers."""
    total = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.numpy().tobytes())
    return total.hexdigest()


def _make(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    if name.endswith("position_ids"):
        return np.arange(shape[-1], dtype=np.int64).reshape(shape)
    chance = np.random.RandomState(zlib.crc32(f"{seed}:{_stream(name)}".encode()))
    drawn = chance.standard_normal(int(np.prod(shape))).astype(np.float32).reshape(shape)
    scale = _scale(name, shape)
    if scale is not None:
        return (drawn.astype(np.float64) * scale).astype(np.float32)
    if any(norm in name for norm in NORMS):
        drawn = np.float32(0.1) * drawn
        return drawn + np.float32(1) if name.endswith(".weight") else drawn
    if name.endswith("logit_scale"):
        return np.full(shape, 2.6592, np.float32)
    return np.float32(0.1) * drawn


def _stream(name: str) -> str:
    """Whose chance a tensor has: tied ones have one together."""
    head = name.split(".", 1)[0]
    if name.endswith(("predictions.bias", "predictions.decoder.bias")):
        return f"{head}.headbias"
    tied = "word_embeddings" in name or name.endswith("predictions.decoder.weight")
    return f"{head}.tied" if tied and head in HEADS else name


def _scale(name: str, shape: tuple[int, ...]) -> float | None:
    """What the drawn numbers are multiplied by in double precision; None for norms and plain biases."""
    leaf = name.rsplit(".", 1)[-1]
    if any(norm in name for norm in NORMS):
        return None
    if "word_embeddings" in name or name.endswith("predictions.decoder.weight"):
        return 2.0 / np.sqrt(shape[-1])
    if "position_embeddings" in name or "token_type_embeddings" in name:
        return 1.0 / np.sqrt(shape[-1])
    if leaf in ("class_embedding", "positional_embedding") or name.endswith(
        ("predictions.bias", "predictions.decoder.bias")
    ):
        return 0.5
    if leaf in ("proj", "text_projection"):
        return 1.2 / np.sqrt(shape[0])
    if leaf in ("weight", "in_proj_weight"):
        return 1.2 / np.sqrt(np.prod(shape[1:]))
    return None
