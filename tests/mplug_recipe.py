"""Generates the reference data's mPLUG weights from names, shapes and a seed, instead of committing them.

    write_weights(folder)    # pytorch_model.bin beside the folder's keys.json and vocab.txt

The original's answers were computed with the same weights: `weights.sha256` is their digest, and any
difference is an error. The random numbers are those of numpy's legacy `RandomState`, which do not change.
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
    """Every tensor of the original's file, in the file's order."""
    recipe = json.loads((folder / "keys.json").read_text())
    words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    state = {
        name: torch.from_numpy(_random_array(name, tuple(shape), recipe["seed"]))
        for name, shape in recipe["keys"].items()
    }
    for head in HEADS:
        bias = state.get(f"{head}.cls.predictions.bias")
        if bias is None:
            continue
        for word, amount in recipe["bias"].items():
            bias[int(word) if word.isdigit() else words.index(word)] += amount
        state[f"{head}.cls.predictions.decoder.bias"] = bias
        state[f"{head}.cls.predictions.decoder.weight"] = state[
            f"{head}.bert.embeddings.word_embeddings.weight"
        ]
    if recipe["wrapped"]:
        state = {f"model.{name}": tensor for name, tensor in state.items()}
    return state


def write_weights(folder: Path) -> None:
    """Write `pytorch_model.bin`, after comparing the digest of the weights."""
    state = make_state(folder)
    assert digest(state) == (folder / "weights.sha256").read_text().strip(), (
        "the weights differ from the original's"
    )
    wrapped = json.loads((folder / "keys.json").read_text())["wrapped"]
    torch.save({"module": state} if wrapped else state, folder / "pytorch_model.bin")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a `pytorch_model.bin` as `make_state` names them."""
    checkpoint = torch.load(path, weights_only=True)
    return checkpoint.get("module", checkpoint)


def digest(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 of all names, dtypes, shapes and values."""
    total = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.numpy().tobytes())
    return total.hexdigest()


def _random_array(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    if name.endswith("position_ids"):
        return np.arange(shape[-1], dtype=np.int64).reshape(shape)
    rng = np.random.RandomState(zlib.crc32(f"{seed}:{_seed_name(name)}".encode()))
    normal = rng.standard_normal(int(np.prod(shape))).astype(np.float32).reshape(shape)
    scale = _scale(name, shape)
    if scale is not None:
        return (normal.astype(np.float64) * scale).astype(np.float32)
    if any(norm in name for norm in NORMS):
        normal = np.float32(0.1) * normal
        return normal + np.float32(1) if name.endswith(".weight") else normal
    if name.endswith("logit_scale"):
        return np.full(shape, 2.6592, np.float32)
    return np.float32(0.1) * normal


def _seed_name(name: str) -> str:
    """The name that seeds a tensor's random numbers, the same for tied tensors."""
    head = name.split(".", 1)[0]
    if name.endswith(("predictions.bias", "predictions.decoder.bias")):
        return f"{head}.headbias"
    tied = "word_embeddings" in name or name.endswith("predictions.decoder.weight")
    return f"{head}.tied" if tied and head in HEADS else name


def _scale(name: str, shape: tuple[int, ...]) -> float | None:
    """Factor of the random numbers, in double precision; None for norms and other biases."""
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
