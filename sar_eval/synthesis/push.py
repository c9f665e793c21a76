"""Put a set into a dataset repository of the Hugging Face hub.

Objects carry the digest of their bytes in their names, so what is there under its name need not be sent
again: after a stop the same command goes on. The card goes last, and names what the repository then has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sar_eval.documents import parse_json, shorten
from sar_eval.errors import BadInput, Incomplete
from sar_eval.storage.image_set import LEDGER_NAME, OBJECT_NAME, REPACKED, SPEC
from sar_eval.storage.set_reader import REMOVED, SetReader
from sar_eval.synthesis.card import FUNNEL, README
from sar_eval.synthesis.spec import SetSpec

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_OURS = re.compile(rf"{OBJECT_NAME.pattern}|{LEDGER_NAME.pattern}|{REMOVED}[a-z]+-[0-9a-f]{{16}}\.parquet")
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
COMMIT_OBJECTS, COMMIT_BYTES = 100, 1 << 29  # of one commit: half a GB is in memory at a time
FEW = 10_000  # files of a folder that the hub takes


def check_repository(name: str) -> None:
    """Refuse what is no name of a dataset: before hours of drawing, too.

    Raises:
        BadInput: so.
    """
    if not REPOSITORY.fullmatch(name):
        raise BadInput(f"--push is {shorten(name)}: ORG/NAME of a dataset on the hub")


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
    check_repository(repository)
    wanted, last = list(_files(reader)), _last(reader)
    if len(wanted) > 2 * FEW:
        raise BadInput(
            f"{len(wanted):,} objects are more than the hub takes in a folder ({FEW:,}): "
            "`sar-eval synth repack` makes fewer, larger ones"
        )
    api = _client(api)
    with _hub_errors(repository):
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


def _client(api: HfApi | None) -> HfApi:
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # the client's own; `progress` replaces them
    return HfApi() if api is None else api


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


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """What the hub's client raises, as errors that say what to do."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError as error:
        raise BadInput("the hub asks who you are: log in with `hf auth login`, or set HF_TOKEN") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise _refused(repository, status, str(error).partition("\n")[0]) from error
    except ValueError as error:  # of a header that the hub does not like, a licence that it does not know
        raise BadInput(f"the hub does not take the set: {' '.join(str(error).split())}") from error
    except Exception as error:
        # Of lost connections the client passes on its HTTP library's errors; that has had two names.
        if not isinstance(error, OSError | RuntimeError) and not _is_of_http(error):
            raise
        raise _broke_off(repository, f"{type(error).__name__}: {error}") from error


def _is_of_http(error: Exception) -> bool:
    return any(kind.__module__.startswith("httpx") for kind in type(error).__mro__)


def _refused(repository: str, status: int, message: str) -> BadInput | Incomplete:
    if status == 401:
        return BadInput(
            "the hub does not know you: log in with `hf auth login`, or set HF_TOKEN to a token that may "
            "write"
        )
    if status in (403, 404):
        return BadInput(
            f"the hub does not let you write to {repository} ({message}): is the name right, and may your "
            "token write there?"
        )
    if 400 <= status < 500 and status not in (408, 409, 412, 429):
        return BadInput(f"the hub refuses {repository}: {message}")
    return _broke_off(repository, message)


def _broke_off(repository: str, message: str) -> Incomplete:
    return Incomplete(
        f"the upload to {repository} broke off ({message}): run the same command again to go on"
    )
