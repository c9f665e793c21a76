"""The seam between tokenization and the kinds of sources."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.storage.token_folder import Rejected, Unit

MAX_TEXT = 4_000_000  # bytes of a file with the captions of one picture


@dataclass(frozen=True, slots=True)
class SourcePicture:
    """A picture as its source has it.

    Attributes:
        key: where it is from: name of the source, path, and row or stem within a file.
        image: an encoded file.
        captions: cells of tables and texts of files, not checked.
    """

    key: str
    image: bytes
    captions: Sequence[Any]


Found = SourcePicture | Rejected


class Source(Protocol):
    """Pictures of one place."""

    def units(self) -> Iterator[Unit]:
        """What the place is made of, always in the same order; as little as possible is read.

        Raises:
            BadInput: there is nothing, or not what was asked for.
        """
        ...

    def without_listing(self) -> Source:
        """The same, to send to other processes: a listing may be long, and `read` needs none."""
        ...

    def read(self, units: Sequence[Unit]) -> Iterator[Found]:
        """Pictures of some units, in order; one that is damaged or missing comes as `Rejected`.

        Raises:
            BadInput: the source cannot be reached, or was changed.
        """
        ...


def check_named(asked: Iterable[str], there: Collection[str], where: str) -> None:
    """Refuse a --caption-column that nothing has: it may be misspelt.

    Raises:
        BadInput: naming it and what there is.
    """
    if missing := [name for name in asked if name not in there]:
        found = ", ".join(map(shorten, sorted(there))) or "none"
        raise BadInput(f"{where}: nothing has the --caption-column {shorten(missing[0])}; it has {found}")


def safe_key(*parts: str) -> str:
    """Parts of a key joined by slashes; bytes of names that are no text are escaped."""
    return "/".join(parts).encode("utf-8", "backslashreplace").decode()
