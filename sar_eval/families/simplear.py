"""Checkpoints of SimpleAR: a Qwen2 decoder of text and visual ids, and a visual tokenizer.

A checkpoint is a folder in Hugging Face format (`config.json`, weights, a text tokenizer) whose
vocabulary is the text tokenizer's ids followed by one id for each visual code, and a visual
tokenizer folder (see `cosmos`). `locate` finds both by name, here or on the hub.

Finding and checking need neither torch nor transformers, so bad input is reported at once: names and shapes
of the tensors are in the headers of safetensors files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sar_eval.documents import read_json, shorten
from sar_eval.errors import BadInput
from sar_eval.families import foreign_folders
from sar_eval.families.decoder_config import MAX_SIZE, DecoderConfig
from sar_eval.families.family import CheckpointFiles, Family
from sar_eval.families.image_plan import ImagePlan, guidance_weights
from sar_eval.families.locate import DEMO, locate_folder, with_visual_tokenizer
from sar_eval.families.model_card import NOT_STATED, licence
from sar_eval.families.picture_size import size_notes
from sar_eval.families.prompting import PRESETS, refuse_fields
from sar_eval.families.recognise import refuse_other
from sar_eval.families.simplear_notes import notes
from sar_eval.families.tensor_names import EMBEDDING, HEAD, Shape, TensorNames, match_tensors, refuse_types
from sar_eval.families.text_tokenizer import read_text_tokenizer, tokenizer_files
from sar_eval.families.tied_head import check_tie, may_be_equal
from sar_eval.families.weight_files import (
    WeightFiles,
    need_weight_files,
    published_digest,
    read_headers,
)
from sar_eval.tensors.digests import file_digest
from sar_eval.tensors.git_lfs import refuse_pointer
from sar_eval.tensors.header import Entry
from sar_eval.types import DrawProtocol, Json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sar_eval.families.cosmos import VisualTokenizer
    from sar_eval.families.transformers_network import CausalNetwork

# Of Cosmos-1.0-Tokenizer-DV8x16x16, whose folder has no config.json with these keys.
COSMOS_CONFIG = {"codebook_size": 64_000, "downsample": 16, "columns": 16}
BEGIN_TOKEN, IMAGE_TOKEN = "<|t2i|>", "<|soi|>"
PADDING = (64, 128)  # an embedding's rows are padded to a multiple of these, for speed
ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes of one value


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's files, found and checked, not yet loaded."""

    family: ClassVar[str] = "simplear"
    presets: ClassVar[Mapping[str, Mapping[str, Json]]] = PRESETS

    name: str
    folder: Path
    visual_folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The contents of `config.json`."""
        return _read_object(self.folder / "config.json")

    @cached_property
    def decoder_config(self) -> DecoderConfig:
        """The decoder's settings in `config.json`; rows that pad the vocabulary are not counted."""
        data = self.config  # whose own errors name the file
        try:
            config = DecoderConfig.from_dict(data)
        except BadInput as error:
            raise BadInput(f"{self.folder / 'config.json'}: {error}") from error
        used = self.text_vocab_size + self.codebook_size
        return replace(config, vocab_size=used) if config.vocab_size in _padded_sizes(used) else config

    @cached_property
    def codebook_size(self) -> int:
        """Number of visual codes."""
        return visual_setting(self.visual_folder, "codebook_size")

    @cached_property
    def downsample(self) -> int:
        """Pixels per visual token, along one side."""
        return visual_setting(self.visual_folder, "downsample")

    @cached_property
    def native_resolution(self) -> int:
        """Side in pixels of the images it was trained on (1024 unless `sar_eval.json` says so)."""
        path = self.folder / "sar_eval.json"
        config = _read_object(path) if path.is_file() else {}
        return _positive_int({"resolution": 1024, **config}, "resolution", path)

    @cached_property
    def text_tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer` of the checkpoint."""
        return read_text_tokenizer(self.folder)

    @cached_property
    def text_vocab_size(self) -> int:
        """Number of text ids, special tokens included; the first visual id."""
        return int(self.text_tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def visual_ids(self) -> range:
        """Token ids of the visual codes."""
        return range(self.text_vocab_size, self.text_vocab_size + self.codebook_size)

    @cached_property
    def weight_files(self) -> WeightFiles:
        """The safetensors files, or the torch files if there are none.

        Raises:
            BadInput: there are neither, or a file that the index names is missing.
        """
        return need_weight_files(self.folder)

    @cached_property
    def headers(self) -> Mapping[str, tuple[Path, Entry]]:
        """File and entry of each tensor, by its name in the files.

        Raises:
            BadInput: a header is damaged, a tensor is there twice, or the index does not fit.
        """
        return read_headers(self.weight_files, self.folder)

    @cached_property
    def parameters(self) -> int:
        """Numbers in the weight files, by their headers."""
        return sum(entry.size for _, entry in self.headers.values())

    @cached_property
    def tensor_names(self) -> TensorNames:
        """The decoder's tensors by their names in the files.

        Raises:
            BadInput: they are not those of the decoder that `config.json` describes.
        """
        shapes = {name: entry.shape for name, (_, entry) in self.headers.items()}
        found = self.match_names(shapes, str(self.folder))
        types = {name: self.headers[theirs][1].dtype for name, theirs in found.stored.items()}
        refuse_types(types, str(self.folder))
        return found

    def match_names(self, shapes: Mapping[str, Shape], where: str) -> TensorNames:
        """See `match_tensors`."""
        config = self.decoder_config
        return match_tensors(shapes, config, max(_padded_sizes(config.vocab_size)), where)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What was accepted though it is not the plain form, one line each."""
        return tuple(notes(self))

    @cached_property
    def licences(self) -> Mapping[str, str]:
        """What the model cards say of the decoder and the visual tokenizer."""
        return {"decoder": _licence(self.folder), "visual tokenizer": _licence(self.visual_folder)}

    @cached_property
    def test_prompts(self) -> int:
        """Prompts of test suites that it was trained on, as `sar_eval.json` says; 0 if it says nothing."""
        path = self.folder / "sar_eval.json"
        training = (_read_object(path) if path.is_file() else {}).get("training")
        tested = training.get("test_prompts") if isinstance(training, dict) else 0
        return tested if isinstance(tested, int) and tested > 0 else 0

    @cached_property
    def digest(self) -> str:
        """SHA-256 over configuration, weights and both tokenizers, 16 hex digits.

        Raises:
            BadInput: a file from the hub is not the published one.
        """
        paths = [
            self.folder / "config.json",
            *tokenizer_files(self.folder),
            *self.weight_files.paths,
        ]
        visual = (self.visual_folder / n for n in ("config.json", "encoder.jit", "decoder.jit"))
        paths += [path for path in visual if path.is_file()]
        return published_digest(paths)

    @cached_property
    def encoder_digest(self) -> str:
        """SHA-256 of `encoder.jit`, 16 hex digits."""
        return file_digest(self.visual_folder / "encoder.jit")[:16]

    def prompt_ids(self, text: str) -> list[int]:
        """Token ids of `<|t2i|>` + text + `<|soi|>`; special tokens in the text are read as text."""
        tokenizer = self.text_tokenizer
        begin, image = tokenizer.token_to_id(BEGIN_TOKEN), tokenizer.token_to_id(IMAGE_TOKEN)
        tokenizer.encode_special_tokens = True
        return [begin, *tokenizer.encode(text, add_special_tokens=False).ids, image]

    def check_protocol(self, protocol: DrawProtocol) -> tuple[str, ...]:
        """Whether it was trained on other sizes alone; see `TokenCheckpoint`.

        Raises:
            BadInput: it names a template, of which this family has none.
        """
        refuse_fields(protocol, self.family, {"template": "it has no templates, but prefixes"})
        return size_notes(protocol, self.downsample, self.folder)

    def plan(self, protocol: DrawProtocol, grid: tuple[int, int]) -> ImagePlan:
        """Every token is sampled; the negative branch is left out where guidance is 1."""
        return ImagePlan(*grid, guidance_weights(protocol.guidance))

    def branches(
        self, prompt: str, negative: str, protocol: DrawProtocol, grid: tuple[int, int]
    ) -> tuple[Sequence[int], ...]:
        """Ids of both texts; see `TokenCheckpoint`.

        One that is too long is cut with `truncate` before its last id, which pictures follow.
        """
        limit = self.decoder_config.max_position_embeddings - grid[0] * grid[1]
        rows = [self._cached_ids(prompt)]
        if protocol.guidance != 1:
            rows.append(self._cached_ids(negative))
        if protocol.truncate:
            rows = [(*ids[: limit - 1], ids[-1]) if len(ids) > limit else ids for ids in rows]
        return tuple(rows)

    @cached_property
    def _cached_ids(self) -> Callable[[str], tuple[int, ...]]:
        """`prompt_ids` with a cache, as a negative text returns with every prompt."""
        return lru_cache(maxsize=256)(lambda text: tuple(self.prompt_ids(text)))

    def read_weights(self, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """Read the decoder's tensors, by Hugging Face name, without the rows that pad the vocabulary.

        Raises:
            BadInput: a file is unreadable, or the tensors are not those of the decoder.
        """
        from sar_eval.tensors.weight_files import read_tensors

        stored: dict[str, Tensor] = {}
        for path in self.weight_files.paths:
            stored |= read_tensors(path, self.weight_files.named_in(path))
        weights = self.checked_weights(stored, str(self.folder))
        return {name: tensor.to(device, dtype) for name, tensor in weights.items()}

    def checked_weights(self, stored: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
        """The decoder's tensors among those of its files, or of a trainer, by Hugging Face name.

        Args:
            stored: tensors by name.
            where: they come from, for messages.

        Raises:
            BadInput: they are not those of the decoder.
        """
        matched = self.match_names({name: tuple(t.shape) for name, t in stored.items()}, where)
        weights = {name: stored[theirs] for name, theirs in matched.stored.items()}
        refuse_types({name: str(tensor.dtype) for name, tensor in weights.items()}, where)
        if matched.has_head:
            check_tie(weights[EMBEDDING].equal(weights.pop(HEAD)), where)
        rows = self.decoder_config.vocab_size
        for name in {EMBEDDING, HEAD} & weights.keys():
            weights[name] = weights[name][:rows]
        return weights

    def load_transformers(self, device: str, dtype: torch.dtype) -> CausalNetwork:
        """Load the weights into transformers' own class; see `transformers_network`."""
        from sar_eval.families.transformers_network import load_qwen2

        return load_qwen2(self, device, dtype)

    def load_image_decoder(self, device: str) -> VisualTokenizer:
        """Load the visual tokenizer's decoder.

        Raises:
            BadInput: `decoder.jit` is damaged, or its program is not allowed.
        """
        from sar_eval.families.cosmos import VisualTokenizer

        visual_tokenizer = VisualTokenizer(self.visual_folder, device)
        visual_tokenizer.load_decoder()
        return visual_tokenizer


def visual_setting(folder: Path, key: str) -> int:
    """`codebook_size`, `downsample` or `columns` (else as `downsample`) of a visual tokenizer's folder.

    Raises:
        BadInput: its `config.json` has no such number.
    """
    if not (path := folder / "config.json").is_file():
        return COSMOS_CONFIG[key]
    config = _read_object(path)
    return _positive_int(config, "downsample" if key == "columns" and key not in config else key, path)


def find_checkpoint(name: str, visual_tokenizer: str = "") -> Checkpoint:
    """Find a checkpoint and its visual tokenizer by name (see `locate`), and check their files.

    Raises:
        UnknownName: there is no such checkpoint.
        BadInput: its files are missing or do not fit together, or it is a checkpoint of another family.
    """
    pinned, folder = locate_folder(name)
    refuse_other(folder, Checkpoint.family)  # which may have no such visual tokenizer
    location = with_visual_tokenizer(pinned, folder, visual_tokenizer)
    checkpoint = Checkpoint(location.name, location.folder, location.visual_folder)
    _check(checkpoint)
    return checkpoint


def _check(checkpoint: Checkpoint) -> None:
    folder, visual = checkpoint.folder, checkpoint.visual_folder
    foreign_folders.refuse_adapter(folder)
    if not (folder / "config.json").is_file():
        reason = foreign_folders.describe(folder)
        raise BadInput(reason or f"no config.json in checkpoint {folder}")
    for name in ("encoder.jit", "decoder.jit"):
        if not (visual / name).is_file():
            raise BadInput(f"no {name} in {visual}, the visual tokenizer")
    config = folder / "config.json"
    jits = (visual / "config.json", visual / "encoder.jit", visual / "decoder.jit")
    for path in (config, *checkpoint.weight_files.paths, *tokenizer_files(folder), *jits):
        refuse_pointer(path)
    _check_vocabulary(checkpoint)
    names = checkpoint.tensor_names
    if names.has_head:
        stored = names.stored
        check_tie(may_be_equal(checkpoint.headers, stored[EMBEDDING], stored[HEAD]), str(folder))


def _check_vocabulary(checkpoint: Checkpoint) -> None:
    folder, text = checkpoint.folder, checkpoint.text_vocab_size
    size = checkpoint.decoder_config.vocab_size
    if size - checkpoint.codebook_size != text:
        raise BadInput(
            f"checkpoint {folder}: vocab_size {size} is not {text} text ids "
            f"({tokenizer_files(folder)[0].name}) + {checkpoint.codebook_size} visual codes "
            f"({checkpoint.visual_folder})"
        )
    for token in (BEGIN_TOKEN, IMAGE_TOKEN):
        if checkpoint.text_tokenizer.token_to_id(token) is None:
            raise BadInput(f"{tokenizer_files(folder)[0]} has no special token {token}")


def _padded_sizes(used: int) -> set[int]:
    """Numbers of rows that a vocabulary of `used` ids may be padded to, without and with padding."""
    return {used, *(-(-used // multiple) * multiple for multiple in PADDING)}


def _licence(folder: Path) -> str:
    if folder.resolve().is_relative_to(DEMO):
        return "Apache-2.0"
    return licence(folder) or NOT_STATED


def _positive_int(data: dict[str, Any], key: str, path: Path) -> int:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < MAX_SIZE:
        raise BadInput(f"{path}: {key} is {shorten(value)}: it must be a whole number of at least 1")
    return value


def _read_object(path: Path) -> dict[str, Any]:
    refuse_pointer(path)
    data = read_json(path)
    if not isinstance(data, dict):
        raise BadInput(f"{path} must hold a JSON object")
    return data


class SimpleAr:
    """Checkpoints of `families.simplear`, told by their decoder's type."""

    name = Checkpoint.family

    def recognises(self, files: CheckpointFiles) -> bool:
        """Whether `config.json` is that of a Qwen2 decoder."""
        return files.config.get("model_type") == "qwen2"

    def find(self, name: str, visual_tokenizer: str = "") -> Checkpoint:
        """See `find_checkpoint`."""
        return find_checkpoint(name, visual_tokenizer)


FAMILY: Family = SimpleAr()
