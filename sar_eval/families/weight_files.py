"""Which files of a checkpoint's folder hold its weights, and which are left alone.

With an index the files that it names are read and nothing else; without one, `model.safetensors`
(or `pytorch_model.bin`), or a complete set of numbered files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sar_eval.documents import read_json, shorten
from sar_eval.errors import BadInput
from sar_eval.families import foreign_folders
from sar_eval.tensors.git_lfs import refuse_pointer
from sar_eval.tensors.header import Entry, read_entries
from sar_eval.tensors.hub import check_published

FORMATS = (
    ("model.safetensors", "*.safetensors"),
    ("pytorch_model.bin", "pytorch_model*.bin"),
)
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.(safetensors|bin)")


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """A checkpoint's weight files.

    Attributes:
        paths: the files to read, by name.
        unused: names of other files of weights in the folder.
        index: tensor to file name, as the index says; None without an index.
    """

    paths: tuple[Path, ...]
    unused: tuple[str, ...]
    index: Mapping[str, str] | None = None

    def named_in(self, path: Path) -> list[str] | None:
        """The tensors that are to be read from one of the files; None for all that it has."""
        if self.index is None:
            return None
        return [tensor for tensor, name in self.index.items() if name == path.name]


def find_weight_files(folder: Path) -> WeightFiles | None:
    """The weight files of a folder, None if there are none.

    Raises:
        BadInput: an index is no table or names files that are not there, or it cannot be known which of
            several files are the weights.
    """
    present = {pattern: sorted(p for p in folder.glob(pattern) if p.is_file()) for _, pattern in FORMATS}
    everything = [path.name for paths in present.values() for path in paths]
    for single, pattern in FORMATS:
        index = _read_index(folder / f"{single}.index.json", present[pattern])
        paths = (
            present[pattern] if index is None else [folder / name for name in sorted(set(index.values()))]
        )
        chosen = _without_index(folder, single, paths) if index is None else paths
        if chosen:
            used = {path.name for path in chosen}
            return WeightFiles(tuple(chosen), tuple(name for name in everything if name not in used), index)
    return None


def need_weight_files(folder: Path) -> WeightFiles:
    """The weight files of a checkpoint's folder.

    Raises:
        BadInput: there are none, and the message says what the folder is instead; or as in
            `find_weight_files`.
    """
    found = find_weight_files(folder)
    if found is None:
        reason = foreign_folders.describe(folder)
        raise BadInput(reason or f"no *.safetensors and no pytorch_model*.bin in {folder}")
    return found


def read_headers(files: WeightFiles, folder: Path) -> Mapping[str, tuple[Path, Entry]]:
    """File and entry of each tensor, by its name in the files.

    Raises:
        BadInput: a header is damaged, a tensor is there twice, or the index does not fit.
    """
    index, found = files.index, dict[str, tuple[Path, Entry]]()
    for path in files.paths:
        for name, entry in read_entries(path).items():
            if index is not None and index.get(name) != path.name:
                continue  # the index says what is loaded, and from where
            if name in found:
                raise BadInput(f"tensor {name!r} is in {found[name][0].name} and in {path}: which counts?")
            found[name] = path, entry
    if index is not None and (missing := index.keys() - found.keys()):
        name = min(missing)
        raise BadInput(f"{folder / index[name]} has no tensor {name!r}, which the index says is in it")
    return found


def published_digest(paths: Iterable[Path]) -> str:
    """SHA-256 over the SHA-256 of files, in their order, 16 hex digits.

    Raises:
        BadInput: a file from the hub is not the published one.
    """
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        check_published(path, digest.hexdigest())
        total.update(digest.digest())
    return total.hexdigest()[:16]


def _read_index(path: Path, present: list[Path]) -> dict[str, str] | None:
    """The index's table of tensor to file name; None if there is no index."""
    if not path.is_file():
        return None
    refuse_pointer(path)
    data: Any = read_json(path)
    table = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(table, dict) or not table:
        raise BadInput(f"{path}: weight_map is {shorten(table)}: a table of tensor to file name is needed")
    for tensor, name in table.items():
        if not isinstance(name, str) or name != Path(name).name or len(name) > 255:
            raise BadInput(f"{path}: {shorten(tensor)} is in {shorten(name)}: no name of a file beside it")
    if missing := set(table.values()) - {file.name for file in present}:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise BadInput(f"no {min(missing)}{more} in {path.parent}, which {path.name} names")
    return table


def _without_index(folder: Path, single: str, paths: list[Path]) -> list[Path]:
    """The one file of the usual name, or the only one, or a complete numbered set."""
    plain = [path for path in paths if path.name == single]
    if plain or len(paths) < 2:
        return plain or paths
    shards = [match for match in map(_SHARD.fullmatch, (path.name for path in paths)) if match]
    series = {(match[1], match[3]) for match in shards}
    if len(shards) == len(paths) and len(series) == 1 and len(paths) == int(shards[0][3]):
        return paths
    raise BadInput(
        f"{folder} has {len(paths)} files of weights ({paths[0].name}, {paths[1].name}, ...), and neither "
        f"{single} nor {single}.index.json, which says what belongs together: move away what does not"
    )
