"""The numbers of an mPLUG VQA network, from the two configuration files it is published with.

What `config.yaml` leaves out is what `MPlugConfig` of modelscope 1.40.2
(modelscope/models/multi_modal/mplug/configuration_mplug.py) takes for it: those of the large model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from sar_eval.errors import BadInput

HEAD_WIDTH = 64  # of CLIP's attention, at every width
NO_STRIDE = 100  # the original's default: further apart than there are layers
_VISION = {
    "image_res": 504,
    "clip_vision_patch_size": 14,
    "clip_vision_width": 1024,
    "clip_vision_layers": 24,
    "clip_transformer_layers": 12,
    "beam_size": 5,
    "min_length": 1,
    "max_length": 10,
}
_TEXT = (
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "type_vocab_size",
    "num_hidden_layers",
    "text_encoder_layers",
    "fusion_layers",
    "text_decode_layers",
)


@dataclass(frozen=True, slots=True)
class MplugShape:
    """How large each part is, and how an answer is searched.

    Attributes:
        side: of the square image, in pixels.
        patch: side of a patch.
        vision_width: of CLIP's vision tower, `vision_layers` deep.
        clip_text_layers: of CLIP's text tower, which is stored and never used.
        hidden: width of the text parts, with `heads` and `inner` (feed-forward).
        epsilon: of their layer norms.
        vocabulary: number of word pieces.
        positions: longest text that has position embeddings.
        types: number of token types; only type 0 is used.
        text_layers: of the question encoder.
        stored_layers: of the fusion encoder, of which the last `fusion_layers` run.
        stride: fusion layer `stride`, `2 * stride`, ... (from 0, of those that run) lets image and
            question attend to each other as one text and rewrites the image's tokens.
        decoder_layers: of the decoder.
        beams: of the search; an answer has `shortest` to `longest` tokens.
        distilled: the file has a momentum copy of everything.
    """

    side: int
    patch: int
    vision_width: int
    vision_layers: int
    clip_text_layers: int
    hidden: int
    heads: int
    inner: int
    epsilon: float
    vocabulary: int
    positions: int
    types: int
    text_layers: int
    stored_layers: int
    fusion_layers: int
    stride: int
    decoder_layers: int
    beams: int
    shortest: int
    longest: int
    distilled: bool

    @property
    def image_tokens(self) -> int:
        """Tokens of an image: its patches and the class token."""
        return (self.side // self.patch) ** 2 + 1

    @property
    def running(self) -> range:
        """Numbers of the fusion layers that run."""
        return range(max(0, self.stored_layers - self.fusion_layers), self.stored_layers)

    @property
    def rewriting(self) -> frozenset[int]:
        """Numbers of the fusion layers that rewrite the image's tokens."""
        first = self.running.start
        return frozenset(n for n in self.running if n > first and (n - first) % self.stride == 0)


def read_shape(folder: Path) -> MplugShape:
    """Read `config.yaml` and the BERT configuration that it names.

    Raises:
        BadInput: a file is missing or unreadable, or describes a network that this one is not.
    """
    path, text_path = configurations(folder)
    given, text = _read(path), _read(text_path)
    seen = {name: _whole(given.get(name, usual), name, path) for name, usual in _VISION.items()}
    told = {name: _whole(text.get(name), name, text_path) for name in _TEXT}
    shape = MplugShape(
        side=seen["image_res"],
        patch=seen["clip_vision_patch_size"],
        vision_width=seen["clip_vision_width"],
        vision_layers=seen["clip_vision_layers"],
        clip_text_layers=seen["clip_transformer_layers"],
        hidden=told["hidden_size"],
        heads=told["num_attention_heads"],
        inner=told["intermediate_size"],
        epsilon=float(text.get("layer_norm_eps", 1e-12)),
        vocabulary=told["vocab_size"],
        positions=told["max_position_embeddings"],
        types=told["type_vocab_size"],
        text_layers=told["text_encoder_layers"],
        stored_layers=told["num_hidden_layers"],
        fusion_layers=told["fusion_layers"],
        stride=_whole(text.get("stride_layer", NO_STRIDE), "stride_layer", text_path),
        decoder_layers=told["text_decode_layers"],
        beams=seen["beam_size"],
        shortest=seen["min_length"],
        longest=seen["max_length"],
        distilled=bool(given.get("distill", True)),
    )
    if text.get("hidden_act", "gelu") != "gelu":
        raise BadInput(f"{text_path}: hidden_act is {text['hidden_act']!r}; mPLUG's is gelu")
    _check(shape, folder)
    return shape


def configurations(folder: Path) -> tuple[Path, Path]:
    """`config.yaml`, and the BERT configuration that it names.

    Raises:
        BadInput: `config.yaml` is missing or unreadable.
    """
    path = folder / "config.yaml"
    return path, folder / str(_read(path).get("bert_config", "config_bert.json"))


def _check(shape: MplugShape, folder: Path) -> None:
    whole = {
        "image_res is no multiple of the patch size": shape.side % shape.patch,
        f"the vision width is no multiple of {HEAD_WIDTH}": shape.vision_width % HEAD_WIDTH,
        "hidden_size is no multiple of num_attention_heads": shape.hidden % shape.heads,
        "the answer's least length is above its greatest": shape.shortest > shape.longest,
        "vision and text are of one width (mPLUG base), which is another network": (
            shape.vision_width == shape.hidden
        ),
    }
    if faults := [fault for fault, wrong in whole.items() if wrong]:
        raise BadInput(f"{folder} is no mPLUG-large VQA model: {faults[0]}")


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        data = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except OSError as error:
        raise BadInput(
            f"cannot read {path}: {error.strerror}; `sar-eval fetch dpg` downloads it"
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise BadInput(f"{path} is no readable configuration: {first}") from error
    if not isinstance(data, dict):
        raise BadInput(f"{path} must hold names with values")
    return data


def _whole(value: Any, name: str, path: Path) -> int:
    least = 0 if name == "min_length" else 1
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadInput(f"{path}: {name} is {value!r}: it must be a whole number of at least {least}")
    return value
