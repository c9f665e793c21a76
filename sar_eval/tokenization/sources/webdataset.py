"""Pictures in tar files of the WebDataset layout: files of one stem, beside each other, are a sample."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, BinaryIO, Self

from sar_eval.documents import parse_json
from sar_eval.errors import BadInput
from sar_eval.storage.objects import ObjectInfo, ObjectStore
from sar_eval.storage.token_folder import Rejected, Unit
from sar_eval.tokenization.options import TokenizeOptions
from sar_eval.tokenization.sources.source import MAX_TEXT, Found, SourcePicture, check_named, safe_key

IMAGES = ("jpg", "jpeg", "png", "webp")
CAPTIONS = ("caption", "captions", "text", "prompt")  # of a `.json`, where there is no `.txt`
LARGEST = 512_000_000  # bytes of a picture that are read
BLOCK = 512  # bytes of a header; one of zeros ends the archive
DAMAGE = (tarfile.TarError, EOFError, ValueError)  # of a tar
Member = tuple[str, str, bytes | None]  # stem, suffix, contents unless they are not read


@dataclass(frozen=True, slots=True)
class WebDatasetSource:
    """Tar files of one place; see `Source`."""

    number: int
    name: str
    store: ObjectStore
    files: Sequence[ObjectInfo]
    options: TokenizeOptions

    def units(self) -> Iterator[Unit]:
        """One for each tar: it can only be read from its beginning."""
        self._check_columns()
        return (Unit(self.number, file.name, file.size) for file in self.files)

    def without_listing(self) -> WebDatasetSource:
        """See `Source`."""
        return replace(self, files=())

    def read(self, units: Sequence[Unit]) -> Iterator[Found]:
        """Samples of tars, one tar after the other."""
        for unit in units:
            with self.store.open(unit.path) as file:
                yield from self._read(file, unit.path)

    def _check_columns(self) -> None:
        """Refuse a --caption-column that no sample of the first tar has; it is read until all are found."""
        asked, there = {*self.options.caption_columns}, set[str]()
        if not asked:
            return
        with self.store.open(self.files[0].name) as file, suppress(*DAMAGE):  # told when it is read
            for suffix, data in ((member[1], member[2]) for member in _members(file)):
                there.add(suffix)
                with suppress(BadInput):  # of a broken one, which is told when it is read
                    there.update(_row(data if suffix == "json" else None, ""))
                if asked <= there:
                    return
            if there:
                check_named(self.options.caption_columns, there, self.store.where(self.files[0].name))

    def _read(self, file: BinaryIO, path: str) -> Iterator[Found]:
        samples = 0
        try:
            for stem, members in groupby(_members(file), key=lambda member: member[0]):
                yield from self._sample(safe_key(self.name, path, stem), {m[1]: m[2] for m in members})
                samples += 1
        except DAMAGE as error:
            detail = f"the tar is damaged after {samples} samples: {error}"
            yield Rejected(safe_key(self.name, path), "unreadable", detail)

    def _sample(self, key: str, members: Mapping[str, bytes | None]) -> Iterator[Found]:
        image = next((suffix for suffix in IMAGES if suffix in members), None)
        if image is None:
            yield Rejected(key, "no_picture", f"only {', '.join(sorted(members))}")
        elif (data := members[image]) is None:
            yield Rejected(key, "unreadable", _not_read(image))
        else:
            try:
                yield SourcePicture(key, data, self._captions(members, key))
            except BadInput as error:
                yield Rejected(key, "no_caption", str(error))

    def _captions(self, members: Mapping[str, bytes | None], key: str) -> list[Any]:
        """What `--caption-column` names in `.json` or as a file, else the `.txt`, else the usual names.

        Raises:
            BadInput: one of these files is broken, or is not read.
        """
        names = self.options.caption_columns or (("txt",) if "txt" in members else CAPTIONS)
        files = {suffix: data for suffix, data in members.items() if data is not None}
        for name in (name if name in members else "json" for name in names):
            if name in members and name not in files:
                raise BadInput(_not_read(name))
        row = _row(files.get("json"), f"{key}.json")
        return [_text(files[name]) if name in files else row.get(name) for name in names]


class _Header(tarfile.TarInfo):
    """A header that is right, or an error: `TarFile.next` takes a broken one, or none, for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """See `tarfile.TarInfo`.

        Raises:
            tarfile.HeaderError: the archive ends here, as it says.
            tarfile.ReadError: no header is here, and no end either.
        """
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if bytes(buf) == bytes(BLOCK):
                raise
            raise tarfile.ReadError(str(error) if buf else "no end of the archive") from error


def _members(file: BinaryIO) -> Iterator[Member]:
    """Files of a tar. A stem ends at the first dot of the last part of the name, as webdataset has it.

    Raises:
        tarfile.TarError, EOFError: the archive is damaged, cut off, or another one follows it.
    """
    with tarfile.open(fileobj=file, mode="r|", tarinfo=_Header) as tar:
        for member in tar:
            folder, slash, name = member.name.rpartition("/")
            stem, _, suffix = name.partition(".")
            if stem and not member.isdir():
                yield f"{folder}{slash}{stem}", suffix.lower(), _contents(tar, member, _most(suffix))
        file.seek(tar.offset)
    while data := file.read(1 << 20):
        if data.strip(b"\0"):
            raise EOFError("its end is followed by more")


def _row(data: bytes | None, where: str) -> dict[str, Any]:
    """Values of a `.json` by their names; raises BadInput if it is broken."""
    row = {} if data is None else parse_json(data, where)
    return row if isinstance(row, dict) else {}


def _most(suffix: str) -> int:
    """Bytes of a member that are read, at most."""
    return LARGEST if suffix.lower() in IMAGES else MAX_TEXT


def _not_read(suffix: str) -> str:
    return f"its {suffix} is a link, or has more than {_most(suffix):,} bytes"


def _contents(tar: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes | None:
    """Bytes of a member; None of a link or what is too large."""
    if not member.isreg() or member.size > most:
        return None
    data = tar.extractfile(member)
    content = data.read() if data else b""
    if len(content) != member.size:
        raise EOFError(f"cut off within {member.name}")
    return content


def _text(data: bytes) -> str | None:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
