"""Checkpoints of Janus and Janus-Pro: a Llama that draws with codes of VQ-16, all in one folder.

Weights are read under DeepSeek's names (`MultiModalityCausalLM`) and under transformers'
(`JanusForConditionalGeneration`); models that were trained from them have the same. What looks at pictures
is left alone. Sources: `janus_prompts`, `janus_tensors`, `vq16`.

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
from sar_eval.families.family import CheckpointFiles, Family
from sar_eval.families.image_plan import ImagePlan, guidance_weights
from sar_eval.families.janus_prompts import PRESETS, JanusPreset, JanusPrompts, read_janus_prompts
from sar_eval.families.janus_tensors import janus_config, match_janus
from sar_eval.families.locate import locate_folder
from sar_eval.families.model_card import NOT_STATED, licence
from sar_eval.families.network_tensors import MatchedNetwork
from sar_eval.families.picture_size import size_notes
from sar_eval.families.prompting import refuse_fields
from sar_eval.families.stored_tensors import StoredTensors, tensor_shapes
from sar_eval.families.tensor_names import Shape, decoder_shapes
from sar_eval.families.text_tokenizer import FAST, SETTINGS, SPECIAL
from sar_eval.families.weight_files import published_digest
from sar_eval.tensors.git_lfs import refuse_pointer
from sar_eval.types import DrawProtocol, Json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sar_eval.families.decoder_tensors import MatchedDecoder
    from sar_eval.families.janus_transformers import JanusNetwork
    from sar_eval.families.pixel_decoder import PixelDecoder

MODEL_TYPES = ("multi_modality", "janus")  # of DeepSeek and of transformers
OWN_ROLES = "janus"  # the template that leaves the roles to the checkpoint's files
RESOLUTION = 384  # of the authors' script, 24 codes a side
CHAT_TEMPLATE = "chat_template.jinja"
# What decides a prompt's ids, beside the tokenizer: those of them that are there.
PROMPT_FILES = (SETTINGS, SPECIAL, "processor_config.json", "chat_template.json", CHAT_TEMPLATE)
# Guidance and temperature of generation_inference.py; it has neither top-k nor top-p.
PROTOCOLS: Mapping[str, Mapping[str, Json]] = {
    name: {
        "guidance": 5.0,
        "temperature": 1.0,
        **({} if name == OWN_ROLES else {"template": name}),
    }
    for name in PRESETS
}
REFUSED = {
    "truncate": "a prompt that is cut would end inside the user's turn, and their authors cut none",
    "negative_prompt": "the other row of guidance is the prompt's own, with pads in place of its text",
    "prefixes": "the other row of guidance has no text",
    "full_vocab": "the output for pictures predicts no text",
}


@dataclass(frozen=True)
class JanusCheckpoint:
    """A checkpoint's files, found and checked, not yet loaded."""

    family: ClassVar[str] = "janus"
    presets: ClassVar[Mapping[str, Mapping[str, Json]]] = PROTOCOLS
    downsample: ClassVar[int] = 16

    name: str
    folder: Path

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The contents of `config.json`."""
        return CheckpointFiles(self.folder).config

    @property
    def visual_folder(self) -> Path:
        """The picture decoder is among the weights."""
        return self.folder

    @cached_property
    def decoder_config(self) -> DecoderConfig:
        """Of the Llama and its output for pictures."""
        path = self.folder / "config.json"
        if "language_config" in self.config and "gen_head_config" not in self.config:
            raise BadInput(
                f"{path} has no gen_head_config: it does not draw code by code, as JanusFlow of the same "
                "model_type does not"
            )
        try:
            return janus_config(self.config)
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from error

    @cached_property
    def native_resolution(self) -> int:
        """Side in pixels of the pictures that it looks at, as its config states, and draws; else 384."""
        vision = self.config.get("vision_config")
        table = vision.get("params", vision) if isinstance(vision, dict) else {}
        if not isinstance(table, dict) or "image_size" not in table:
            return RESOLUTION
        try:
            return whole_number(table, "image_size")
        except BadInput as error:
            raise BadInput(f"{self.folder / 'config.json'}, vision_config: {error}") from error

    @property
    def codebook_size(self) -> int:
        """Number of visual codes."""
        return self.decoder_config.head_rows

    @property
    def text_vocab_size(self) -> int:
        """Rows of the text ids' embedding, of which the tokenizer may use fewer."""
        return self.decoder_config.switches.head_start

    @property
    def visual_ids(self) -> range:
        """Ids of the codes, which follow those of the text."""
        return range(self.text_vocab_size, self.decoder_config.vocab_size)

    @property
    def parameters(self) -> int:
        """Numbers in the network, one vector for each code included; without the picture decoder."""
        return sum(math.prod(shape) for _, shape in decoder_shapes(self.decoder_config))

    @cached_property
    def prompts(self) -> JanusPrompts:
        """The text side."""
        return read_janus_prompts(self.folder)

    @cached_property
    def tensors(self) -> StoredTensors:
        """Of the network and the picture decoder."""
        return StoredTensors(self.folder)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which roles a prompt gets, and which files are left alone."""
        roles, unused = self.prompts.roles, self.tensors.files.unused
        because = self.prompts.roles_because
        said = f"{self.folder}: a prompt's roles are {roles.user} and {roles.assistant} ({because})"
        left = f"{self.folder}: {', '.join(unused[:5])} is not loaded"
        return (said, left) if unused else (said,)

    @property
    def licences(self) -> Mapping[str, str]:
        """What the model card says of the whole."""
        return {"decoder and visual tokenizer": licence(self.folder) or NOT_STATED}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over configuration, what decides a prompt's ids, and weights, 16 hex digits.

        Raises:
            BadInput: a file from the hub is not the published one.
        """
        others = [self.folder / name for name in PROMPT_FILES if (self.folder / name).is_file()]
        first = [self.folder / "config.json", self.folder / FAST]
        return published_digest([*first, *others, *self.tensors.files.paths])

    @cached_property
    def encoder_digest(self) -> str:
        """SHA-256 over the picture decoder's tensors in float32, 16 hex digits.

        It is the same for all checkpoints with the same codes, whose other weights may differ.

        Raises:
            BadInput: a tensor of it is missing or foreign.
        """
        matched = self._matched_pixels()
        return matched.digest(self.tensors.read(matched.stored.values()))

    def check_protocol(self, protocol: DrawProtocol) -> tuple[str, ...]:
        """What the authors of the template do besides; see `TokenCheckpoint`.

        Raises:
            BadInput: it has a negative text, cuts prompts, or samples text.
            UnknownName: there is no template of that name.
        """
        refuse_fields(protocol, self.family, REFUSED)
        if protocol.template and protocol.template not in PRESETS:
            raise discover.unknown("template", protocol.template, list(PRESETS))
        preset, sizes = _preset(protocol), size_notes(protocol, self.downsample)
        return (*_template_notes(protocol.template, preset), *sizes)

    def plan(self, protocol: DrawProtocol, grid: tuple[int, int]) -> ImagePlan:
        """Every code is sampled; the second row is left out where guidance is 1."""
        return ImagePlan(*grid, guidance_weights(protocol.guidance))

    def branches(
        self, prompt: str, negative: str, protocol: DrawProtocol, grid: tuple[int, int]
    ) -> tuple[Sequence[int], ...]:
        """Ids of the prompt, and of the row as long with pads in place of its text."""
        del negative, grid
        ids = self.prompts.prompt_ids(prompt, _preset(protocol))
        return (ids,) if protocol.guidance == 1 else (ids, self.prompts.negative_ids(ids))

    def read_weights(self, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """Read the network's tensors; the codes' vectors are computed in float32 of weights in `dtype`.

        Raises:
            BadInput: a file is unreadable.
        """
        return self.tensors.read_network(self.network, device, dtype)

    def load_transformers(self, device: str, dtype: torch.dtype) -> JanusNetwork:
        """Load the weights into transformers' own parts; see `transformers_network`."""
        from sar_eval.families.janus_transformers import JanusNetwork

        own = self.tensors.read_untranslated(self.network, device, dtype)
        return JanusNetwork(self.decoder_config, own, str(self.folder))

    def checked_weights(self, stored: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
        """The network's tensors, of tensors under the names of the files."""
        return self._match(tensor_shapes(stored), where).weights(stored)

    def load_image_decoder(self, device: str) -> PixelDecoder:
        """Load VQ-16's decoder, which computes in float32 whatever the network computes in.

        Raises:
            BadInput: a tensor of it is missing, foreign or misshapen, or it is for other codes.
        """
        from sar_eval.families.pixel_decoder import PixelDecoder, truncated

        matched = self._matched_pixels()
        decoder = PixelDecoder(
            matched, self.tensors.read(matched.stored.values()), truncated, device=device
        )
        return decoder.for_codes(self.codebook_size, self.downsample)

    @cached_property
    def network(self) -> MatchedNetwork:
        """The network's tensors by their names in the files.

        Raises:
            BadInput: they are not those of the network that `config.json` describes.
        """
        return self.tensors.match(self._match)

    def _match(self, shapes: Mapping[str, Shape], where: str) -> MatchedNetwork:
        return match_janus(shapes, self.decoder_config, where)

    def _matched_pixels(self) -> MatchedDecoder:
        from sar_eval.families.vq16 import match_vq16

        return match_vq16(self.tensors.shapes(), str(self.folder))


def _preset(protocol: DrawProtocol) -> JanusPreset:
    return PRESETS[protocol.template or OWN_ROLES]


def _template_notes(name: str, preset: JanusPreset) -> tuple[str, ...]:
    return (f"{name}: {preset.differs} ({preset.source})",) if preset.differs else ()


def _check(checkpoint: JanusCheckpoint) -> None:
    for path in (checkpoint.folder / FAST, *checkpoint.tensors.files.paths):
        if path.is_file():
            refuse_pointer(path)
    tokenizer, rows = checkpoint.prompts.tokenizer, checkpoint.text_vocab_size
    if (last := max(tokenizer.get_vocab(with_added_tokens=True).values())) >= rows:
        raise BadInput(
            f"{checkpoint.folder / FAST} has the id {last}, and the text ids of config.json end at "
            f"{rows - 1}: is it this checkpoint's tokenizer?"
        )
    _ = checkpoint.network, checkpoint.native_resolution


class Janus:
    """The family, told by the config's `model_type`."""

    name = JanusCheckpoint.family

    def recognises(self, files: CheckpointFiles) -> bool:
        """Whether `config.json` is DeepSeek's or transformers'."""
        return files.config.get("model_type") in MODEL_TYPES

    def find(self, name: str, visual_tokenizer: str = "") -> JanusCheckpoint:
        """Find a checkpoint by its folder or its name on the hub; see `Family`."""
        if visual_tokenizer:
            raise BadInput(f"{name} has its own picture decoder: leave out --visual-tokenizer")
        found = JanusCheckpoint(*locate_folder(name, more=[CHAT_TEMPLATE]))
        _check(found)
        return found


FAMILY: Family = Janus()
