"""Pictures of a set that `synth` made: the caption is what the checkpoint was asked, prefix included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sar_eval.errors import BadInput
from sar_eval.storage.set_reader import SetReader
from sar_eval.storage.token_folder import Rejected, Unit
from sar_eval.tokenization.sources.source import Found, SourcePicture, safe_key


@dataclass(frozen=True, slots=True)
class ImageSetSource:
    """A set; see `Source`."""

    number: int
    name: str
    reader: SetReader

    def units(self) -> Iterator[Unit]:
        """One for each data object."""
        rows, empty = self._rows(), True
        for part in self.reader.parts():
            yield Unit(self.number, part.name, part.size, part.number, rows=rows.get(part.name, 0))
            empty = False
        if empty:
            uri = self.reader.store.uri
            raise BadInput(f"the set {uri} holds no picture yet: `sar-eval synth status {uri}`")

    def without_listing(self) -> ImageSetSource:
        """See `Source`."""
        return self

    def read(self, units: Sequence[Unit]) -> Iterator[Found]:
        """Kept pictures of some objects, less what `synth dedup` removed."""
        wanted = {unit.path for unit in units}
        for part, _, row in self.reader.rows(min(unit.first for unit in units)):
            if part.name not in wanted:  # objects come in the order of their numbers
                return
            key = safe_key(self.name, row.key)
            if row.image is None:
                yield Rejected(key, "no_picture", "the set keeps tokens alone")
            else:
                yield SourcePicture(key, row.image, (row.text or row.caption,))

    def _rows(self) -> dict[str, int]:
        """How many rows each data object has."""
        if self.reader.repacked:
            return {part.name: part.rows for part in self.reader.repacked.parts}
        return {record.data: record.fates.get("kept", 0) for record in self.reader.image_set.records()}
