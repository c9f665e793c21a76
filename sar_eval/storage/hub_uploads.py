"""What uploads to the Hugging Face hub share: the client, names, and errors that say what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sar_eval.documents import shorten
from sar_eval.errors import BadInput, Incomplete

if TYPE_CHECKING:
    from huggingface_hub import HfApi

REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


def check_repository(name: str, kind: str) -> None:
    """Refuse what is no name of a repository: before hours of work, too.

    Args:
        name: ORG/NAME.
        kind: dataset or model, for the message.

    Raises:
        BadInput: it is none.
    """
    if not REPOSITORY.fullmatch(name):
        raise BadInput(f"--push is {shorten(name)}: ORG/NAME of a {kind} on the hub")


def hub_client(api: HfApi | None) -> HfApi:
    """The client that is given, or one with the user's own login; its progress bars are off."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # a `progress` of ours replaces them
    return HfApi() if api is None else api


@contextmanager
def hub_errors(repository: str, what: str) -> Iterator[None]:
    """What the hub's client raises, as errors that say what to do.

    Args:
        repository: ORG/NAME.
        what: is uploaded, in a word: a set, a checkpoint.

    Raises:
        BadInput: the hub refuses it.
        Incomplete: the upload broke off; the same command goes on.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError as error:
        raise BadInput("the hub asks who you are: log in with `hf auth login`, or set HF_TOKEN") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise _refused(repository, status, str(error).partition("\n")[0]) from error
    except ValueError as error:  # of a header that the hub does not like, a licence that it does not know
        raise BadInput(f"the hub does not take the {what}: {' '.join(str(error).split())}") from error
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
