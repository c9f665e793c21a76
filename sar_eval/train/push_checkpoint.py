"""Put a finished checkpoint into a model repository of the Hugging Face hub.

Weights go first, a file a commit, so that after a stop the same command sends only what is not there; then
everything else at once, `sar_eval.json` among it, which says that a checkpoint is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_eval.documents import read_json, read_toml
from sar_eval.errors import BadInput
from sar_eval.families.locate import VISUAL_TOKENIZER_FILES
from sar_eval.storage.hub_uploads import check_repository, hub_client, hub_errors
from sar_eval.tensors.hub import hub_name_of
from sar_eval.train.checkpoint_writer import ABOUT, ADAPTER_CONFIG
from sar_eval.train.model_card import README
from sar_eval.train.recipe_file import RECIPE, toml_text
from sar_eval.train.step_rows import FILE as DIVERGED
from sar_eval.train.train_recipe import public
from sar_eval.types import Json

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# Of a training's folder: its journal, whose page goes along, and what is made for the repository.
LEFT_OUT = (ABOUT, "*.parquet", "journal.json", "settings.json", DIVERGED, ".*")
BASE = "base_model_name_or_path"  # in peft's configuration of an adapter
VISUAL = "visual_tokenizer"  # its key there, and its folder in the repository
LARGE = 1 << 24  # bytes of a file that gets a commit of its own


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the repository: on the disk, or made for it."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)

    def is_at(self, stored: Any) -> bool:
        """Whether the hub says that it has these bytes: by SHA-256 of a large file, by git's SHA-1."""
        if stored.size != self.size:
            return False
        if stored.lfs is not None:
            return str(stored.lfs.sha256) == self._digest(hashlib.sha256())
        blob = hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)
        return str(stored.blob_id) == self._digest(blob)

    def _digest(self, digest: Any) -> str:
        if isinstance(self.content, bytes):
            digest.update(self.content)
            return str(digest.hexdigest())
        with self.content.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return str(digest.hexdigest())


def push_checkpoint(
    folder: Path,
    repository: str,
    *,
    private: bool = False,
    api: HfApi | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Upload a checkpoint that is finished; returns the repository's address.

    A visual tokenizer of this machine goes along, one of the hub is named: the repository's name is enough
    to draw with it.

    Args:
        folder: of the checkpoint.
        repository: ORG/NAME of a model; made if it is not there.
        private: of a repository that is made.
        api: the hub's client; by default with the user's own login.
        progress: called with the files that are there, and their number.

    Raises:
        BadInput: `folder` is no finished checkpoint, or the hub refuses it.
        Incomplete: the upload broke off; the same command goes on.
    """
    check_repository(repository, "model")
    files = list(_files(folder, repository))
    api = hub_client(api)
    with hub_errors(repository, "checkpoint"):
        address = str(api.create_repo(repository, repo_type="model", private=private, exist_ok=True))
        there = {entry.path: entry for entry in api.list_repo_tree(repository, recursive=True)}
        missing = [file for file in files if not _is_there(file, there)]
        done = len(files) - len(missing)
        progress(done, len(files))
        for batch in _batches(missing):
            _commit(api, repository, batch)
            done += len(batch)
            progress(done, len(files))
    return address


def _files(folder: Path, repository: str) -> Iterator[_File]:
    """The files of the folder itself, and of its visual tokenizer unless the hub has that."""
    if not (folder / ABOUT).is_file():
        raise BadInput(f"{folder} has no {ABOUT}: it is no finished checkpoint")
    about = read_json(folder / ABOUT)
    name = about.get(VISUAL) if isinstance(about, dict) else None
    if not isinstance(name, str):
        raise BadInput(f"{folder / ABOUT} names no {VISUAL} (a folder, as text)")
    visual = (folder / name).resolve()
    hub_name = name if not visual.is_dir() else hub_name_of(visual)
    for path in sorted(folder.iterdir()):
        if path.is_file() and not any(fnmatchcase(path.name, each) for each in LEFT_OUT):
            yield _File(path.name, _published(path, repository))
    if not hub_name:
        for each in VISUAL_TOKENIZER_FILES:
            if (visual / each).is_file():
                yield _File(f"{VISUAL}/{each}", visual / each)
    yield _File(ABOUT, _json({**_named(about, "base"), VISUAL: hub_name or VISUAL}))


def _published(path: Path, repository: str) -> Path | bytes:
    """A file as others may read it: without paths of this machine, a card with its own name."""
    if path.name == RECIPE:
        return toml_text(public(read_toml(path))).encode()
    if path.name == README:
        return path.read_bytes().replace(b"ORG/NAME", repository.encode())
    if path.name == ADAPTER_CONFIG and isinstance(config := read_json(path), dict):
        return _json(_named(config, BASE))
    return path


def _named(values: Mapping[str, Json], key: str) -> dict[str, Json]:
    """With the last part of a path of this machine in place of the whole one."""
    value = values.get(key)
    if isinstance(value, str) and Path(value).is_absolute():
        return {**values, key: Path(value).name}
    return dict(values)


def _json(values: Mapping[str, Json]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()


def _is_there(file: _File, there: Mapping[str, Any]) -> bool:
    return file.name in there and file.is_at(there[file.name])


def _batches(files: list[_File]) -> Iterator[list[_File]]:
    """The files of each commit; what says that the checkpoint is whole goes last."""
    large = [file for file in files if file.size >= LARGE]
    yield from ([file] for file in large)
    if rest := [file for file in files if file.size < LARGE]:
        yield rest


def _commit(api: HfApi, repository: str, files: list[_File]) -> None:
    from huggingface_hub import CommitOperationAdd

    changes = [CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file.content) for file in files]
    message = files[0].name if len(files) == 1 else f"{len(files)} files"
    api.create_commit(repository, changes, commit_message=message, repo_type="model")
