"""The files of a checkpoint of LlamaGen: network, picture decoder, text encoder, and what they leave out.

The authors publish each as a file or a repository of its own, without a config. What their tensors do not
say may stand in `sar_eval.json` beside the network: `resolution`, `heads`, and where the others are,
`visual_tokenizer` and `text_encoder`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sar_eval.documents import shorten
from sar_eval.errors import BadInput, Incomplete
from sar_eval.families.decoder_config import whole_number
from sar_eval.families.family import CheckpointFiles
from sar_eval.families.locate import Place, locate_folder, locate_place
from sar_eval.families.model_card import CARD
from sar_eval.families.text_tokenizer import FAST
from sar_eval.families.weight_files import WeightFiles, find_weight_files
from sar_eval.tensors.git_lfs import refuse_pointer
from sar_eval.tensors.hub import HUB_NAME

SETTINGS = "sar_eval.json"
NETWORK = re.compile(r"t2i_.+\.(pt|pth|safetensors)")  # names of the authors' files
VISUAL = ("vq_ds16_t2i.pt", "vq_ds16_t2i.safetensors")
HUB_VISUAL, HUB_TEXT = f"peizesun/llamagen_t2i/{VISUAL[0]}", "google/flan-t5-xl"
# Where the authors' scripts look for T5, and shorter ways to the same.
TEXT_FOLDERS = ("t5-ckpt/flan-t5-xl", "flan-t5-xl", "t5")
STAGE = re.compile(r".*_stage\d+_(\d{2,4})")
PIXELS = 16  # along one side of a code


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Folder of T5.

    Attributes:
        folder: as `google/flan-t5-xl` is on the hub.
        weights: its files of weights.
        width: numbers in one of its embeddings.
    """

    folder: Path
    weights: WeightFiles
    width: int

    @property
    def paths(self) -> list[Path]:
        """The files that decide embeddings."""
        return [self.folder / "config.json", self.folder / FAST, *self.weights.paths]


@dataclass(frozen=True, slots=True)
class LlamaGenFiles:
    """A checkpoint's files, all here.

    Attributes:
        name: identifies them later.
        network: the network's file.
        visual: the picture decoder's file.
        text: T5's folder.
        settings: the contents of `sar_eval.json`.
    """

    name: str
    network: Path
    visual: Path
    text: TextEncoder
    settings: Mapping[str, Any]

    @property
    def heads(self) -> int | None:
        """Of attention, as the settings say; None where they do not.

        Raises:
            BadInput: it is no whole number.
        """
        return self._number("heads") if "heads" in self.settings else None

    @property
    def resolution(self) -> int:
        """Side of its pictures in pixels, by the settings, else by the name that the authors gave the file.

        Nothing in the tensors says it: places are known by rotary angles alone.

        Raises:
            BadInput: neither says it, or it is no multiple of the pixels of a code.
        """
        if "resolution" in self.settings:
            side = self._number("resolution")
        elif match := STAGE.fullmatch(self.network.stem):
            side = int(match[1])
        else:
            raise BadInput(
                f"{self.network}: neither its tensors nor its name (t2i_XL_stage1_256) say how large its "
                f'pictures are: write {{"resolution": 256}} to {SETTINGS} beside it, 512 for a second stage'
            )
        if side % PIXELS or not side:
            raise BadInput(f"{self.network}: pictures of {side} pixels are no multiple of {PIXELS}")
        return side

    def _number(self, key: str) -> int:
        try:
            return whole_number(self.settings, key)
        except BadInput as error:
            raise BadInput(f"{self.network.parent / SETTINGS}: {error}") from error


def find_files(name: str, visual_tokenizer: str) -> LlamaGenFiles:
    """Find a checkpoint's files; what is only on the hub is downloaded.

    Args:
        name: a folder, a file, or one of these on the hub.
        visual_tokenizer: file or folder of the picture decoder, here or on the hub; "" for the one beside
            the network, or the authors'.

    Raises:
        UnknownName, BadInput: there is no such checkpoint, it is not clear which file is meant, or a part
            of it is missing.
        Incomplete: a download was interrupted; the same command resumes it.
    """
    place = locate_place(name, files=["*.json", CARD])
    network = place.file or _only_network(place)
    beside = [file for file in VISUAL if file in place.files][:1]
    settings = CheckpointFiles(place.folder).read(SETTINGS)
    asked = visual_tokenizer or _named(settings, "visual_tokenizer", place.folder)
    paths = place.fetch([network, *([] if asked else beside)])
    visual = paths[1] if paths[1:] else _visual(asked)
    for path in (paths[0], visual):
        refuse_pointer(path)
    return LlamaGenFiles(place.name, paths[0], visual, _text_encoder(settings, place.folder), settings)


def _only_network(place: Place) -> str:
    found = [file for file in place.files if NETWORK.fullmatch(file)]
    if len(found) > 1:
        name, at, commit = place.hub_folder.partition("@")
        names = [f"{name}/{file}{at}{commit}" if name else str(place.folder / file) for file in found]
        raise BadInput(f"{place.name} has {len(found)} checkpoints: name one of {', '.join(names)}")
    if not found:
        raise BadInput(f"{place.name} has no network of LlamaGen's (t2i_XL_stage1_256.pt)")
    return found[0]


def _named(settings: Mapping[str, Any], key: str, folder: Path) -> str:
    """A path or a name of the hub in the settings; paths are from their folder. "" if there is none."""
    name = settings.get(key, "")
    if not isinstance(name, str):
        raise BadInput(
            f"{folder / SETTINGS}: {key} is {shorten(name)}: a path or a name of the hub is needed"
        )
    is_hub = HUB_NAME.fullmatch(name) and not (folder / name).exists()
    return name if not name or is_hub else str(folder / name)


def _visual(asked: str) -> Path:
    """The picture decoder's file, which is not beside the network."""
    try:
        place = locate_place(asked or HUB_VISUAL, "visual tokenizer", ["config.json", CARD])
    except (BadInput, Incomplete) as error:
        hint = f"put {VISUAL[0]} beside the network, or name it: --visual-tokenizer FILE"
        raise type(error)(f"no picture decoder of LlamaGen's: {error}; or {hint}") from error
    if place.file:
        return place.fetch([place.file])[0]
    if not (found := [file for file in VISUAL if file in place.files]):
        raise BadInput(f"no {VISUAL[0]} in {place.name}, which is to have LlamaGen's picture decoder")
    return place.fetch(found[:1])[0]


def _text_encoder(settings: Mapping[str, Any], folder: Path) -> TextEncoder:
    beside = [str(folder / name) for name in TEXT_FOLDERS if (folder / name / "config.json").is_file()]
    asked = _named(settings, "text_encoder", folder) or next(iter(beside), HUB_TEXT)
    try:
        where = locate_folder(asked, "text encoder")[1]
    except (BadInput, Incomplete) as error:
        hint = f"put its folder beside the network ({TEXT_FOLDERS[1]})"
        raise type(error)(f"no text encoder of LlamaGen's: {error}; or {hint}") from error
    config = CheckpointFiles(where).config
    if config.get("model_type") != "t5":
        raise BadInput(f"{where / 'config.json'} is no configuration of T5 (model_type t5)")
    if not (where / FAST).is_file():
        raise BadInput(f"no {FAST} in {where}: copy it there from {HUB_TEXT} on the hub")
    if (weights := find_weight_files(where)) is None:
        raise BadInput(f"no *.safetensors and no pytorch_model*.bin in {where}: T5's weights")
    for path in (where / FAST, *weights.paths):
        refuse_pointer(path)
    return TextEncoder(where, weights, _width(config, where))


def _width(config: Mapping[str, Any], where: Path) -> int:
    try:
        return whole_number(config, "d_model")
    except BadInput as error:
        raise BadInput(f"{where / 'config.json'}: {error}") from error
