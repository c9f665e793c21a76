"""Where a checkpoint is: shipped, in a folder, or on the Hugging Face hub.

Names: `demo:NAME` ships with sar-eval; a folder; `ORG/NAME`, `ORG/NAME/SUBFOLDER`, either with
`@REVISION` (a branch, tag or commit), is downloaded into the hub's own cache, tokenizers and weights only,
never a Python file. Where a folder holds several checkpoints as files, one is meant by its own name: the
file's path, or `ORG/NAME/FILE` or `ORG/NAME/SUBFOLDER/FILE`. The visual tokenizer is specified by
`visual_tokenizer` in the folder's `sar_eval.json`, by `--visual-tokenizer`, or is the published Cosmos
tokenizer.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sar_eval.documents import check_text, read_json, shorten
from sar_eval.errors import BadInput, Incomplete, UnknownName
from sar_eval.families.model_card import CARD
from sar_eval.tensors.git_lfs import refuse_pointer
from sar_eval.tensors.hub import HUB_NAME, list_folder, snapshot, snapshot_with_weights

DEMO = Path(__file__).parents[1] / "demo"
COSMOS_REPO = "nvidia/Cosmos-1.0-Tokenizer-DV8x16x16"
CHECKPOINT_FILES = ["*.json", "*.safetensors", "merges.txt", "vocab.txt", CARD]
VISUAL_TOKENIZER_FILES = ["config.json", "encoder.jit", "decoder.jit"]
# By which a file of the hub is told from a folder.
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True, slots=True)
class VisualSource:
    """A kind of visual tokenizer that lies apart from its checkpoints.

    Attributes:
        repository: of the hub, taken where none is named.
        files: patterns of what is downloaded.
        needed: the files that a folder must have, in words.
    """

    repository: str
    files: tuple[str, ...]
    needed: str


COSMOS = VisualSource(COSMOS_REPO, (*VISUAL_TOKENIZER_FILES, CARD), "encoder.jit and decoder.jit")


@dataclass(frozen=True, slots=True)
class Location:
    """Folders of a checkpoint; `name` identifies the same files later (a hub name has its commit).

    `visual_name` does so for a visual tokenizer of the hub; it is "" for one that lies in a folder.
    """

    name: str
    folder: Path
    visual_folder: Path
    visual_name: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder, or one of the files in it, here or on the hub.

    Attributes:
        name: identifies the same files later (a hub name has its commit).
        folder: of the files; of the hub it need not be there yet.
        file: name of the one file that is meant; "" for the folder.
        hub_folder: name of the folder on the hub, with its commit; "" where it is here.
        listed: names of files that the folder has on the hub, downloaded or not.
    """

    name: str
    folder: Path
    file: str = ""
    hub_folder: str = ""
    listed: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files in the folder, on the hub or here, sorted."""
        here = [p.name for p in self.folder.iterdir() if p.is_file()] if self.folder.is_dir() else []
        return tuple(sorted({*here, *self.listed}))

    def fetch(self, names: Sequence[str]) -> list[Path]:
        """Paths of files, which are downloaded if they are only on the hub.

        Raises:
            BadInput, Incomplete: see `locate`.
        """
        if self.hub_folder and names:
            snapshot(self.hub_folder, list(names))
        return [self.folder / name for name in names]


def locate_place(name: str, what: str = "checkpoint", files: Sequence[str] = ("*.json",)) -> Place:
    """Find a folder or a file of weights; of the hub download small files, and the file that is meant.

    Args:
        name: `demo:NAME`, a folder, a file, or one of these on the hub.
        what: it is, for messages.
        files: patterns of what is downloaded beside that file.

    Raises:
        UnknownName, BadInput, Incomplete: see `locate`.
    """
    check_text(name, what)
    if is_weight_file(name):
        folder, file = Path(name).parent, Path(name).name
        return Place(str(folder.resolve() / file), folder, file)
    if not HUB_NAME.fullmatch(name) or _is_folder(name) or _is_path(name):
        return Place(*locate_folder(name, what))
    path, at, revision = name.partition("@")
    parent, _, last = path.rpartition("/")
    file = last if path.count("/") > 1 and last.endswith(WEIGHT_SUFFIXES) else ""
    listing = list_folder((parent if file else path) + at + revision, [*files, *([file] if file else [])])
    if file and file not in listing.files:
        raise BadInput(f"the hub has no {file!r} in {parent}, but {', '.join(listing.files[:8])}")
    parent, _, commit = listing.name.partition("@")
    pinned = f"{parent}/{file}@{commit}" if file else listing.name
    return Place(pinned, listing.folder, file, listing.name, listing.files)


def locate(name: str, visual_tokenizer: str = "") -> Location:
    """Find a checkpoint and its visual tokenizer; what is only on the hub is downloaded.

    Raises:
        UnknownName: there is no checkpoint of that name.
        BadInput: the hub has no such repository or revision, or requires a login; or offline and
            not cached.
        Incomplete: the download was interrupted; the same command resumes it.
    """
    return with_visual_tokenizer(*locate_folder(name), visual_tokenizer)


def with_visual_tokenizer(
    pinned: str, folder: Path, visual_tokenizer: str = "", source: VisualSource = COSMOS
) -> Location:
    """The location of a checkpoint that `locate_folder` found.

    Raises:
        BadInput, Incomplete: see `locate`.
    """
    visual_folder, visual_name = _visual_folder(folder, visual_tokenizer, source)
    return Location(pinned, folder, visual_folder, visual_name)


def with_same_commit(asked: str, earlier: str) -> str:
    """The name of an earlier start with its commit, where the same one is asked for without a commit.

    Args:
        asked: name of a checkpoint or visual tokenizer.
        earlier: what `Location` called it then.
    """
    name, _, commit = earlier.rpartition("@")
    return (
        earlier if commit and HUB_NAME.fullmatch(asked) and asked.removesuffix("@main") == name else asked
    )


def demo_names() -> list[str]:
    """Names of the checkpoints that ship with sar-eval, as accepted by `--ckpt`."""
    return sorted(f"demo:{path.parent.name}" for path in DEMO.glob("*/model.safetensors"))


def locate_folder(
    name: str, what: str = "checkpoint", files: list[str] | None = None, more: Sequence[str] = ()
) -> tuple[str, Path]:
    """What `Location` calls a folder, and the folder itself.

    Args:
        name: `demo:NAME`, a folder or a hub name.
        what: it is, for messages.
        files: patterns of what is downloaded from the hub; a checkpoint's files by default.
        more: patterns beside a checkpoint's files.

    Raises:
        UnknownName, BadInput, Incomplete: see `locate`.
    """
    check_text(name, what)
    if name.startswith("demo:"):
        if name not in demo_names():
            raise UnknownName(_unknown(name, what))
        return name, DEMO / name.removeprefix("demo:")
    if name and _is_folder(name):
        return str(Path(name).resolve()), Path(name)
    if is_weight_file(name):
        raise BadInput(f"{name} is a file, and this {what} is a folder: name {Path(name).parent}")
    if not HUB_NAME.fullmatch(name) or _is_path(name):
        raise UnknownName(_unknown(name, what))
    whole = [*CHECKPOINT_FILES, *more]
    found = snapshot_with_weights(name, whole) if files is None else snapshot(name, files)
    return found.name, found.folder


def locate_visual_tokenizer(name: str) -> Path:
    """The folder of a visual tokenizer: a folder, a hub name, or `demo:NAME` for that of the checkpoint.

    Raises:
        UnknownName, BadInput, Incomplete: see `locate`.
    """
    if name.startswith("demo:"):
        return locate(name).visual_folder
    return locate_folder(name, "visual tokenizer", VISUAL_TOKENIZER_FILES)[1]


def is_weight_file(name: str) -> bool:
    """Whether a name is that of a file here which may hold weights."""
    try:
        return name.endswith(WEIGHT_SUFFIXES) and Path(name).is_file()
    except OSError:  # longer than a file system allows, or not permitted
        return False


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # longer than a file system allows, or not permitted
        return False


def _is_path(name: str) -> bool:
    """Whether a name of three parts or more is meant as a path: its first folder is here."""
    return name.count("/") > 1 and _is_folder(name.partition("/")[0])


def _unknown(name: str, what: str) -> str:
    if not name:
        return f"no {what} is named: a folder, a hub name (ORG/NAME), or {', '.join(demo_names())}"
    matches = difflib.get_close_matches(name[:255], demo_names(), 1)
    hint = f"; did you mean {matches[0]!r}?" if matches else f"; shipped are {', '.join(demo_names())}"
    return (
        f"unknown {what} {shorten(name, 240)}: it is neither a folder nor a shipped checkpoint nor a hub "
        f"name (ORG/NAME, ORG/NAME/SUBFOLDER, either with @REVISION){hint}"
    )


def _visual_folder(folder: Path, requested: str, source: VisualSource) -> tuple[Path, str]:
    """The requested one, else that of `sar_eval.json`, else the source's; with its name on the hub."""
    check_text(requested, "--visual-tokenizer")
    if requested and (_is_folder(requested) or not HUB_NAME.fullmatch(requested)):
        return _resolved(Path(requested), "--visual-tokenizer"), ""
    path = folder / "sar_eval.json"
    if requested or not path.is_file():
        try:
            found = snapshot(requested or source.repository, [*source.files])
        except (BadInput, Incomplete) as error:
            hint = f"name a folder with {source.needed}: --visual-tokenizer FOLDER"
            raise type(error)(f"no visual tokenizer for {folder}: {error}; or {hint}") from error
        return found.folder, found.name
    refuse_pointer(path)
    config: Any = read_json(path)
    name = config.get("visual_tokenizer") if isinstance(config, dict) else None
    if not isinstance(name, str):
        raise BadInput(f"{path} names no visual_tokenizer (a folder or a name of the hub, as text)")
    if HUB_NAME.fullmatch(name) and not _is_folder(str(folder / name)):
        found = snapshot(name, [*source.files])
        return found.folder, found.name
    return _resolved(folder / name, str(path)), ""


def _resolved(path: Path, where: str) -> Path:
    try:
        found = path.resolve()
        found.exists()
    except (OSError, RuntimeError) as error:  # too long a name, or links in a circle
        raise BadInput(f"{where} names no folder: {shorten(str(path))}") from error
    return found
