"""Checkpoints of Emu3-Gen: a Llama with one vocabulary, and ends of line between the rows of codes.

In BAAI's form (`model_type` Emu3) the visual tokenizer is a repository of its own, and the text tokenizer
a file of tiktoken's; in transformers' (`emu3`) all is in one folder. Sources: `emu3_prompts`,
`emu3_tokenizer`, `emu3_tensors`, `emu3_vision`.

Finding and checking need no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sar_eval import discover
from sar_eval.errors import BadInput
from sar_eval.families.decoder_config import DecoderConfig, whole_number
from sar_eval.families.emu3_prompts import (
    IMAGE_AREA,
    NEGATIVE_PROMPT,
    PIXELS_A_TOKEN,
    POSITIVE_SUFFIX,
    Emu3Prompts,
    forced_tokens,
    grid_size,
    read_emu3_prompts,
)
from sar_eval.families.emu3_tensors import emu3_config, match_emu3
from sar_eval.families.emu3_tokenizer import RANKS, VISION_TOKENS, emu3_tokenizer_files
from sar_eval.families.family import CheckpointFiles, Family
from sar_eval.families.image_plan import ImagePlan, guidance_weights
from sar_eval.families.locate import VisualSource, locate_folder, with_visual_tokenizer
from sar_eval.families.model_card import CARD, NOT_STATED, licence
from sar_eval.families.network_tensors import MatchedNetwork
from sar_eval.families.prompting import refuse_fields
from sar_eval.families.stored_tensors import StoredTensors, tensor_shapes
from sar_eval.families.tensor_names import Shape, decoder_shapes
from sar_eval.families.text_tokenizer import FAST
from sar_eval.families.weight_files import find_weight_files, published_digest
from sar_eval.tensors.git_lfs import refuse_pointer
from sar_eval.types import DrawProtocol, Json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sar_eval.families.decoder_tensors import MatchedDecoder
    from sar_eval.families.pixel_decoder import PixelDecoder
    from sar_eval.families.transformers_network import CausalNetwork

ORIGINAL, TRANSFORMERS = "Emu3", "emu3"  # model_type of BAAI and of transformers
VISION = VisualSource(
    "BAAI/Emu3-VisionTokenizer",
    ("config.json", "*.safetensors", "*.safetensors.index.json", CARD),
    "model.safetensors of Emu3-VisionTokenizer",
)
CODEBOOK = "quantize.embedding.weight"
SUFFIXES: Mapping[str, str] = {"": "", "emu3": POSITIVE_SUFFIX}  # what a template puts behind a prompt
# Of the authors' image_generation.py.
OFFICIAL: Mapping[str, Json] = {
    "guidance": 3.0,
    "temperature": 1.0,
    "top_k": 2048,
    "negative_prompt": NEGATIVE_PROMPT,
    "template": "emu3",
}
PROTOCOLS: Mapping[str, Mapping[str, Json]] = {
    "emu3": OFFICIAL,
    # For prompts that end in words of quality already, as those of transformers' documentation.
    "emu3-plain": {key: value for key, value in OFFICIAL.items() if key != "template"},
}
REFUSED = {
    "truncate": "a prompt that is cut would lose what begins its picture, and its authors cut none",
    "full_vocab": "its authors let codes alone be drawn",
}


@dataclass(frozen=True)
class Emu3Checkpoint:
    """A checkpoint's files, found and checked, not yet loaded.

    `visual_name` is the name on the hub of a visual tokenizer that was downloaded, with its commit.
    """

    family: ClassVar[str] = "emu3"
    presets: ClassVar[Mapping[str, Mapping[str, Json]]] = PROTOCOLS
    downsample: ClassVar[int] = PIXELS_A_TOKEN

    name: str
    folder: Path
    visual_folder: Path
    visual_name: str = ""

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The contents of `config.json`."""
        return CheckpointFiles(self.folder).config

    @cached_property
    def decoder_config(self) -> DecoderConfig:
        """Of the Llama, whose head has all ids of text and pictures."""
        try:
            return emu3_config(self.config)
        except BadInput as error:
            raise BadInput(f"{self.folder / 'config.json'}: {error}") from error

    @cached_property
    def native_resolution(self) -> int:
        """Side in pixels of a square of the config's `image_area`; 720 where there is none."""
        try:
            area = whole_number(self.config, "image_area") if "image_area" in self.config else IMAGE_AREA
            return grid_size(area=area)[0] * PIXELS_A_TOKEN
        except BadInput as error:
            raise BadInput(f"{self.folder / 'config.json'}, image_area: {error}") from error

    @cached_property
    def prompts(self) -> Emu3Prompts:
        """The text side."""
        return read_emu3_prompts(self.folder)

    @property
    def visual_ids(self) -> range:
        """Ids of the codes, as the text tokenizer names them."""
        return self.prompts.visual_ids

    @property
    def codebook_size(self) -> int:
        """Number of visual codes."""
        return len(self.visual_ids)

    @property
    def text_vocab_size(self) -> int:
        """Number of ids before those of the codes."""
        return self.visual_ids.start

    @property
    def parameters(self) -> int:
        """Numbers in the network, without the picture decoder."""
        return sum(math.prod(shape) for _, shape in decoder_shapes(self.decoder_config))

    @cached_property
    def tensors(self) -> StoredTensors:
        """Of the network, in transformers' form of the picture decoder, too."""
        return StoredTensors(self.folder)

    @cached_property
    def visual_tensors(self) -> StoredTensors:
        """Of the picture decoder."""
        return self.tensors if self.visual_folder == self.folder else StoredTensors(self.visual_folder)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which visual tokenizer and which rule for words were taken, and which files are left alone."""
        visual, unused = self.visual_name, self.tensors.files.unused
        taken = f"{self.folder}: pixels are of the visual tokenizer {visual}"
        rule = f"{self.folder / FAST}: words are split as by BAAI's tokenizer, not by the rule in it"
        left = f"{self.folder}: {', '.join(unused[:5])} is not loaded"
        is_fast = emu3_tokenizer_files(self.folder) == [self.folder / FAST]
        said = ((taken, visual), (rule, is_fast), (left, unused))
        return tuple(note for note, holds in said if holds)

    @property
    def licences(self) -> Mapping[str, str]:
        """What the model cards say, of the whole or of both parts."""
        whole = licence(self.folder) or NOT_STATED
        if self.visual_folder == self.folder:
            return {"decoder and visual tokenizer": whole}
        return {"decoder": whole, "visual tokenizer": licence(self.visual_folder) or NOT_STATED}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over configuration, text tokenizer, weights and visual tokenizer, 16 hex digits.

        Raises:
            BadInput: a file from the hub is not the published one.
        """
        visual = () if self.visual_folder == self.folder else self.visual_tensors.files.paths
        texts = emu3_tokenizer_files(self.folder)
        return published_digest([self.folder / "config.json", *texts, *self.tensors.files.paths, *visual])

    @cached_property
    def encoder_digest(self) -> str:
        """SHA-256 over the picture decoder's tensors in float32, 16 hex digits; equal for both forms.

        Raises:
            BadInput: a tensor of it is missing or foreign.
        """
        matched = self._matched_pixels()
        return matched.digest(self.visual_tensors.read(matched.stored.values()))

    def check_protocol(self, protocol: DrawProtocol) -> tuple[str, ...]:
        """Nothing is to be known beside the protocol; see `TokenCheckpoint`.

        Raises:
            BadInput: it cuts prompts, or samples text.
            UnknownName: there is no template of that name.
        """
        refuse_fields(protocol, self.family, REFUSED)
        if protocol.template not in SUFFIXES:
            raise discover.unknown("template", protocol.template, [name for name in SUFFIXES if name])
        return ()

    def plan(self, protocol: DrawProtocol, grid: tuple[int, int]) -> ImagePlan:
        """Each row ends in an end of line that is not sampled, and the last one in three ids more."""
        forced = forced_tokens(*grid, self.prompts.special)
        return ImagePlan(*grid, guidance_weights(protocol.guidance), forced)

    def branches(
        self, prompt: str, negative: str, protocol: DrawProtocol, grid: tuple[int, int]
    ) -> tuple[Sequence[int], ...]:
        """Ids of both texts, each with what begins a picture of that size."""
        ids = self.prompts.prompt_ids(prompt, *grid, SUFFIXES[protocol.template])
        return (ids,) if protocol.guidance == 1 else (ids, self.prompts.negative_ids(*grid, negative))

    def read_weights(self, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """Read the network's tensors.

        Raises:
            BadInput: a file is unreadable.
        """
        return self.tensors.read_network(self.network, device, dtype)

    def load_transformers(self, device: str, dtype: torch.dtype) -> CausalNetwork:
        """Load the weights into transformers' `Emu3ForCausalLM`; see `transformers_network`."""
        from transformers import Emu3ForCausalLM, Emu3TextConfig

        from sar_eval.families.transformers_network import CausalNetwork, assemble, decoder_settings

        # Decides gradients alone; the default is an id of the hub's tokenizer, which others have not.
        config = Emu3TextConfig(**decoder_settings(self.decoder_config, {}), pad_token_id=0)
        weights = self.read_weights(device, dtype)
        return CausalNetwork(assemble(Emu3ForCausalLM, config, weights, device, str(self.folder)))

    def checked_weights(self, stored: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
        """The network's tensors, of tensors under the names of the files."""
        return self._match(tensor_shapes(stored), where).weights(stored)

    def load_image_decoder(self, device: str) -> PixelDecoder:
        """Load the visual tokenizer's decoder, which computes in float32 whatever the network computes in.

        Raises:
            BadInput: a tensor of it is missing, foreign or misshapen, or it is for other codes.
        """
        from sar_eval.families.pixel_decoder import PixelDecoder, truncated

        matched = self._matched_pixels()
        stored = self.visual_tensors.read(matched.stored.values())
        decoder = PixelDecoder(matched, stored, truncated, device=device)
        return decoder.for_codes(self.codebook_size, self.downsample)

    @cached_property
    def network(self) -> MatchedNetwork:
        """The network's tensors by their names in the files.

        Raises:
            BadInput: they are not those of the network that `config.json` describes.
        """
        return self.tensors.match(self._match)

    def _match(self, shapes: Mapping[str, Shape], where: str) -> MatchedNetwork:
        return match_emu3(shapes, self.decoder_config, where)

    def _matched_pixels(self) -> MatchedDecoder:
        from sar_eval.families.emu3_vision import match_emu3_vision

        return match_emu3_vision(self.visual_tensors.shapes(), str(self.visual_folder))


def _check(checkpoint: Emu3Checkpoint) -> None:
    for path in (*emu3_tokenizer_files(checkpoint.folder), *checkpoint.tensors.files.paths):
        refuse_pointer(path)
    vocabulary = checkpoint.prompts.tokenizer.get_vocab(with_added_tokens=True)
    if (last := max(vocabulary.values())) >= (rows := checkpoint.decoder_config.vocab_size):
        raise BadInput(
            f"{emu3_tokenizer_files(checkpoint.folder)[0]} has the id {last}, and those of config.json end "
            f"at {rows - 1}: is it this checkpoint's tokenizer?"
        )
    _ = checkpoint.network, checkpoint.native_resolution
    _check_codes(checkpoint)


def _check_codes(checkpoint: Emu3Checkpoint) -> None:
    """Whether the picture decoder is for the same codes."""
    folder = checkpoint.visual_folder
    if not folder.is_dir() or find_weight_files(folder) is None:
        raise BadInput(
            f"no *.safetensors in {folder}: a visual tokenizer is needed, as {VISION.repository}"
        )
    for path in checkpoint.visual_tensors.files.paths:
        refuse_pointer(path)
    headers = checkpoint.visual_tensors.headers
    sizes = [entry.shape for name, (_, entry) in headers.items() if f".{name}".endswith(f".{CODEBOOK}")]
    if not sizes:
        raise BadInput(f"{folder}: the weights have no tensor {CODEBOOK!r} of a visual tokenizer")
    if sizes[0][:1] != (checkpoint.codebook_size,):
        raise BadInput(
            f"{folder}: the visual tokenizer's codebook is {sizes[0]}, and the text tokenizer of "
            f"{checkpoint.folder} has {checkpoint.codebook_size} visual tokens"
        )


class Emu3:
    """The family, told by the config's `model_type`."""

    name = Emu3Checkpoint.family

    def recognises(self, files: CheckpointFiles) -> bool:
        """Whether `config.json` is BAAI's or transformers'."""
        return files.config.get("model_type") in (ORIGINAL, TRANSFORMERS)

    def find(self, name: str, visual_tokenizer: str = "") -> Emu3Checkpoint:
        """Find a checkpoint, a folder or of the hub, and its visual tokenizer; see `Family`."""
        pinned, folder = locate_folder(name, more=[RANKS, VISION_TOKENS])
        found = Emu3Checkpoint(pinned, folder, folder)
        if found.config.get("model_type") == ORIGINAL:
            where = with_visual_tokenizer(pinned, folder, visual_tokenizer, VISION)
            found = Emu3Checkpoint(pinned, folder, where.visual_folder, where.visual_name)
        elif visual_tokenizer:
            raise BadInput(f"{name} has its own picture decoder: leave out --visual-tokenizer")
        _check(found)
        return found


FAMILY: Family = Emu3()
