"""Download files of a Hugging Face hub repository into the hub's own cache.

`SAR_EVAL_OFFLINE=1` or `HF_HUB_OFFLINE=1` uses the cache alone, without any request.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sar_eval.errors import BadInput, Incomplete

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")  # ORG/NAME or ORG/NAME@REVISION
TORCH_FILES = ["pytorch_model*.bin"]  # downloaded where a repository has no safetensors


def snapshot_with_weights(name: str, patterns: list[str]) -> Path:
    """Like `snapshot`, but with the torch files where a repository has no safetensors."""
    folder = snapshot(name, patterns)
    return folder if list(folder.glob("*.safetensors")) else snapshot(name, TORCH_FILES)


def snapshot(name: str, patterns: list[str]) -> Path:
    """Download a hub repository into the hub's cache; the folder's name is the commit.

    Args:
        name: ORG/NAME or ORG/NAME@REVISION.
        patterns: of the files to download.

    Raises:
        BadInput: the hub has no such repository or revision, or requires a login; or offline and
            not cached.
        Incomplete: the download was interrupted; the same command resumes it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    offline = any(os.environ.get(key) == "1" for key in ("SAR_EVAL_OFFLINE", "HF_HUB_OFFLINE"))
    try:
        return Path(
            snapshot_download(
                repository, revision=revision or None, allow_patterns=patterns, local_files_only=offline
            )
        )
    except LocalEntryNotFoundError as error:
        reason = (
            "nothing of it is cached (offline, so the hub was not asked)"
            if offline
            else "the hub does not answer"
        )
        raise BadInput(f"cannot get {name!r}: it is no folder, and {reason}") from error
    except HFValidationError as error:
        raise BadInput(f"cannot get {name!r}: {error}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        message = _http_error_message(name, status)
        raise (BadInput(message) if 400 <= status < 500 else Incomplete(message)) from error
    except OSError as error:
        message = f"the download of {name!r} broke off ({error}): run the same command again"
        raise Incomplete(message) from error


def _http_error_message(name: str, status: int) -> str:
    if status in (401, 403):
        return f"the hub denies access to {name!r} ({status}): accept its terms there, then set HF_TOKEN"
    if status == 404:
        return f"the hub has no {name!r}: check the name and the revision"
    return f"the hub answers {status} for {name!r}: run the same command again"
