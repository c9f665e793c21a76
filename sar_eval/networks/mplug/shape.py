"""The configuration of an mPLUG VQA network, from the two files that it is published with.

Defaults for `config.yaml` are those of modelscope 1.40.2's `MPlugConfig`
(modelscope/models/multi_modal/mplug/configuration_mplug.py), which are the large model's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from sar_eval.documents import MAX_DEPTH, read_bytes, read_json, shorten
from sar_eval.errors import BadInput
from sar_eval.options import check_name

MAX_BYTES = 1_000_000  # of a configuration
MAX_NUMBER = 10_000_000  # in it: no width, vocabulary or length is near

HEAD_WIDTH = 64  # of CLIP's attention, at every width
NO_STRIDE = 100  # the original's default, larger than the number of layers
_DEFAULTS = {
    "image_res": 504,
    "clip_vision_patch_size": 14,
    "clip_vision_width": 1024,
    "clip_vision_layers": 24,
    "clip_transformer_layers": 12,
    "beam_size": 5,
    "min_length": 1,
    "max_length": 10,
}
_BERT_FIELDS = (
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
    """Sizes of the network's parts, and settings of the beam search.

    Its `repr` is stored in converted weights, which are converted again where it differs.

    Attributes:
        side: of the square image, in pixels.
        patch: side of a patch.
        vision_width: of CLIP's vision tower, with `vision_layers` layers.
        clip_text_layers: of CLIP's text tower, which is in the file and never used.
        hidden: width of the text parts, with `heads` and `inner` (feed-forward width).
        epsilon: of their layer norms.
        vocabulary: number of word pieces.
        positions: number of position embeddings.
        types: number of token types; only type 0 is used.
        text_layers: of the question encoder.
        stored_layers: of the fusion encoder, of which only the last `fusion_layers` run.
        stride: fusion layer `stride`, `2 * stride`, ... (from 0, of those that run) is a connected layer:
            it attends over image and question as one text and updates the image's tokens too.
        decoder_layers: of the decoder.
        beams: of the search; an answer has `shortest` to `longest` tokens.
        distilled: the file has a momentum copy of all tensors.
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
    def active_layers(self) -> range:
        """Indices of the fusion layers that run."""
        return range(max(0, self.stored_layers - self.fusion_layers), self.stored_layers)

    @property
    def connected_layers(self) -> frozenset[int]:
        """Indices of the fusion layers that attend over image and question as one text."""
        first = self.active_layers.start
        return frozenset(n for n in self.active_layers if n > first and (n - first) % self.stride == 0)


def read_shape(folder: Path) -> MplugShape:
    """Read `config.yaml` and the BERT configuration that it names.

    Raises:
        BadInput: a file is missing or unreadable, or describes another network.
    """
    path, bert_path = config_paths(folder)
    config, bert_config = _read(path), _read(bert_path)
    values = {name: _int(config.get(name, default), name, path) for name, default in _DEFAULTS.items()}
    bert = {name: _int(bert_config.get(name), name, bert_path) for name in _BERT_FIELDS}
    shape = MplugShape(
        side=values["image_res"],
        patch=values["clip_vision_patch_size"],
        vision_width=values["clip_vision_width"],
        vision_layers=values["clip_vision_layers"],
        clip_text_layers=values["clip_transformer_layers"],
        hidden=bert["hidden_size"],
        heads=bert["num_attention_heads"],
        inner=bert["intermediate_size"],
        epsilon=_number(bert_config.get("layer_norm_eps", 1e-12), "layer_norm_eps", bert_path),
        vocabulary=bert["vocab_size"],
        positions=bert["max_position_embeddings"],
        types=bert["type_vocab_size"],
        text_layers=bert["text_encoder_layers"],
        stored_layers=bert["num_hidden_layers"],
        fusion_layers=bert["fusion_layers"],
        stride=_int(bert_config.get("stride_layer", NO_STRIDE), "stride_layer", bert_path),
        decoder_layers=bert["text_decode_layers"],
        beams=values["beam_size"],
        shortest=values["min_length"],
        longest=values["max_length"],
        distilled=bool(config.get("distill", True)),
    )
    if bert_config.get("hidden_act", "gelu") != "gelu":
        raise BadInput(f"{bert_path}: hidden_act is {shorten(bert_config['hidden_act'])}; mPLUG's is gelu")
    _check(shape, folder)
    return shape


def config_paths(folder: Path) -> tuple[Path, Path]:
    """Paths of `config.yaml` and of the BERT configuration that it names.

    Raises:
        BadInput: `config.yaml` is missing or unreadable.
    """
    path = folder / "config.yaml"
    name = _read(path).get("bert_config", "config_bert.json")
    if not isinstance(name, str):
        raise BadInput(f"{path}: bert_config is {shorten(name)}: it must be the name of a file")
    check_name(name, f"{path}: bert_config")
    return path, folder / name


def _check(shape: MplugShape, folder: Path) -> None:
    problems = {
        "image_res is no multiple of the patch size": shape.side % shape.patch,
        f"the vision width is no multiple of {HEAD_WIDTH}": shape.vision_width % HEAD_WIDTH,
        "hidden_size is no multiple of num_attention_heads": shape.hidden % shape.heads,
        "min_length is larger than max_length": shape.shortest > shape.longest,
        "vision and text are of one width (mPLUG base), which is another network": (
            shape.vision_width == shape.hidden
        ),
    }
    if found := [problem for problem, applies in problems.items() if applies]:
        raise BadInput(f"{folder} is no mPLUG-large VQA model: {found[0]}")


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise BadInput(f"cannot read {path}: no such file; `sar-eval fetch dpg` downloads it")
    try:
        data = _read_yaml(path) if path.suffix == ".yaml" else read_json(path, MAX_BYTES)
    except BadInput as error:
        raise BadInput(f"{path} is no readable configuration: {error}") from error
    if not isinstance(data, dict):
        raise BadInput(f"{path} must be a mapping of names to values")
    return data


def _read_yaml(path: Path) -> Any:
    text = read_bytes(path, MAX_BYTES)
    try:
        _check_events(yaml.parse(text, yaml.SafeLoader))
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise BadInput(f"broken YAML: {str(error).splitlines()[0]}") from error


def _check_events(events: Iterable[yaml.Event]) -> None:
    """Refuse what makes a short text a large value: aliases, which can be nested, and depth."""
    depth = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise BadInput(f"an alias (*{shorten(event.anchor)[1:-1]}): write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise BadInput(f"nested deeper than {MAX_DEPTH} lists or mappings")


def _int(value: Any, name: str, path: Path) -> int:
    minimum = 0 if name == "min_length" else 1
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= MAX_NUMBER:
        raise BadInput(
            f"{path}: {name} is {shorten(value)}: it must be a whole number of at least {minimum}"
            f"{f' and at most {MAX_NUMBER:,}' if isinstance(value, int) and value > MAX_NUMBER else ''}"
        )
    return value


def _number(value: Any, name: str, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise BadInput(f"{path}: {name} is {shorten(value)}: it must be a number between 0 and 1")
    return float(value)
