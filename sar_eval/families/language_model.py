"""A plain Qwen2 language model that a decoder of visual tokens begins as, such as Qwen2.5-0.5B.

Its files are found and checked as those of a checkpoint are. Its embedding may have more rows than its
tokenizer has ids (Qwen2.5: 151,936 rows, 151,665 ids); the rest is padding, which no text ever trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_eval.documents import read_json
from sar_eval.errors import BadInput
from sar_eval.families import foreign_folders
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.locate import locate_folder
from sar_eval.families.tensor_names import HEAD, match_tensors, refuse_types
from sar_eval.families.text_tokenizer import tokenizer_files
from sar_eval.families.weight_files import WeightFiles, find_weight_files
from sar_eval.tensors.git_lfs import refuse_pointer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LanguageModel:
    """A language model's files, found and checked, not yet loaded.

    Attributes:
        name: identifies the same files later; of the hub with its commit.
        folder: that they are in.
    """

    name: str
    folder: Path

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The contents of `config.json`."""
        return read_config(self.folder / "config.json")

    @cached_property
    def decoder_config(self) -> DecoderConfig:
        """Its settings; `vocab_size` counts all rows of the embedding."""
        return decoder_config(self.config, self.folder / "config.json")

    @cached_property
    def weight_files(self) -> WeightFiles:
        """Its safetensors files, or the torch files if there are none.

        Raises:
            BadInput: there are neither.
        """
        found = find_weight_files(self.folder)
        if found is None:
            why = foreign_folders.describe(self.folder)
            raise BadInput(why or f"no *.safetensors and no pytorch_model*.bin in {self.folder}")
        return found

    def read_weights(self) -> dict[str, Tensor]:
        """Its tensors in float32 on the CPU, by Hugging Face name; the head only where it is not tied.

        Raises:
            BadInput: a file is unreadable, or they are not those that `config.json` describes.
        """
        from sar_eval.tensors.weight_files import read_tensors

        stored: dict[str, Tensor] = {}
        for path in self.weight_files.paths:
            stored |= read_tensors(path, self.weight_files.named_in(path))
        config, where = self.decoder_config, str(self.folder)
        shapes = {name: tuple(tensor.shape) for name, tensor in stored.items()}
        matched = match_tensors(shapes, config, config.vocab_size, where)
        weights = {name: stored[theirs] for name, theirs in matched.stored.items()}
        refuse_types({name: str(tensor.dtype) for name, tensor in weights.items()}, where)
        if config.tie_word_embeddings:
            weights.pop(HEAD, None)
        return {name: tensor.float() for name, tensor in weights.items()}


def find_language_model(name: str) -> LanguageModel:
    """Find a language model by its folder or its name on the hub, and check its files.

    Raises:
        UnknownName: there is none of that name.
        BadInput: its files are missing, or it is no plain Qwen2 decoder.
        Incomplete: the download was interrupted; the same command resumes it.
    """
    pinned, folder = locate_folder(name, "language model")
    found = LanguageModel(pinned, folder)
    foreign_folders.refuse_adapter(folder)
    if not (folder / "config.json").is_file():
        raise BadInput(foreign_folders.describe(folder) or f"no config.json in language model {folder}")
    _ = found.decoder_config
    for path in (*found.weight_files.paths, *tokenizer_files(folder)):
        refuse_pointer(path)
    return found


def decoder_config(config: Mapping[str, Any], path: Path) -> DecoderConfig:
    """The decoder's settings among the contents of `path`.

    Raises:
        BadInput: they are not those of a Qwen2 decoder.
    """
    try:
        return DecoderConfig.from_dict(config)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def read_config(path: Path) -> dict[str, Any]:
    """The contents of a `config.json`.

    Raises:
        BadInput: it cannot be read, or holds no JSON object.
    """
    refuse_pointer(path)
    data = read_json(path)
    if not isinstance(data, dict):
        raise BadInput(f"{path} must hold a JSON object")
    return data
