"""Download files of a Hugging Face hub repository into the hub's own cache.

`SAR_EVAL_OFFLINE`, `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE` (1, true, yes or on) uses the cache alone,
without any request. `HF_ENDPOINT` asks another host.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sar_eval.documents import convert, read_json
from sar_eval.errors import BadInput, Incomplete
from sar_eval.tensors.published_weights import cache_folder, home_folder
from sar_eval.tensors.remote_file import HubFolder, in_words

# ORG/NAME, ORG/NAME/SUBFOLDER, either with @REVISION
HUB_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)((?:/\w[\w.-]*)*)(?:@([\w.][\w./-]*))?", re.ASCII)
TORCH_FILES = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]  # where there are no safetensors
_OFFLINE = ("SAR_EVAL_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A downloaded folder of a repository; `name` has the commit in place of the revision."""

    name: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Listing:
    """What is known of a folder of a repository before its large files are downloaded.

    Attributes:
        name: with the commit in place of the revision.
        folder: where its files are or will be; it need not be there yet.
        files: names of the files in the folder itself, on the hub or, without an answer, in the cache.
    """

    name: str
    folder: Path
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Index:
    """Of the index of a model in shards, what is needed: the file of each tensor."""

    weight_map: dict[str, str]


def is_offline() -> bool:
    """Whether a variable forbids requests, read as the hub's own client reads them."""
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in _OFFLINE)


def hub_name_of(folder: Path) -> str:
    """ORG/NAME@COMMIT of a folder in the hub's cache, with its subfolder; "" for any other folder."""
    found = re.search(r"/models--([\w.-]+?)--([\w.-]+)/snapshots/([0-9a-f]{40})(/.+)?$", folder.as_posix())
    return f"{found[1]}/{found[2]}{found[4] or ''}@{found[3]}" if found else ""


def check_published(path: Path, sha256: str) -> None:
    """Check a file of the hub's cache, which names large files by their published SHA-256.

    Raises:
        BadInput: it is not what the hub published.
    """
    published = path.resolve().name
    if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", published) and published != sha256:
        raise BadInput(
            f"{path} is not what the hub published (SHA-256 {sha256[:16]}..., expected "
            f"{published[:16]}...): remove {path.resolve()} and run the command again"
        )


def snapshot_with_weights(name: str, patterns: list[str]) -> Snapshot:
    """Like `snapshot`, but with the torch files where a repository has no safetensors."""
    found = snapshot(name, patterns)
    return found if list(found.folder.glob("*.safetensors")) else snapshot(name, [*patterns, *TORCH_FILES])


def fetch_folder(weights: HubFolder) -> Path:
    """Download the weights of a repository, safetensors or else torch files, and return their folder.

    Raises:
        BadInput, Incomplete: see `snapshot`.
    """
    return snapshot_with_weights(weights.repository, ["*.safetensors", *weights.patterns]).folder


def find_folder(weights: HubFolder, command: str) -> Path:
    """The folder of a downloaded repository, without a request.

    Args:
        weights: which repository.
        command: what downloads it, for the message.

    Raises:
        BadInput: it is not there, or a shard that its index names is not; the message says how to get it.
    """
    try:
        folder = _download(weights.repository, None, "", list(weights.patterns), offline=True)
        missing = _missing_weights(folder)
    except (OSError, ValueError):  # the client's errors for what is not cached are both
        missing = "weights"
    if missing:
        raise BadInput(
            f"no {missing} of {weights.repository}: `{command}` downloads {weights.purpose} "
            f"({in_words(weights.size, exact=False)}) into the hub's cache; without a network, give the "
            "folder of a copy as the option weights"
        )
    return folder


def _missing_weights(folder: Path) -> str:
    """What a folder of weights lacks, "" if nothing: a download that broke off left some of its shards."""
    for index in sorted(folder.glob("*.index.json")):
        table = convert(read_json(index), _Index, str(index)).weight_map
        return next((name for name in sorted(set(table.values())) if not (folder / name).is_file()), "")
    return "" if [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")] else "weights"


def snapshot(name: str, patterns: list[str], *, depth: int = 1, ignored: Sequence[str] = ()) -> Snapshot:
    """Download a folder of a hub repository into the hub's cache.

    Args:
        name: ORG/NAME, ORG/NAME@REVISION or ORG/NAME/SUBFOLDER@REVISION.
        patterns: of the files to download.
        depth: 1 for files in that folder alone, 2 for those in its folders, too.
        ignored: patterns of files that are not downloaded though they fit.

    Raises:
        BadInput: the hub has no such repository, revision or folder, or requires a login; or offline and
            not cached.
        Incomplete: the download was interrupted; the same command resumes it.
    """
    repository, below, revision = _parts(name)
    with _hub_errors(name):
        root = _download(repository, revision, below, patterns, depth=depth, ignored=ignored)
    if not (root / below).is_dir():
        raise BadInput(f"the hub has {repository!r}, but no folder {below!r} with such files{_asked()}")
    return Snapshot(_pinned(name, root.name), root / below)


def list_folder(name: str, patterns: list[str]) -> Listing:
    """Download the small files of a folder, and tell which others it has.

    The hub is asked for the others only where the folder has no `config.json`, without which a checkpoint
    is told by the names of its files.

    Args:
        name: as for `snapshot`.
        patterns: of the files to download.

    Raises:
        BadInput, Incomplete: see `snapshot`.
    """
    repository, below, revision = _parts(name)
    with _hub_errors(name):
        root = _download(repository, revision, below, patterns)
        folder = root / below
        files = {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()
        if "config.json" not in files:
            files |= {path.removeprefix(f"{below}/") for path in _listed(repository, root.name, below)}
    if not files:
        raise BadInput(f"the hub has {repository!r}, but no folder {below!r} with such files{_asked()}")
    return Listing(_pinned(name, root.name), folder, tuple(sorted(files)))


def _parts(name: str) -> tuple[str, str, str | None]:
    """Repository, folder in it and revision of a name."""
    match = HUB_NAME.fullmatch(name)
    if match is None:
        raise BadInput(f"{name!r} is no name of the hub: ORG/NAME, ORG/NAME@REVISION or ORG/NAME/SUBFOLDER")
    return match[1], match[2].strip("/"), match[3]


def _pinned(name: str, commit: str) -> str:
    return f"{name.partition('@')[0]}@{commit}"


def _listed(repository: str, commit: str, below: str) -> list[str]:
    """Paths of the files in one folder of a repository; none where the hub does not answer."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if is_offline():
        return []
    try:
        paths = HfApi().list_repo_files(repository, revision=commit)
    except HfHubHTTPError:
        raise
    except Exception as error:
        # Of lost connections the client passes on its HTTP library's errors; that has had two names. What
        # is cached may be enough then, as it is where files are downloaded.
        if not any(kind.__module__.startswith("httpx") for kind in type(error).__mro__):
            raise
        return []
    return [path for path in paths if path.rpartition("/")[0] == below]


@contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    """The client's errors in our words."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except LocalEntryNotFoundError as error:
        raise BadInput(f"cannot get {name!r}: it is no folder, and {_no_answer(error)}") from error
    except HFValidationError as error:
        raise BadInput(f"cannot get {name!r}: {error}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        message = _http_error_message(name, status)
        raise (BadInput(message) if 400 <= status < 500 else Incomplete(message)) from error
    except (OSError, ValueError) as error:
        message = f"the download of {name!r} broke off{_asked()} ({error}): run the same command again"
        raise Incomplete(message) from error


def _download(
    repository: str,
    revision: str | None,
    below: str,
    patterns: list[str],
    offline: bool = False,
    depth: int = 1,
    ignored: Sequence[str] = (),
) -> Path:
    from huggingface_hub import snapshot_download

    prefix = f"{below}/" if below else ""
    without_home = home_folder() is None and not (
        os.environ.get("HF_HOME") or os.environ.get("HF_HUB_CACHE")
    )
    return Path(
        snapshot_download(
            repository,
            revision=revision,
            allow_patterns=[prefix + pattern for pattern in patterns],
            # A pattern's * stands for slashes, too.
            ignore_patterns=[prefix + pattern for pattern in (f"{'*/' * depth}*", *ignored)],
            local_files_only=offline or is_offline(),
            cache_dir=cache_folder() / "hub" if without_home else None,
        )
    )


def _asked() -> str:
    """Where the hub was asked, for messages: `HF_ENDPOINT` may name another host than the usual."""
    endpoint = os.environ.get("HF_ENDPOINT", "")
    return f" (asked at {endpoint}: HF_ENDPOINT is set)" if endpoint else ""


def _no_answer(error: BaseException) -> str:
    """Why nothing was found, with what the request ended in."""
    if is_offline():
        return "nothing of it is cached (offline, so the hub was not asked)"
    reasons = list(_reasons(error))
    return f"the hub does not answer{_asked()}" + (f": {reasons[-1]}" if reasons else "")


def _reasons(error: BaseException | None) -> Iterator[str]:
    """What the errors behind an error of the client say: an answer's status, or a connection's end."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        response, request = getattr(error, "response", None), _request(error)
        if response is not None:
            yield f"{response.status_code} from {response.url}"
        elif request is not None:
            yield f"{str(error) or type(error).__name__} ({request.url})"
        error = error.__cause__ or error.__context__


def _request(error: BaseException) -> Any:
    try:
        return getattr(error, "request", None)
    except RuntimeError:  # httpx raises it where an error belongs to no request
        return None


def _http_error_message(name: str, status: int) -> str:
    if status in (401, 403):
        terms = "accept its terms there, then set HF_TOKEN"
        return f"the hub denies access to {name!r} ({status}): {terms}{_asked()}"
    if status == 404:
        return f"the hub has no {name!r}: check the name and the revision{_asked()}"
    return f"the hub answers {status} for {name!r}: run the same command again{_asked()}"
