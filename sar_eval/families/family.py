"""The seam of families: what is asked of a kind of checkpoint, and of one checkpoint of it.

A family is a file `families/NAME.py` with `FAMILY`, or an object that an installed package names in the
entry-point group `sar_eval.families`. It is recognised by a checkpoint's files, never by its name. Finding
and checking loads neither weights nor torch, so that bad input is told at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sar_eval.documents import read_json
from sar_eval.errors import BadInput
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.tensors.git_lfs import refuse_pointer
from sar_eval.types import DrawProtocol, Json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sar_eval.families.image_plan import ImagePlan
    from sar_eval.families.pixel_decoder import DecodedImages

    Row = Sequence[int] | Tensor  # what stands before a picture: ids, or embeddings `[length, hidden]`


@dataclass(frozen=True)
class CheckpointFiles:
    """What a family recognises a checkpoint by: the folder's files.

    Of a repository of the hub the JSON files and the file that is meant have been downloaded, and no others
    for certain.

    Attributes:
        folder: of the files; of the hub it need not be there if none was downloaded.
        file: name of the one file that is asked for; "" for the folder.
        listed: names of files that the folder has on the hub, where it has no `config.json`.
    """

    folder: Path
    file: str = ""
    listed: tuple[str, ...] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the files in the folder itself, sorted."""
        there = self.folder.iterdir() if self.folder.is_dir() else ()
        return tuple(sorted({*self.listed, *(path.name for path in there if path.is_file())}))

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The contents of `config.json`; see `read`."""
        return self.read("config.json")

    def read(self, name: str) -> Mapping[str, Any]:
        """The object in a JSON file of the folder; empty if there is no such file.

        Raises:
            BadInput: it holds something else, or is a pointer of git-lfs.
        """
        path = self.folder / name
        if not path.is_file():
            return {}
        refuse_pointer(path)
        data = read_json(path)
        if not isinstance(data, dict):
            raise BadInput(f"{path} must hold a JSON object")
        return data


class ImageDecoder(Protocol):
    """Turns visual codes into pixels, on the device that it was loaded onto."""

    def decode(self, codes: Tensor) -> DecodedImages:
        """Decode codes int64 `[B, h, w]` to images on the CPU, rounded as the family rounds.

        Called in a thread of its own while the next tokens are drawn.
        """
        ...


class TokenCheckpoint(Protocol):
    """A checkpoint that draws pictures as visual tokens: its files, found and checked, not yet loaded."""

    @property
    def name(self) -> str:
        """Identifies the same files later; a hub name has its commit."""
        ...

    @property
    def family(self) -> str:
        """The family's name."""
        ...

    @property
    def folder(self) -> Path:
        """Where its files are."""
        ...

    @property
    def visual_folder(self) -> Path:
        """Where the files are that turn visual codes into pixels."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 over every file that decides pixels, 16 hex digits."""
        ...

    @property
    def encoder_digest(self) -> str:
        """What its visual codes mean, 16 hex digits: equal codes with another digest are other pictures."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed or accepted, one line each."""
        ...

    @property
    def licences(self) -> Mapping[str, str]:
        """Of each part, as its publisher states it; "not stated" where the files say nothing."""
        ...

    @property
    def presets(self) -> Mapping[str, Mapping[str, Json]]:
        """Protocols by name, the official one first: fields of `DrawProtocol` without its name."""
        ...

    @property
    def native_resolution(self) -> int:
        """Side in pixels of the pictures it was trained on."""
        ...

    @property
    def downsample(self) -> int:
        """Pixels per visual token, along one side."""
        ...

    @property
    def codebook_size(self) -> int:
        """Number of visual codes."""
        ...

    @property
    def text_vocab_size(self) -> int:
        """Number of text ids, special tokens included."""
        ...

    @property
    def visual_ids(self) -> range:
        """Token ids of the visual codes, in the codes' order."""
        ...

    @property
    def decoder_config(self) -> DecoderConfig:
        """The decoder's settings."""
        ...

    @property
    def parameters(self) -> int:
        """Numbers in the decoder's weights."""
        ...

    def check_protocol(self, protocol: DrawProtocol) -> tuple[str, ...]:
        """What is to be known of pictures drawn by a protocol, one line each.

        Raises:
            BadInput: it asks for what the family cannot do; the message names the option.
        """
        ...

    def plan(self, protocol: DrawProtocol, grid: tuple[int, int]) -> ImagePlan:
        """How a picture is sampled.

        Args:
            protocol: checked.
            grid: its height and width in visual tokens.
        """
        ...

    def branches(
        self, prompt: str, negative: str, protocol: DrawProtocol, grid: tuple[int, int]
    ) -> tuple[Row, ...]:
        """What stands before the picture in each of a draw's K branches (see `plan`), the prompted first.

        Args:
            prompt: text, with the protocol's prefix.
            negative: text of the negative branch, for families that take one.
            protocol: checked. With `truncate` a family that knows how cuts what does not fit.
            grid: the picture's height and width in visual tokens.

        Raises:
            BadInput: the text is no valid Unicode.
        """
        ...

    def read_weights(self, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """Read the decoder's tensors, by the names of `tensor_names.decoder_shapes`.

        Raises:
            BadInput: a file is unreadable, or the tensors are not those of the decoder.
        """
        ...

    def checked_weights(self, stored: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
        """The decoder's tensors, as of `read_weights`, among those of its files or of a trainer.

        Args:
            stored: tensors by name.
            where: they come from, for messages.

        Raises:
            BadInput: they are not those of the decoder; the message names one.
        """
        ...

    def load_image_decoder(self, device: str) -> ImageDecoder:
        """Load what turns codes into pixels, so that a file which cannot be used is told before drawing.

        Raises:
            BadInput: the file is damaged, or does not fit.
        """
        ...


@runtime_checkable
class EncodesPrompts(Protocol):
    """A checkpoint whose prompts go through a network of their own, which makes embeddings of them."""

    def load_text_encoder(self, device: str) -> None:
        """Load that network, so that `branches` can be asked.

        Raises:
            BadInput: a file of it is damaged or does not fit.
            MissingExtra: a package that it needs is not installed.
        """
        ...

    def unload_text_encoder(self) -> None:
        """Release it."""
        ...


class Family(Protocol):
    """A kind of checkpoint."""

    @property
    def name(self) -> str:
        """As its file or its entry point is called."""
        ...

    def recognises(self, files: CheckpointFiles) -> bool:
        """Whether these are the files of a checkpoint of this family, whole or damaged.

        Raises:
            BadInput: a file that says so cannot be read.
        """
        ...

    def find(self, name: str, visual_tokenizer: str = "") -> TokenCheckpoint:
        """Find a checkpoint by name, and check its files.

        Args:
            name: a folder, `demo:NAME`, or a name of the hub, whose files are downloaded; or a file of
                weights, for families that `recognise` one.
            visual_tokenizer: what turns codes into pixels, where it is not with the checkpoint; "" for what
                the checkpoint names.

        Raises:
            UnknownName: there is no checkpoint of that name.
            BadInput: its files are missing or do not fit together, or the family takes no other visual
                tokenizer.
        """
        ...
