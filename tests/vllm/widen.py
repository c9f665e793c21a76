"""Widen the reference's tiny networks to a head size that vLLM's CPU attention supports.

Their head size is 16, vLLM's smallest is 32. A network twice as wide whose new weights are all 0 is the
same function: rotary pairs keep their frequencies (pair i of 8 becomes pair 2i of 16), queries are scaled
against the wider heads' divisor, norms against the mean over twice as many values.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

HEAD_DIM, WIDE_HEAD_DIM = 16, 32


def widen_checkpoint(folder: Path, out: Path) -> Path:
    """Write the network of `folder` twice as wide."""
    config = json.loads((folder / "config.json").read_text())
    heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}
    heads["v"] = heads["k"]
    assert config["hidden_size"] == HEAD_DIM * heads["q"]
    weights = {
        name: _widen(name, tensor, heads)
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    out.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, out / "model.safetensors")
    config |= {"hidden_size": 2 * config["hidden_size"], "rms_norm_eps": config["rms_norm_eps"] / 2}
    (out / "config.json").write_text(json.dumps(config))
    return out


def _widen(name: str, tensor: Tensor, heads: dict[str, int]) -> Tensor:
    kind = name.rsplit(".", 2)[-2]
    if "norm" in kind:
        return _pad(tensor / 2**0.5, 0)
    if kind in ("q_proj", "k_proj", "v_proj"):
        rows = _spread(tensor, heads[kind[0]], rotary=kind != "v_proj") * (
            2**0.5 if kind == "q_proj" else 1
        )
        return _pad(rows, 1) if rows.ndim == 2 else rows
    if kind == "o_proj":
        return _pad(_spread(tensor.T, heads["q"], rotary=False).T, 0)
    return _pad(tensor, 0 if kind == "down_proj" else 1)


def _pad(tensor: Tensor, axis: int) -> Tensor:
    return torch.cat([tensor, torch.zeros_like(tensor)], axis)


def _spread(tensor: Tensor, heads: int, rotary: bool) -> Tensor:
    """Rows of `heads` heads of 16 as rows of heads of 32."""
    parts = tensor.reshape(heads, HEAD_DIM, *tensor.shape[1:])
    wide = tensor.new_zeros(heads, WIDE_HEAD_DIM, *tensor.shape[1:])
    half = torch.arange(HEAD_DIM // 2)
    rotary_indices = torch.cat([2 * half, WIDE_HEAD_DIM // 2 + 2 * half])
    wide[:, rotary_indices if rotary else torch.arange(HEAD_DIM)] = parts
    return wide.reshape(heads * WIDE_HEAD_DIM, *tensor.shape[1:])
