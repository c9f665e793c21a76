"""What is known of a published file before it is downloaded: address, checksum, size and licence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A published file.

    Attributes:
        name: path of the file in the cache folder.
        url: where it is published.
        sha256: its checksum, or the beginning of it where no more is published; "" where none is: the
            checksum of the first download is then recorded (see `published_weights.recorded_sha256`), and
            every later download must have it.
        purpose: one line for messages.
        size: bytes; 0 if unknown.
        exact: whether `size` is to the byte; else it is rounded, and said with "about".
        licence: as its publisher states it; "" if nothing is known.
    """

    name: str
    url: str
    sha256: str
    purpose: str
    size: int = 0
    exact: bool = False
    licence: str = ""


@dataclass(frozen=True, slots=True)
class HubFolder:
    """A repository of the hub whose file names are not known beforehand: its weights are in shards.

    Attributes:
        repository: ORG/NAME.
        patterns: of the files that are needed.
        purpose: one line for messages.
        size: bytes in all, rounded.
        licence: as its publisher states it.
    """

    repository: str
    patterns: tuple[str, ...]
    purpose: str
    size: int
    licence: str


def in_words(size: int, exact: bool = True) -> str:
    """A size for messages: `3.94 GB`, `about 16.6 GB`, `28 kB`, or `size unknown`."""
    if not size:
        return "size unknown"
    unit, name = next((u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "bytes")) if size >= u)
    return f"{'' if exact else 'about '}{size / unit:.3g} {name}"
