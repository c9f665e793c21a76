"""Folders of diffusers' pipelines: finding, checking and describing their files, without torch.

A folder has `model_index.json`, which names the pipeline's class and, for each component, a library and a
class; a component's files lie in a folder of its name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sar_eval.documents import read_json, shorten
from sar_eval.errors import BadInput, Incomplete, UnknownName
from sar_eval.families.locate import locate_folder
from sar_eval.families.model_card import CARD, licence
from sar_eval.tensors.digests import file_digest
from sar_eval.tensors.git_lfs import refuse_pointer
from sar_eval.tensors.hub import HUB_NAME, check_published, snapshot
from sar_eval.tensors.safetensors_header import read_header

INDEX = "model_index.json"
# Of a component, what may decide pixels beside the weights; never a Python file, never a pickle.
COMPONENT_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
_DEFAULT_RESOLUTION = 1024
_DEFAULT_FACTOR = 8  # pixels of a latent's side, as of AutoencoderKL with four blocks
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5", "*.onnx")
_NO_WEIGHTS = ("Tokenizer", "TokenizerFast", "Processor", "Extractor", "Scheduler")
_SHARD = re.compile(r"-\d{5}-of-\d{5}")
_WORD = re.compile(r"\w+", re.ASCII)


@dataclass(frozen=True)
class PipelineFolder:
    """A pipeline's files, found and checked, not yet loaded.

    Attributes:
        name: identifies the same files later; a hub name has its commit.
        folder: with `model_index.json`.
        variant: of the weights, as "fp16"; a component without it uses its plain files.
        without: components that are left out, as a third text encoder.
    """

    name: str
    folder: Path
    variant: str = ""
    without: tuple[str, ...] = ()

    @cached_property
    def index(self) -> dict[str, Any]:
        """The contents of `model_index.json`."""
        return _read_object(self.folder / INDEX)

    @property
    def class_name(self) -> str:
        """The pipeline's class.

        Raises:
            BadInput: it is none of diffusers', but in a file of the repository.
        """
        name = self.index.get("_class_name")
        if not isinstance(name, str) or not _WORD.fullmatch(name):
            raise BadInput(
                f"{self.folder / INDEX}: the pipeline's class is {shorten(name)}, which is none of "
                "diffusers' own: code of a checkpoint is never run"
            )
        return name

    @cached_property
    def _entries(self) -> dict[str, list[Any]]:
        """Library and class of each component, null where the pipeline does without."""
        return {
            name: value
            for name, value in self.index.items()
            if not name.startswith("_") and isinstance(value, list)
        }

    @cached_property
    def components(self) -> dict[str, tuple[str, str]]:
        """Library and class of each component that is there, by its name.

        Raises:
            BadInput: an entry is no such pair.
        """
        found = {}
        for name, value in self._entries.items():
            if value == [None, None] or name in self.without:
                continue
            words = [v for v in (name, *value) if isinstance(v, str) and _WORD.fullmatch(v)]
            if len(value) != 2 or len(words) != 3:
                raise BadInput(
                    f"{self.folder / INDEX}: component {shorten(name)} is {shorten(value)}, not a library "
                    "and a class of it: code of a checkpoint is never run"
                )
            found[name] = (str(value[0]), str(value[1]))
        return found

    @property
    def absent(self) -> tuple[str, ...]:
        """Components that `model_index.json` names and this pipeline does without."""
        return tuple(name for name in self._entries if name not in self.components)

    @cached_property
    def weights(self) -> Mapping[str, Sequence[Path]]:
        """The safetensors files of each component that has weights, by its name.

        Raises:
            BadInput: a component has none, or only files that are unpickled.
        """
        return {
            name: self._weights_of(name, cls)
            for name, (_, cls) in self.components.items()
            if not cls.endswith(_NO_WEIGHTS) and (self.folder / name / "config.json").is_file()
        }

    def _weights_of(self, name: str, cls: str) -> list[Path]:
        folder = self.folder / name
        there = sorted(folder.glob("*.safetensors"))
        chosen = [path for path in there if _is_variant(path.name, self.variant)]
        if chosen := chosen or [path for path in there if _is_variant(path.name, "")]:
            return chosen
        if there:
            known = ", ".join(sorted({_variant(path.name) for path in there}))
            raise BadInput(
                f"{folder} has only other variants of its weights ({known}): "
                f"--engine-option variant={_variant(there[0].name)}"
            )
        pickles = [path.name for pattern in _PICKLES for path in folder.glob(pattern)]
        what = f"only {pickles[0]}, which is no safetensors file" if pickles else "no weights"
        raise BadInput(
            f"component {name} ({cls}) of {self.folder} has {what}: save the pipeline with "
            "save_pretrained(FOLDER, safe_serialization=True)"
        )

    def config(self, component: str) -> dict[str, Any]:
        """The contents of a component's `config.json`; empty if it has none."""
        path = self.folder / component / "config.json"
        return _read_object(path) if component in self.components and path.is_file() else {}

    @cached_property
    def downsample(self) -> int:
        """Pixels per latent along one side, as the autoencoder's blocks say."""
        for component in ("vae", "movq", "vqvae", "vqgan"):
            config = self.config(component)
            for key in ("encoder_block_out_channels", "block_out_channels"):
                if isinstance(blocks := config.get(key), list) and blocks:
                    return int(2 ** (len(blocks) - 1))
        return _DEFAULT_FACTOR

    @cached_property
    def stated_resolution(self) -> int | None:
        """Side in pixels: `resolution` in `sar_eval.json`, or the denoiser's `sample_size` in pixels."""
        path = self.folder / "sar_eval.json"
        if path.is_file() and (own := _read_object(path).get("resolution")) is not None:
            if not _is_side(own):
                raise BadInput(f"{path}: resolution is {shorten(own)}: it must be a whole number above 0")
            return int(own)
        for component in ("transformer", "unet"):
            size = self.config(component).get("sample_size")
            size = max(size) if isinstance(size, list) and all(map(_is_side, size)) and size else size
            if isinstance(size, int) and _is_side(size):
                return size * self.downsample
        return None

    @property
    def native_resolution(self) -> int:
        """Side in pixels of the images it was trained on; 1024 where its files do not say."""
        return self.stated_resolution or _DEFAULT_RESOLUTION

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed, one line each."""
        found = []
        if self.stated_resolution is None:
            found.append(
                f"{self.folder} does not say its resolution: {_DEFAULT_RESOLUTION} is assumed; --resolution"
            )
        if self.absent:
            found.append(f"{self.folder} is used without {', '.join(self.absent)}")
        return tuple(found)

    @property
    def licence(self) -> str:
        """What the model card says; "" if it says nothing."""
        return licence(self.folder)

    @property
    def parameters(self) -> dict[str, int]:
        """Numbers in the weights of each component, from the headers of its files."""
        return {
            name: sum(entry.size for path in paths for entry in read_header(path).values())
            for name, paths in self.weights.items()
        }

    @property
    def files(self) -> list[Path]:
        """Every file that decides pixels: the index, and of each component its texts and weights."""
        texts = [
            path
            for name in sorted(self.components)
            for pattern in COMPONENT_FILES
            for path in sorted((self.folder / name).glob(pattern))
        ]
        return [
            self.folder / INDEX,
            *texts,
            *(p for name in sorted(self.weights) for p in self.weights[name]),
        ]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the files that decide pixels and their names, 16 hex digits.

        Raises:
            BadInput: a file from the hub is not the published one.
        """
        total = hashlib.sha256()
        for path in self.files:
            sha256 = file_digest(path)
            check_published(path, sha256)
            total.update(f"{path.relative_to(self.folder)}\0{sha256}\n".encode())
        return total.hexdigest()[:16]


def is_pipeline(name: str) -> bool:
    """Whether a checkpoint's name is that of a folder, here or on the hub, with `model_index.json`.

    What cannot be found is none: whoever looks for a checkpoint says what is wrong with the name.
    """
    try:
        return (locate_folder(name, "checkpoint", [INDEX, "config.json"])[1] / INDEX).is_file()
    except (BadInput, UnknownName, Incomplete):
        return False


def find_pipeline(name: str, variant: str = "", without: tuple[str, ...] = ()) -> PipelineFolder:
    """Find a pipeline by name, download what is only on the hub, and check its files.

    Of the hub's repository only the index, the card and the components' configurations, tokenizers and
    safetensors files are downloaded.

    Raises:
        UnknownName: there is no checkpoint of that name.
        BadInput: files are missing or would run code; or of the hub, as `tensors.hub.snapshot`.
        Incomplete: the download was interrupted; the same command resumes it.
    """
    pinned, folder = locate_folder(name, "pipeline", [INDEX, CARD, "sar_eval.json"])
    found = PipelineFolder(pinned, folder, variant, without)
    if not (folder / INDEX).is_file():
        raise BadInput(f"{name} is no pipeline of diffusers: it has no {INDEX}")
    if unknown := [n for n in without if n not in found._entries]:
        known = ", ".join(found._entries)
        raise BadInput(f"without: {found.class_name} has no component {unknown[0]!r}; it has {known}")
    if HUB_NAME.fullmatch(pinned):
        _download(found)
    _check(found)
    return found


def _download(found: PipelineFolder) -> None:
    """The files of its components; plain weights only for those that lack the variant."""
    names = list(found.components)
    variants = [f"*.{found.variant}.safetensors", f"*.{found.variant}-*.safetensors"]
    first = variants if found.variant else []
    patterns = [f"{name}/{file}" for name in names for file in (*COMPONENT_FILES, *first)]
    if found.variant:
        snapshot(found.name, patterns, depth=2)
        names = [name for name in names if not list((found.folder / name).glob("*.safetensors"))]
    plain = [*patterns, *(f"{name}/*.safetensors" for name in names)]
    snapshot(found.name, plain, depth=2, ignored=[f"{name}/*.*.safetensors" for name in names])


def _check(found: PipelineFolder) -> None:
    """Refuse what would run code or cannot be loaded, by name.

    Raises:
        BadInput: a pointer of git-lfs, a component without its folder, or with code of its own.
    """
    for component, (_, cls) in found.components.items():
        if not (found.folder / component).is_dir():
            raise BadInput(
                f"{found.folder} has no folder {component}, though {INDEX} names it ({cls}): to draw "
                f"without it, --engine-option without={component}"
            )
        if cls.startswith("Auto") and (path := _own_code(found.folder / component)):
            raise BadInput(f"{path} names code of the checkpoint (auto_map), which is never run")
    for path in found.files:
        refuse_pointer(path)
    _ = found.class_name, found.native_resolution


def _own_code(folder: Path) -> Path | None:
    """The file that tells an Auto class to import a file of the checkpoint."""
    names = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
    there = (folder / name for name in names if (folder / name).is_file())
    return next((path for path in there if "auto_map" in _read_object(path)), None)


def _variant(name: str) -> str:
    """The variant in a file's name, "" for plain weights: `model.fp16-00001-of-00002.safetensors`."""
    return _SHARD.sub("", name.removesuffix(".safetensors")).partition(".")[2]


def _is_variant(name: str, variant: str) -> bool:
    return _variant(name) == variant


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 20


def _read_object(path: Path) -> dict[str, Any]:
    refuse_pointer(path)
    data = read_json(path)
    if not isinstance(data, dict):
        raise BadInput(f"{path} must hold a JSON object")
    return data
