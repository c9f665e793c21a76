"""Mosaics: each visual code is a square of one colour of a palette."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sar_eval.errors import BadInput
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.family import CheckpointFiles, Family
from sar_eval.families.image_plan import ImagePlan, guidance_weights
from sar_eval.families.locate import locate_folder
from sar_eval.families.prompting import refuse_fields
from sar_eval.families.tensor_names import decoder_shapes, match_tensors
from sar_eval.types import DrawProtocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sar_eval.families.pixel_decoder import DecodedImages

SETTINGS, WEIGHTS = "mosaic.json", "mosaic.npz"


@dataclass(frozen=True)
class MosaicCheckpoint:
    """A folder with `mosaic.json` and `mosaic.npz`; ids of colours come before those of words."""

    family: ClassVar[str] = "mosaic"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"mosaic": {"guidance": 1.5}}

    name: str
    folder: Path

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The contents of `mosaic.json`."""
        return CheckpointFiles(self.folder).read(SETTINGS)

    @property
    def visual_folder(self) -> Path:
        """The palette is in `mosaic.json`."""
        return self.folder

    @cached_property
    def digest(self) -> str:
        """SHA-256 of both files."""
        data = b"".join((self.folder / name).read_bytes() for name in (SETTINGS, WEIGHTS))
        return hashlib.sha256(data).hexdigest()[:16]

    @cached_property
    def encoder_digest(self) -> str:
        """SHA-256 of the palette."""
        return hashlib.sha256(json.dumps(self.settings["palette"]).encode()).hexdigest()[:16]

    notes: ClassVar[tuple[str, ...]] = ()

    @property
    def licences(self) -> Mapping[str, str]:
        """As `mosaic.json` states it."""
        return {"decoder": str(self.settings.get("licence", "not stated"))}

    @property
    def native_resolution(self) -> int:
        """Side in pixels."""
        return int(self.settings["resolution"])

    @property
    def downsample(self) -> int:
        """Side of a square in pixels."""
        return int(self.settings["square"])

    @property
    def codebook_size(self) -> int:
        """Number of colours."""
        return len(self.settings["palette"])

    @property
    def text_vocab_size(self) -> int:
        """Number of words; the first stands for unknown ones, the last for the beginning of a picture."""
        return len(self.settings["words"])

    @property
    def visual_ids(self) -> range:
        """Ids of the colours."""
        return range(self.codebook_size)

    @cached_property
    def decoder_config(self) -> DecoderConfig:
        """Of a Qwen2 decoder."""
        return DecoderConfig.from_dict({"model_type": "qwen2", **self.settings["decoder"]})

    @property
    def parameters(self) -> int:
        """Numbers in the weights."""
        return sum(math.prod(shape) for _, shape in decoder_shapes(self.decoder_config))

    def check_protocol(self, protocol: DrawProtocol) -> tuple[str, ...]:
        """Nothing beside it is to be known; it may not ask for what there is no rule for."""
        refuse_fields(protocol, self.family, {"truncate": "prompts are not cut", "template": "it has none"})
        return ()

    def plan(self, protocol: DrawProtocol, grid: tuple[int, int]) -> ImagePlan:
        """Every square is sampled, guided by a second branch unless guidance is 1."""
        return ImagePlan(*grid, guidance_weights(protocol.guidance))

    def branches(
        self, prompt: str, negative: str, protocol: DrawProtocol, grid: tuple[int, int]
    ) -> tuple[list[int], ...]:
        """Ids of the words of both texts, each with the beginning of a picture."""
        del grid
        first, words = self.codebook_size, self.settings["words"]
        rows = []
        for text in (prompt, negative)[: 1 if protocol.guidance == 1 else 2]:
            known = [words.index(word) if word in words[:-1] else 0 for word in text.lower().split()]
            rows.append([first + number for number in (*known, len(words) - 1)])
        return tuple(rows)

    def read_weights(self, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """Read the tensors, whose names have slashes and lack `model.`."""
        import torch

        with np.load(self.folder / WEIGHTS, allow_pickle=False) as file:
            stored = {name.replace("/", "."): torch.from_numpy(file[name]) for name in file.files}
        stored = {name if name == "lm_head.weight" else f"model.{name}": t for name, t in stored.items()}
        weights = self.checked_weights(stored, str(self.folder / WEIGHTS))
        return {name: tensor.to(device, dtype) for name, tensor in weights.items()}

    def checked_weights(self, stored: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
        """Those of the decoder, all of them and no others."""
        shapes = {name: tuple(tensor.shape) for name, tensor in stored.items()}
        matched = match_tensors(shapes, self.decoder_config, self.decoder_config.vocab_size, where)
        return {name: stored[theirs] for name, theirs in matched.stored.items()}

    def load_image_decoder(self, device: str) -> Palette:
        """The palette as a table."""
        import torch

        colours = torch.tensor(self.settings["palette"], dtype=torch.uint8, device=device)
        return Palette(colours, self.downsample)


class Palette:
    """Codes to squares of their colour."""

    def __init__(self, colours: Tensor, square: int) -> None:
        self.colours, self.square = colours, square

    def decode(self, codes: Tensor) -> DecodedImages:
        """Codes `[B, h, w]` to RGB uint8 `[B, square * h, square * w, 3]`."""
        import torch

        from sar_eval.families.pixel_decoder import DecodedImages  # noqa: PLC0415 - loads torch

        pixels = self.colours[codes.to(self.colours.device)].cpu()
        pixels = pixels.repeat_interleave(self.square, 1).repeat_interleave(self.square, 2)
        return DecodedImages(pixels, torch.ones(len(pixels), dtype=torch.bool))


class Mosaic:
    """The family."""

    name = "mosaic"

    def recognises(self, files: CheckpointFiles) -> bool:
        """Whether there is a `mosaic.json`."""
        return SETTINGS in files.names

    def find(self, name: str, visual_tokenizer: str = "") -> MosaicCheckpoint:
        """Find a folder, or download it from the hub, and check that its files are there and fit."""
        if visual_tokenizer:
            raise BadInput(f"{name} has its palette in {SETTINGS}: leave out --visual-tokenizer")
        found = MosaicCheckpoint(*locate_folder(name, files=[SETTINGS, WEIGHTS]))
        if not (found.folder / WEIGHTS).is_file():
            raise BadInput(f"no {WEIGHTS} in {found.folder}")
        ids = found.codebook_size + found.text_vocab_size
        if ids != found.decoder_config.vocab_size:
            raise BadInput(f"{found.folder / SETTINGS}: {ids} colours and words, and another vocab_size")
        return found


FAMILY: Family = Mosaic()
