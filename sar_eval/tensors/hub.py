"""Files of a Hugging Face hub repository, in the hub's own cache: tensors and texts, never code.

`SAR_EVAL_OFFLINE=1` or `HF_HUB_OFFLINE=1` takes what the cache holds and asks nobody.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sar_eval.errors import BadInput, Incomplete

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")  # ORG/NAME or ORG/NAME@REVISION
TORCH_FILES = ["pytorch_model*.bin"]  # fetched where a repository has no safetensors


def snapshot_with_weights(name: str, patterns: list[str]) -> Path:
    """As `snapshot`, with the repository's torch files where it has no safetensors."""
    folder = snapshot(name, patterns)
    return folder if list(folder.glob("*.safetensors")) else snapshot(name, TORCH_FILES)


def snapshot(name: str, patterns: list[str]) -> Path:
    """The folder of a hub repository's files in the hub's cache; it is called by the commit.

    Args:
        name: ORG/NAME or ORG/NAME@REVISION.
        patterns: of the files that are wanted.

    Raises:
        BadInput: the hub has no such repository or revision, or wants a login; or nothing is cached.
        Incomplete: the download broke off; the same command goes on with it.
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
        told = "nothing of it is cached and the hub is not asked" if offline else "the hub does not answer"
        raise BadInput(f"cannot get {name!r}: it is no folder, and {told}") from error
    except HFValidationError as error:
        raise BadInput(f"cannot get {name!r}: {error}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        told = _told(name, status)
        raise (BadInput(told) if 400 <= status < 500 else Incomplete(told)) from error
    except OSError as error:
        told = f"the download of {name!r} broke off ({error}): run the same command again"
        raise Incomplete(told) from error


def _told(name: str, status: int) -> str:
    if status in (401, 403):
        return f"the hub keeps {name!r} from us ({status}): accept its terms there, then set HF_TOKEN"
    if status == 404:
        return f"the hub has no {name!r}: check the name and the revision"
    return f"the hub answers {status} for {name!r}: run the same command again"
