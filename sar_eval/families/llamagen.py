"""Checkpoints of LlamaGen for pictures from text: a Llama whose prefix is T5's embeddings of the caption.

The authors publish files without a config, in several repositories (`llamagen_files`). Sources:
`llamagen_prompts`, `llamagen_tensors`, `vq16`.

Finding and checking need no torch. A text encoder computes before each prompt's first picture: an engine
loads it once (`load_text_encoder`) and keeps it on its device.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sar_eval.discover import need
from sar_eval.errors import BadInput
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.family import CheckpointFiles, Family
from sar_eval.families.image_plan import ImagePlan, guidance_weights
from sar_eval.families.llamagen_files import NETWORK, PIXELS, LlamaGenFiles, find_files
from sar_eval.families.llamagen_tensors import UNPROMPTED, is_network, llamagen_config, match_llamagen
from sar_eval.families.model_card import NOT_STATED, licence
from sar_eval.families.network_tensors import MatchedNetwork
from sar_eval.families.prompting import refuse_fields
from sar_eval.families.tensor_names import Shape, decoder_shapes, refuse_types
from sar_eval.families.weight_files import published_digest
from sar_eval.tensors.header import Entry, read_entries
from sar_eval.types import DrawProtocol, Json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sar_eval.families.decoder_tensors import MatchedDecoder
    from sar_eval.families.llamagen_captions import CaptionBranches
    from sar_eval.families.pixel_decoder import PixelDecoder

# Of sample_t2i.py and sample_t2i_ddp.py, which cut captions at 120 T5 ids.
PROTOCOLS: Mapping[str, Mapping[str, Json]] = {
    "llamagen": {"guidance": 7.5, "temperature": 1.0, "top_k": 1000, "truncate": True}
}
REFUSED = {
    "negative_prompt": "the other row of guidance is a learned embedding",
    "prefixes": "the other row of guidance has no text",
    "full_vocab": "the network predicts no text",
    "template": "the caption stands alone",
}


@dataclass(frozen=True)
class LlamaGenCheckpoint:
    """A checkpoint's files, found and checked, not yet loaded."""

    family: ClassVar[str] = "llamagen"
    presets: ClassVar[Mapping[str, Mapping[str, Json]]] = PROTOCOLS
    downsample: ClassVar[int] = PIXELS
    text_vocab_size: ClassVar[int] = 0  # a caption comes as embeddings

    files: LlamaGenFiles

    @property
    def name(self) -> str:
        """Identifies the same files later."""
        return self.files.name

    @property
    def folder(self) -> Path:
        """Where the network's file is."""
        return self.files.network.parent

    @property
    def visual_folder(self) -> Path:
        """Where the picture decoder's file is."""
        return self.files.visual.parent

    @property
    def where(self) -> str:
        """The network's file, for messages."""
        return str(self.files.network)

    @cached_property
    def header(self) -> Mapping[str, Entry]:
        """Type and shape of each tensor in the network's file."""
        return read_entries(self.files.network)

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Of the tensors in the network's file."""
        return {name: entry.shape for name, entry in self.header.items()}

    @cached_property
    def decoder_config(self) -> DecoderConfig:
        """Of the network, by its tensors (see `llamagen_config`), for pictures of its own resolution."""
        return llamagen_config(self.shapes, self.side, self.where, self.files.heads)

    @property
    def side(self) -> int:
        """Codes along one side of a picture."""
        return self.files.resolution // PIXELS

    @property
    def native_resolution(self) -> int:
        """Side in pixels of its pictures."""
        return self.files.resolution

    @property
    def codebook_size(self) -> int:
        """Number of visual codes."""
        return self.decoder_config.vocab_size

    @property
    def visual_ids(self) -> range:
        """All ids are codes."""
        return range(self.codebook_size)

    @property
    def parameters(self) -> int:
        """Numbers in the network, without the projection of captions, T5 and the picture decoder."""
        return sum(math.prod(shape) for _, shape in decoder_shapes(self.decoder_config))

    @property
    def notes(self) -> tuple[str, ...]:
        """Which text encoder it is, and how it computes."""
        text = (
            f"{self.files.text.folder}: T5 makes the captions' embeddings in float32, whatever --dtype says"
        )
        return (f"{text}; the authors' scripts run it in bfloat16",)

    @property
    def licences(self) -> Mapping[str, str]:
        """What the model cards say."""
        parts = {
            "decoder": self.folder,
            "visual tokenizer": self.visual_folder,
            "text encoder": self.files.text.folder,
        }
        return {part: licence(folder) or NOT_STATED for part, folder in parts.items()}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the files of network, picture decoder and T5, heads and grid, 16 hex digits.

        Raises:
            BadInput: a file from the hub is not the published one.
        """
        files = published_digest([self.files.network, self.files.visual, *self.files.text.paths])
        rest = f"{self.decoder_config.num_attention_heads} heads, {self.side} codes a side"
        return hashlib.sha256(f"{files}, {rest}".encode()).hexdigest()[:16]

    @cached_property
    def encoder_digest(self) -> str:
        """SHA-256 over the picture decoder's tensors in float32, 16 hex digits.

        Raises:
            BadInput: a tensor of it is missing or foreign.
        """
        from sar_eval.tensors.weight_files import read_tensors

        matched = self._matched_pixels()
        return matched.digest(read_tensors(self.files.visual, matched.stored.values()))

    def check_protocol(self, protocol: DrawProtocol) -> tuple[str, ...]:
        """Nothing beside it is to be known; see `TokenCheckpoint`.

        Raises:
            BadInput: it has a negative text or a template, samples text, or guides by less than 1.
            MissingExtra: a package that captions need is not installed.
        """
        refuse_fields(protocol, self.family, REFUSED)
        if protocol.guidance < 1:
            raise BadInput(
                f"guidance is {protocol.guidance} in the protocol: LlamaGen's authors do not guide at 1 or "
                "less, so say 1"
            )
        # Looked for, not imported: that takes seconds.
        if find_spec("transformers") is None:
            need("transformers", extra="llamagen", what="LlamaGen's T5 encoder")
        if find_spec("ftfy") is None:
            need("ftfy", extra="llamagen", what="LlamaGen's caption cleaning")
        return ()

    def plan(self, protocol: DrawProtocol, grid: tuple[int, int]) -> ImagePlan:
        """Every code is sampled; the second row is left out where guidance is 1.

        Raises:
            BadInput: the picture is not of the checkpoint's own size.
        """
        if grid != (self.side, self.side):
            height, width = (side * PIXELS for side in grid)
            raise BadInput(
                f"pictures of {width} x {height} pixels are asked for, and {self.name} draws those of "
                f"{self.native_resolution} x {self.native_resolution}: leave out the size"
            )
        return ImagePlan(*grid, guidance_weights(protocol.guidance))

    def branches(
        self, prompt: str, negative: str, protocol: DrawProtocol, grid: tuple[int, int]
    ) -> tuple[Tensor, ...]:
        """Embeddings of the prompt's T5 ids, and the learned ones of the same places.

        Loads the text encoder on the CPU where no engine has loaded it.

        Raises:
            BadInput: the text is no valid Unicode, or has markup that no one can read.
        """
        del negative, grid
        if not self._captions:
            self.load_text_encoder("cpu")
        prompted, unprompted = self._captions[0].rows(prompt, protocol.truncate)
        return (prompted,) if protocol.guidance == 1 else (prompted, unprompted)

    @cached_property
    def _captions(self) -> list[CaptionBranches]:
        """The text encoder, while it is loaded."""
        return []

    def load_text_encoder(self, device: str) -> None:
        """Load T5 and the projection of captions; both compute in float32.

        Raises:
            BadInput: a file of it is damaged or does not fit.
            MissingExtra: transformers is not installed.
        """
        from sar_eval.families.llamagen_captions import read_caption_branches

        files = self.files
        self._captions[:] = [read_caption_branches(self.network, files.network, files.text.folder, device)]

    def unload_text_encoder(self) -> None:
        """Release it."""
        self._captions.clear()

    def read_weights(self, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """Read the decoder's tensors; the projection of captions is left to the text encoder.

        Raises:
            BadInput: the file is unreadable, or the tensors are not those of the network.
        """
        from sar_eval.tensors.weight_files import read_tensors

        stored = read_tensors(self.files.network, self.network.stored.values())
        own = {name: tensor.to(device, dtype) for name, tensor in self.network.own(stored).items()}
        return self.network.translate(self.decoder_config, own)

    def checked_weights(self, stored: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
        """Not of a trainer's: captions' projection, which is no part of the decoder, would stay as it was.

        Raises:
            BadInput: always.
        """
        del stored
        raise BadInput(
            f"{where}: the weights of a {self.family} checkpoint cannot be replaced while it draws, and it "
            "is not trained here"
        )

    def load_image_decoder(self, device: str) -> PixelDecoder:
        """Load VQ-16's decoder, which computes in float32 whatever the network computes in.

        Raises:
            BadInput: a tensor of it is missing, foreign or misshapen, or it is for other codes.
        """
        from sar_eval.families.pixel_decoder import PixelDecoder, rounded_half_up
        from sar_eval.tensors.weight_files import read_tensors

        matched = self._matched_pixels()
        tensors = read_tensors(self.files.visual, matched.stored.values())
        decoder = PixelDecoder(matched, tensors, rounded_half_up, device=device)
        return decoder.for_codes(self.codebook_size, self.downsample)

    @cached_property
    def network(self) -> MatchedNetwork:
        """The network's tensors by their names in the file.

        Raises:
            BadInput: one is missing, empty, foreign, misshapen or quantised.
        """
        found = match_llamagen(self.shapes, self.decoder_config, self.where)
        refuse_types({name: self.header[name].dtype for name in found.stored.values()}, self.where)
        return found

    def _matched_pixels(self) -> MatchedDecoder:
        from sar_eval.families.vq16 import match_vq16

        shapes = {name: entry.shape for name, entry in read_entries(self.files.visual).items()}
        return match_vq16(shapes, str(self.files.visual))


def _check(found: LlamaGenCheckpoint) -> None:
    width = found.shapes[found.network.stored[UNPROMPTED]][-1]
    if width != found.files.text.width:
        raise BadInput(
            f"{found.where} takes captions of {width} numbers a place, and T5 in {found.files.text.folder} "
            f"makes {found.files.text.width}: is it the checkpoint's text encoder?"
        )


class LlamaGen:
    """The family, told by the authors' file names in a folder, and of a file by its tensors."""

    name = LlamaGenCheckpoint.family

    def recognises(self, files: CheckpointFiles) -> bool:
        """Whether a folder without `config.json` has a `t2i_*.pt`, or the file that is asked for is one.

        Of torch files the names of the tensors are read without torch. A file that cannot be read is one by
        the authors' names, and `find` says what is wrong with it.
        """
        if not files.file:
            return "config.json" not in files.names and any(map(NETWORK.fullmatch, files.names))
        try:
            return is_network(read_entries(files.folder / files.file))
        except BadInput:
            return NETWORK.fullmatch(files.file) is not None

    def find(self, name: str, visual_tokenizer: str = "") -> LlamaGenCheckpoint:
        """Find a checkpoint by its folder or file, here or on the hub; see `Family`."""
        found = LlamaGenCheckpoint(find_files(name, visual_tokenizer))
        _check(found)
        return found


FAMILY: Family = LlamaGen()
