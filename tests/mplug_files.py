"""Writes a tiny mPLUG VQA in the original's format: random weights under all of the original's names.

    from tests.mplug_files import write_tiny_mplug
    folder = write_tiny_mplug(tmp_path / "mplug")    # then weights=str(folder)

Its answers are yes, no and other words, and depend on image and question.
"""

import json
from pathlib import Path

import torch
import yaml

from sar_eval.networks.mplug.shape import read_shape
from sar_eval.networks.mplug.weights import TIES, expected_shapes

WORDS = (
    "yes no is are there the a an to on in of and does it have left right behind image picture one two "
    "three four red green blue yellow black white circle square triangle star cat dog car apple table "
    "sky style small large big old young man woman person tree house river sun ##s ##es ##ed ##ing ##ly"
)
MARKS = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
CONFIG = {
    "task": "visual-question-answering",
    "bert_config": "config_bert.json",
    "image_res": 56,
    "vision_width": 128,
    "distill": False,
    "clip_name": "ViT-L-14",
    "clip_embed_dim": 16,
    "clip_vision_layers": 2,
    "clip_vision_width": 128,
    "clip_vision_patch_size": 14,
    "clip_transformer_layers": 1,
    "min_length": 1,
    "max_length": 10,
    "beam_size": 5,
}
TEXT = {
    "hidden_act": "gelu",
    "hidden_size": 64,
    "intermediate_size": 128,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 40,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "type_vocab_size": 2,
    "text_encoder_layers": 2,
    "fusion_layers": 2,
    "text_decode_layers": 2,
    "stride_layer": 6,
}
BIASES = {"[SEP]": 12.0, "yes": 10.0, "no": 9.0, "two": 6.0, "red": 6.0, "left": 5.0}


def vocabulary() -> list[str]:
    """In BERT's order: the special words have the ids that are constants in the original's code."""
    unused = [f"[unused{number}]" for number in range(99)]
    continued = [f"##{mark}" for mark in MARKS if mark.isalnum()]
    return ["[PAD]", *unused, "[UNK]", "[CLS]", "[SEP]", "[MASK]", *MARKS, *continued, *WORDS.split()]


def write_tiny_mplug(
    folder: Path, seed: int = 0, *, distill: bool = False, wrapper: str = "model", stride: int = 6
) -> Path:
    """Write the five files into `folder`, which is created if needed, and return it.

    Args:
        folder: target.
        seed: of the weights.
        distill: add the momentum copy of all tensors.
        wrapper: key that holds the state dict, whose keys then begin with `model.`; "" for none.
        stride: `stride_layer`; with 1 the last fusion layer is a connected layer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = vocabulary()
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"distill": distill}))
    text = TEXT | {"vocab_size": len(words), "stride_layer": stride}
    (folder / "config_bert.json").write_text(json.dumps(text))
    (folder / "configuration.json").write_text(json.dumps({"task": CONFIG["task"]}))
    state = random_state(folder, words, seed)
    if distill:
        state |= {_momentum(name): tensor.clone() for name, tensor in state.items()}
    wrapped = {wrapper: {f"model.{name}": tensor for name, tensor in state.items()}}
    torch.save(wrapped if wrapper else state, folder / "pytorch_model.bin")
    return folder


def random_state(folder: Path, words: list[str], seed: int) -> dict[str, torch.Tensor]:
    """Random tensors under all of the original's names; with 4 as offset of the seed answers vary."""
    shape, generator = read_shape(folder), torch.Generator().manual_seed(seed + 4)
    sizes = expected_shapes(shape) | _unused_shapes(expected_shapes(shape), shape.active_layers.start)
    state = {name: _random_tensor(name, size, generator) for name, size in sizes.items()}
    for name in ("text_encoder", "text_decoder.bert"):
        state[f"{name}.embeddings.position_ids"] = torch.arange(shape.positions)[None]
    for word, amount in BIASES.items():
        state["text_decoder.cls.predictions.bias"][words.index(word)] += amount
    return state | {copy: state[source] for copy, source in TIES.items()}


def _unused_shapes(used: dict[str, tuple[int, ...]], inactive: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that the original stores and does not use, with `inactive` fusion layers."""
    layer = f"fusion_encoder.encoder.layer.{inactive}."
    fusion = {name.removeprefix(layer): size for name, size in used.items() if name.startswith(layer)}
    block = "visual_encoder.visual.transformer.resblocks.0."
    clip = {name.replace(".visual", ""): (16,) for name in used if name.startswith(block)}
    others = ("positional_embedding", "text_projection", "logit_scale", "token_embedding.weight")
    others = (*others, "ln_final.weight", "ln_final.bias", "visual.proj")
    return {
        **{f"visual_encoder.{name}": (16,) for name in others},
        **clip,
        **{
            f"fusion_encoder.encoder.layer.{n}.{name}": size
            for n in range(inactive)
            for name, size in fusion.items()
        },
    }


def _random_tensor(name: str, size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    normal = torch.randn(size, generator=generator)
    if "norm" in name.lower() or ".ln_" in name:
        return normal * 0.1 + (1.0 if name.endswith("weight") else 0.0)
    if "embedding" in name:
        return normal * (0.3 if "word_embeddings" in name else 0.12)
    if name.endswith("weight") and len(size) > 1:
        return normal * (1.4 / torch.tensor(size[1:]).prod().sqrt())
    return normal * 0.1


def _momentum(name: str) -> str:
    first, rest = name.split(".", 1)
    return f"{first}_m.{rest}"
