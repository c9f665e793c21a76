"""Put a finished checkpoint into a model repository of the Hugging Face hub.

Weights go first, a file a commit, so that after a stop the same command sends only what is not there; then
everything else at once, `sar_eval.json` among it, which says that a checkpoint is whole. An earlier
checkpoint's is removed by the first commit, and what else is left of that by the last.
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
from sar_eval.train.checkpoint_writer import ABOUT
from sar_eval.train.model_card import README
from sar_eval.train.published import published
from sar_eval.train.recipe_file import RECIPE, toml_text
from sar_eval.train.train_recipe import public
from sar_eval.types import Json

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# Of a training's folder: its journal, whose page goes along, and what is made for the repository.
LEFT_OUT = (ABOUT, "*.parquet", "journal.json", "settings.json", ".*")
VISUAL = "visual_tokenizer"  # its key there, and its folder in the repository
LARGE = 1 << 24  # bytes of a file that gets a commit of its own
# What a checkpoint or an adapter has at the top of its repository: another one's would be read with it.
OURS = (
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json"),
    *("adapter_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja"),
    *(RECIPE, "loss.jsonl", "training.html"),
)


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
        for sent, changes, message in _commits(files, missing, there):
            api.create_commit(repository, changes, commit_message=message, repo_type="model")
            done += sent
            progress(done, len(files))
    return address


def check_base(base: str) -> None:
    """Refuse to push an adapter that nobody else could merge: before hours of training, too.

    Raises:
        BadInput: its base is a folder of this machine.
    """
    if Path(base).is_absolute():
        raise BadInput(
            f"--push of an adapter of {base}, which others do not have: push the base and name it in the "
            "hub with --ckpt, or push what `sar-eval ckpt merge` makes"
        )


def _files(folder: Path, repository: str) -> Iterator[_File]:
    """The files of the folder itself, and of its visual tokenizer unless the hub has that."""
    about = _about(folder)
    name = about[VISUAL]
    visual = (folder / name).resolve()
    hub_name = name if not visual.is_dir() else hub_name_of(visual)
    for path in sorted(folder.iterdir()):
        if path.is_file() and not any(fnmatchcase(path.name, each) for each in LEFT_OUT):
            yield _File(path.name, _published(path, repository))
    if not hub_name:
        for each in VISUAL_TOKENIZER_FILES:
            if (visual / each).is_file():
                yield _File(f"{VISUAL}/{each}", visual / each)
    shown = {**published(about), VISUAL: hub_name or VISUAL}
    yield _File(ABOUT, (json.dumps(shown, indent=2) + "\n").encode())


def _about(folder: Path) -> dict[str, Json]:
    """The folder's `sar_eval.json`, of a checkpoint that others can use."""
    if not (folder / ABOUT).is_file():
        raise BadInput(f"{folder} has no {ABOUT}: it is no finished checkpoint")
    about = read_json(folder / ABOUT)
    if not isinstance(about, dict) or not isinstance(about.get(VISUAL), str):
        raise BadInput(f"{folder / ABOUT} names no {VISUAL} (a folder, as text)")
    if isinstance(base := about.get("base"), str):
        check_base(base)
    return about


def _published(path: Path, repository: str) -> Path | bytes:
    """A file as others may read it: a recipe without paths of this machine, a card with its own name."""
    if path.name == RECIPE:
        return toml_text(public(read_toml(path))).encode()
    if path.name == README:
        return path.read_bytes().replace(b"ORG/NAME", repository.encode())
    return path


def _is_there(file: _File, there: Mapping[str, Any]) -> bool:
    return file.name in there and file.is_at(there[file.name])


def _commits(
    files: list[_File], missing: list[_File], there: Mapping[str, Any]
) -> Iterator[tuple[int, list[Any], str]]:
    """Files that each commit sends, its changes and its message.

    Between the first and the last one the repository has files of two checkpoints, and no `sar_eval.json`.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    batches, stale = list(_batches(missing)), sorted(_stale(files, there))
    withdrawn = [ABOUT] if len(batches) > 1 and ABOUT in there else []
    if withdrawn:
        about = next(file for file in files if file.name == ABOUT)
        batches = list(_batches([*(file for file in missing if file != about), about]))
    if stale and not batches:
        batches = [[]]
    for number, batch in enumerate(batches):
        removed = stale if number == len(batches) - 1 else [] if number else withdrawn
        changes: list[Any] = [CommitOperationDelete(path_in_repo=name) for name in removed]
        changes += [CommitOperationAdd(path_in_repo=f.name, path_or_fileobj=f.content) for f in batch]
        yield len(batch), changes, batch[0].name if len(batch) == 1 else f"{len(batch)} files"


def _stale(files: list[_File], there: Mapping[str, Any]) -> Iterator[str]:
    """Files of the repository that are an earlier checkpoint's."""
    kept = {file.name for file in files}
    for name in there.keys() - kept:
        is_ours = "/" not in name and any(fnmatchcase(name, each) for each in OURS)
        if is_ours or name in {f"{VISUAL}/{each}" for each in VISUAL_TOKENIZER_FILES}:
            yield name


def _batches(files: list[_File]) -> Iterator[list[_File]]:
    """The files of each commit; what says that the checkpoint is whole goes last."""
    large = [file for file in files if file.size >= LARGE]
    yield from ([file] for file in large)
    if rest := [file for file in files if file.size < LARGE]:
        yield rest
