"""Checkpoints of the SimpleAR family: where they are, whether they fit together, how they load.

A checkpoint is a folder in Hugging Face format (`config.json`, safetensors, `tokenizer.json`)
whose vocabulary is the text tokenizer's ids followed by one id for each visual code, and a visual
tokenizer folder (see `cosmos`), named by `visual_tokenizer` in the folder's `sar_eval.json`.
`demo:NAME` names a checkpoint that ships with sar-eval.

Finding and checking need neither torch nor transformers, so bad input is told at once.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_eval.errors import BadInput, UnknownName
from sar_eval.models.shape import Shape

if TYPE_CHECKING:
    from torch import Tensor

    from sar_eval.models.qwen2 import Decoder

# Cosmos-1.0-Tokenizer-DV8x16x16, whose folder has no config.json of ours.
COSMOS = {"codebook_size": 64_000, "downsample": 16}
DEMO = Path(__file__).parents[1] / "demo"
BEGIN, IMAGE = "<|t2i|>", "<|soi|>"


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
    def shape(self) -> Shape:
        """The decoder's numbers."""
        try:
            return Shape.read(self.config)
        except BadInput as error:
            raise BadInput(f"{self.folder / 'config.json'}: {error}") from error

    @cached_property
    def codebook_size(self) -> int:
        """How many visual codes there are."""
        return self._visual_number("codebook_size")

    @cached_property
    def downsample(self) -> int:
        """Pixels a visual token, along one side."""
        return self._visual_number("downsample")

    @cached_property
    def native_resolution(self) -> int:
        """Side in pixels of the pictures it was trained on (1024 unless `sar_eval.json` says so)."""
        place = self.folder / "sar_eval.json"
        return _number({"resolution": 1024, **_read_json(place)}, "resolution", place)

    @cached_property
    def text_tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer` of the checkpoint."""
        from tokenizers import Tokenizer

        path = self.folder / "tokenizer.json"
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:
            # The library raises nothing narrower.
            raise BadInput(f"{path} is no readable tokenizer: {error}") from error

    @cached_property
    def text_vocabulary(self) -> int:
        """Number of text ids, special tokens included; visual ids start here."""
        return int(self.text_tokenizer.get_vocab_size(with_added_tokens=True))

    @cached_property
    def weight_files(self) -> list[Path]:
        """The safetensors files."""
        return sorted(self.folder.glob("*.safetensors"))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over configuration, weights and both tokenizers, 16 hex digits."""
        names = [self.folder / "config.json", self.folder / "tokenizer.json", *self.weight_files]
        visual = (self.visual_folder / n for n in ("config.json", "encoder.jit", "decoder.jit"))
        names += [path for path in visual if path.is_file()]
        total = hashlib.sha256()
        for path in names:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()[:16]

    def _visual_number(self, key: str) -> int:
        path = self.visual_folder / "config.json"
        return _number(_read_json(path), key, path) if path.is_file() else COSMOS[key]

    def prompt_ids(self, text: str) -> list[int]:
        """`<|t2i|>` + text + `<|soi|>` as token ids; special tokens inside the text stay words."""
        tokenizer = self.text_tokenizer
        begin, image = tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(IMAGE)
        tokenizer.encode_special_tokens = True
        return [begin, *tokenizer.encode(text, add_special_tokens=False).ids, image]

    def load_decoder(self, device: str, dtype: str) -> Decoder:
        """The decoder's weights on a device.

        Raises:
            BadInput: weights that do not fit `config.json`.
        """
        import torch

        from sar_eval.models.qwen2 import Decoder

        return Decoder(self.shape, self._weights(device, getattr(torch, dtype)))

    def _weights(self, device: str, dtype: Any) -> dict[str, Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        weights: dict[str, Tensor] = {}
        for path in self.weight_files:
            try:
                weights |= {k: v.to(dtype) for k, v in load_file(path, device=device).items()}
            except SafetensorError as error:
                raise BadInput(f"{path} is no readable safetensors file: {error}") from error
        return weights


def find_checkpoint(name: str) -> Checkpoint:
    """The checkpoint called `name`: `demo:NAME` or a folder.

    Raises:
        UnknownName: there is none.
        BadInput: its files are missing or do not fit together.
    """
    folder = DEMO / name.removeprefix("demo:") if name.startswith("demo:") else Path(name)
    if not folder.is_dir() or ("/" in name.removeprefix("demo:") and name.startswith("demo:")):
        raise UnknownName(_unknown(name))
    for wanted in ("config.json", "tokenizer.json"):
        if not (folder / wanted).is_file():
            raise BadInput(f"no {wanted} in checkpoint {folder}")
    checkpoint = Checkpoint(name, folder, _visual_folder(folder))
    _check(checkpoint)
    return checkpoint


def demo_names() -> list[str]:
    """The checkpoints that ship with sar-eval, as `--ckpt` takes them."""
    return sorted(f"demo:{path.parent.name}" for path in DEMO.glob("*/model.safetensors"))


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, demo_names(), 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; shipped are {', '.join(demo_names())}"
    return f"unknown checkpoint {name!r}: it is neither a folder nor a shipped checkpoint{hint}"


def _visual_folder(folder: Path) -> Path:
    place = folder / "sar_eval.json"
    if not place.is_file():
        raise BadInput(
            f"no sar_eval.json in {folder}: write one with the visual tokenizer's folder, "
            '{"visual_tokenizer": "../tokenizer"}'
        )
    named = _read_json(place).get("visual_tokenizer")
    if not isinstance(named, str):
        raise BadInput(f"{place} names no visual_tokenizer (a folder, as text)")
    visual = (folder / named).resolve()
    for wanted in ("encoder.jit", "decoder.jit"):
        if not (visual / wanted).is_file():
            raise BadInput(f"no {wanted} in {visual}, the visual tokenizer that {place} names")
    return visual


def _check(checkpoint: Checkpoint) -> None:
    if not checkpoint.weight_files:
        pickles = [p.name for p in checkpoint.folder.glob("*.bin")] + [
            p.name for p in checkpoint.folder.glob("*.pt*")
        ]
        found = f" (only {pickles[0]}, a pickle, which can run code when it is opened)" if pickles else ""
        raise BadInput(
            f"no *.safetensors in {checkpoint.folder}{found}: convert the weights to safetensors"
        )
    size, text = checkpoint.shape.vocabulary, checkpoint.text_vocabulary
    if size - checkpoint.codebook_size != text:
        raise BadInput(
            f"checkpoint {checkpoint.folder}: vocab_size {size} is not {text} text ids "
            f"(tokenizer.json) + {checkpoint.codebook_size} visual codes ({checkpoint.visual_folder})"
        )
    for token in (BEGIN, IMAGE):
        if checkpoint.text_tokenizer.token_to_id(token) is None:
            raise BadInput(f"{checkpoint.folder / 'tokenizer.json'} has no special token {token}")


def _number(data: dict[str, Any], key: str, path: Path) -> int:
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
