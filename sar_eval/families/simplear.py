"""Checkpoints of the SimpleAR family: finding, checking and reading their files.

A checkpoint is a folder in Hugging Face format (`config.json`, weights, `tokenizer.json`) whose
vocabulary is the text tokenizer's ids followed by one id for each visual code, and a visual
tokenizer folder (see `cosmos`). `locate` finds both by name, here or on the hub.

Finding and checking need neither torch nor transformers, so bad input is reported at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_eval.errors import BadInput
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.locate import locate

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Of Cosmos-1.0-Tokenizer-DV8x16x16, whose folder has no config.json with these keys.
COSMOS_CONFIG = {"codebook_size": 64_000, "downsample": 16}
BEGIN_TOKEN, IMAGE_TOKEN = "<|t2i|>", "<|soi|>"
ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes of one value


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's files, found and checked, not yet loaded."""

    name: str
    folder: Path
    visual_folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The contents of `config.json`."""
        return _read_json(self.folder / "config.json")

    @cached_property
    def decoder_config(self) -> DecoderConfig:
        """The decoder's settings in `config.json`."""
        try:
            return DecoderConfig.from_dict(self.config)
        except BadInput as error:
            raise BadInput(f"{self.folder / 'config.json'}: {error}") from error

    @cached_property
    def codebook_size(self) -> int:
        """Number of visual codes."""
        return self._visual_config_value("codebook_size")

    @cached_property
    def downsample(self) -> int:
        """Pixels per visual token, along one side."""
        return self._visual_config_value("downsample")

    @cached_property
    def native_resolution(self) -> int:
        """Side in pixels of the images it was trained on (1024 unless `sar_eval.json` says so)."""
        path = self.folder / "sar_eval.json"
        config = _read_json(path) if path.is_file() else {}
        return _positive_int({"resolution": 1024, **config}, "resolution", path)

    @cached_property
    def text_tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer` of the checkpoint."""
        from tokenizers import Tokenizer

        path = self.folder / "tokenizer.json"
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:
            # The library raises no subclass of Exception.
            raise BadInput(f"{path} is no readable tokenizer: {error}") from error

    @cached_property
    def text_vocab_size(self) -> int:
        """Number of text ids, special tokens included; the first visual id."""
        return int(self.text_tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def visual_ids(self) -> range:
        """Token ids of the visual codes."""
        return range(self.text_vocab_size, self.text_vocab_size + self.codebook_size)

    @cached_property
    def weight_files(self) -> list[Path]:
        """The safetensors files, or the torch files if there are none.

        Raises:
            BadInput: there are neither, or a file that the index names is missing.
        """
        for index, pattern in (
            ("model.safetensors.index.json", "*.safetensors"),
            ("pytorch_model.bin.index.json", "pytorch_model*.bin"),
        ):
            paths = sorted(self.folder.glob(pattern))
            index_path = self.folder / index
            if index_path.is_file():
                shards = {str(name) for name in _read_json(index_path).get("weight_map", {}).values()}
                if missing := shards - {path.name for path in paths}:
                    raise BadInput(f"no {min(missing)} in {self.folder}, which {index} names")
            if paths:
                return paths
        raise BadInput(f"no *.safetensors and no pytorch_model*.bin in {self.folder}")

    @cached_property
    def digest(self) -> str:
        """SHA-256 over configuration, weights and both tokenizers, 16 hex digits.

        Raises:
            BadInput: a file from the hub is not the published one.
        """
        paths = [self.folder / "config.json", self.folder / "tokenizer.json", *self.weight_files]
        visual = (self.visual_folder / n for n in ("config.json", "encoder.jit", "decoder.jit"))
        paths += [path for path in visual if path.is_file()]
        total = hashlib.sha256()
        for path in paths:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
            _check_published(path, digest.hexdigest())
            total.update(digest.digest())
        return total.hexdigest()[:16]

    def _visual_config_value(self, key: str) -> int:
        path = self.visual_folder / "config.json"
        return _positive_int(_read_json(path), key, path) if path.is_file() else COSMOS_CONFIG[key]

    def prompt_ids(self, text: str) -> list[int]:
        """Token ids of `<|t2i|>` + text + `<|soi|>`; special tokens in the text are read as text."""
        tokenizer = self.text_tokenizer
        begin, image = tokenizer.token_to_id(BEGIN_TOKEN), tokenizer.token_to_id(IMAGE_TOKEN)
        tokenizer.encode_special_tokens = True
        return [begin, *tokenizer.encode(text, add_special_tokens=False).ids, image]

    def read_weights(self, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """Read the decoder's tensors, by Hugging Face name.

        Raises:
            BadInput: a file is unreadable.
        """
        from sar_eval.tensors.weight_files import read_weight_files

        return read_weight_files(self.weight_files, device, dtype)


def find_checkpoint(name: str, visual_tokenizer: str = "") -> Checkpoint:
    """Find a checkpoint and its visual tokenizer by name (see `locate`), and check their files.

    Raises:
        UnknownName: there is no such checkpoint.
        BadInput: its files are missing or do not fit together.
    """
    location = locate(name, visual_tokenizer)
    checkpoint = Checkpoint(location.name, location.folder, location.visual_folder)
    _check(checkpoint)
    return checkpoint


def _check(checkpoint: Checkpoint) -> None:
    for name in ("config.json", "tokenizer.json"):
        if not (checkpoint.folder / name).is_file():
            raise BadInput(f"no {name} in checkpoint {checkpoint.folder}")
    for name in ("encoder.jit", "decoder.jit"):
        if not (checkpoint.visual_folder / name).is_file():
            raise BadInput(f"no {name} in {checkpoint.visual_folder}, the visual tokenizer")
    _ = checkpoint.weight_files
    size, text = checkpoint.decoder_config.vocab_size, checkpoint.text_vocab_size
    if size - checkpoint.codebook_size != text:
        raise BadInput(
            f"checkpoint {checkpoint.folder}: vocab_size {size} is not {text} text ids "
            f"(tokenizer.json) + {checkpoint.codebook_size} visual codes ({checkpoint.visual_folder})"
        )
    for token in (BEGIN_TOKEN, IMAGE_TOKEN):
        if checkpoint.text_tokenizer.token_to_id(token) is None:
            raise BadInput(f"{checkpoint.folder / 'tokenizer.json'} has no special token {token}")


def _check_published(path: Path, sha256: str) -> None:
    """Check a file of the hub's cache, which names large files by their published SHA-256."""
    published = path.resolve().name
    if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", published) and published != sha256:
        raise BadInput(
            f"{path} is not what the hub published (SHA-256 {sha256[:16]}..., expected "
            f"{published[:16]}...): remove {path.resolve()} and run the command again"
        )


def _positive_int(data: dict[str, Any], key: str, path: Path) -> int:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput(f"{path}: {key} is {value!r}: it must be a whole number of at least 1")
    return value


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise BadInput(f"{path} must hold a JSON object")
    return data
