"""Put a set into a dataset repository of the Hugging Face hub.

Objects carry the digest of their bytes in their names, so what is there under its name need not be sent
again: after a stop the same command goes on. The card goes last, and names what the repository then has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from sar_eval.documents import parse_json
from sar_eval.errors import BadInput
from sar_eval.storage.hub_uploads import check_repository, hub_client, hub_errors
from sar_eval.storage.image_set import LEDGER_NAME, OBJECT_NAME, REPACKED, SPEC
from sar_eval.storage.set_reader import REMOVED, SetReader
from sar_eval.synthesis.card import FUNNEL, README
from sar_eval.synthesis.spec import SetSpec

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_OURS = re.compile(rf"{OBJECT_NAME.pattern}|{LEDGER_NAME.pattern}|{REMOVED}[a-z]+-[0-9a-f]{{16}}\.parquet")
COMMIT_OBJECTS, COMMIT_BYTES = 100, 1 << 29  # of one commit: half a GB is in memory at a time
FEW = 10_000  # files of a folder that the hub takes


def push(
    reader: SetReader,
    repository: str,
    *,
    private: bool = False,
    api: HfApi | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Upload what the set's records name, its card last; returns the repository's address.

    Objects of an earlier upload that do not count any more go with the card: readers of the hub take what
    they find there.

    Args:
        reader: of a set with a card.
        repository: ORG/NAME of a dataset; made if it is not there.
        private: of a repository that is made.
        api: the hub's client; by default with the user's own login.
        progress: called with the objects that are there, and their number.

    Raises:
        BadInput: the hub refuses it, or the set has more files than the hub takes.
        Incomplete: the upload broke off; the same command goes on.
    """
    check_repository(repository, "dataset")
    wanted, last = list(_files(reader)), _last(reader)
    if len(wanted) > 2 * FEW:
        raise BadInput(
            f"{len(wanted):,} objects are more than the hub takes in a folder ({FEW:,}): "
            "`sar-eval synth repack` makes fewer, larger ones"
        )
    api = hub_client(api)
    with hub_errors(repository, "set"):
        address = str(api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True))
        there = set(api.list_repo_files(repository, repo_type="dataset"))
        missing = [(name, size) for name, size in wanted if name not in there]
        done = len(wanted) - len(missing)
        progress(done, len(wanted))
        for names in _batches(missing):
            _commit(api, repository, reader, names, f"Objects {done + 1} to {done + len(names)}")
            done += len(names)
            progress(done, len(wanted))
        stale = {name for name in there if _OURS.fullmatch(name)} - {name for name, _ in wanted}
        _commit(api, repository, reader, last, "Card", stale)
    return address


def _files(reader: SetReader) -> Iterator[tuple[str, int]]:
    """Names and sizes of the objects of a set whose names have their digests."""
    if reader.repacked:
        yield from ((part.name, part.size) for part in reader.repacked.parts)
        return
    for record in reader.image_set.records():
        if record.data:
            yield record.data, record.data_bytes
        yield record.manifest, record.manifest_bytes
    for prefix in (REMOVED, "ledger/"):  # with its ledgers, the copy is a set that `draw` and `train` read
        yield from ((info.name, info.size) for info in reader.store.list(prefix))


def _last(reader: SetReader) -> list[str]:
    names = [REPACKED if reader.repacked else SPEC, FUNNEL, README]
    if missing := [name for name in names if not reader.store.exists(name)]:
        raise BadInput(
            f"{reader.store.uri} has no {missing[0]}: write the card first (`sar-eval synth card`)"
        )
    return names


def _batches(files: list[tuple[str, int]]) -> Iterator[list[str]]:
    """Names of the files of each commit."""
    batch, size = list[str](), 0
    for name, length in files:
        if batch and (len(batch) == COMMIT_OBJECTS or size + length > COMMIT_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += length
    if batch:
        yield batch


def _commit(
    api: HfApi,
    repository: str,
    reader: SetReader,
    names: list[str],
    message: str,
    stale: Collection[str] = (),
) -> None:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    changes: list[Any] = [CommitOperationDelete(name) for name in sorted(stale)]
    changes += [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=_public(name, data, reader))
        for name, data in reader.store.read_many(names)
    ]
    api.create_commit(repository, changes, commit_message=message, repo_type="dataset")


def _public(name: str, data: bytes, reader: SetReader) -> bytes:
    """An object as it goes to the hub: of paths on this machine only the last part."""
    if name != SPEC:
        return data
    spec = SetSpec.from_json(parse_json(data, name), reader.store.where(name))
    return (json.dumps(spec.without_paths().to_json(), sort_keys=True, ensure_ascii=False) + "\n").encode()
