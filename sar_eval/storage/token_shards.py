"""Captioned visual tokens of training, row group by row group.

Read are folders and URIs of `shard-*.parquet` (of `train tokenize` and `train select`, and of earlier
versions), and synthesised sets. Opening reads footers alone, and where pictures are of several sizes the
columns of these.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.storage.image_set import REPACKED, SPEC
from sar_eval.storage.objects import READERS, open_store
from sar_eval.storage.set_reader import SetReader
from sar_eval.storage.shards import CODEBOOK, Place
from sar_eval.storage.token_folder import check_finished
from sar_eval.storage.token_rows import TokenRows, narrowest
from sar_eval.storage.token_shard import ParquetShard, Shard, ShardFacts, Size, shards_of_set

FOOTERS = 64  # that are kept while rows are read, so as not to be read again with each row group


class TokenShards:
    """The row groups of the shards of some places, in the order of places and names.

    No file stays open, so that processes may be forked; and it pickles.

    Attributes:
        rows: of each row group [groups].
        sizes: (height, width) in tokens of all pictures.
        metadata: `codebook_size`, `encoder` and the like; empty where shards do not say.
        codebook_size: None where shards do not say.
        max_code: the highest code; None where footers do not say, and codes are checked as they are read.
        code_type: the narrowest type of all codes.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        """Read the footers.

        Raises:
            BadInput: a place has no shards, or not all of its manifest; a shard is damaged or no shard of
                tokens; shards are of several tokenizers; or a code is not one of the codebook.
        """
        self._shards = [shard for place in places for shard in _shards_at(place)]
        with ThreadPoolExecutor(READERS, thread_name_prefix="footer") as pool:
            facts = list(pool.map(lambda shard: shard.facts(), self._shards))
        self.metadata = _shared_metadata(self._shards, facts)
        self.sizes: frozenset[Size] = frozenset().union(*(found.sizes for found in facts))
        self._groups = [
            (n, g) for n, found in enumerate(facts) for g, rows in enumerate(found.rows) if rows
        ]
        self.rows: NDArray[np.int64] = np.array([facts[n].rows[g] for n, g in self._groups], np.int64)
        if not self._groups:
            raise BadInput(f"no rows in {', '.join(map(str, places))}")
        self.codebook_size = _codebook_size(self.metadata, self._shards[0].where)
        self._footers: OrderedDict[int, pq.FileMetaData] = OrderedDict()
        self.max_code = self._max_code(facts)
        self.code_type = narrowest(self._known() or 0)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_footers": OrderedDict()}

    def read(self, group: int) -> TokenRows:
        """The rows of a row group.

        Raises:
            BadInput: it is damaged, a value is missing, a row is no rectangle of tokens, or a code is not
                one of the codebook.
        """
        number, own = self._groups[group]
        shard, known = self._shards[number], self._known()
        if not isinstance(shard, ParquetShard):
            return shard.read(own, known)
        with shard.opened(self._footers.get(number)) as file:
            self._footers[number] = file.metadata
            self._footers.move_to_end(number)
            if len(self._footers) > FOOTERS:
                self._footers.popitem(last=False)
            return shard.read_from(file, own, known)

    def _known(self) -> int | None:
        if self.codebook_size is not None or self.max_code is None:
            return self.codebook_size
        return self.max_code + 1

    def _max_code(self, facts: Sequence[ShardFacts]) -> int | None:
        """The highest code by the footers; where nothing says how many there are, by reading all."""
        for shard, found in zip(self._shards, facts, strict=True):
            if found.codes and found.codes[0] < 0:
                raise BadInput(
                    f"{shard.where}: the shards have the code {found.codes[0]}: codes begin at 0"
                )
        if all(found.codes for found in facts if any(found.rows)):
            return max(found.codes[1] for found in facts if found.codes)
        if self.codebook_size is not None:
            return None
        self.max_code = None
        return max(int(self.read(group).flat.max()) for group in range(len(self.rows)))


def _shards_at(place: Place) -> list[Shard]:
    """The shards of a folder or URI, by name.

    Raises:
        BadInput: there are none, they are being made, or some were lost.
    """
    store = open_store(place)
    if store.exists(SPEC) or store.exists(REPACKED):
        found: list[Shard] = list(shards_of_set(SetReader(store)))
        if not found:
            raise BadInput(f"the set {place} holds no picture yet: `sar-eval synth status {place}`")
        return found
    check_finished(store)
    if "://" in str(place):
        names = [info.name for info in store.list("shard-") if "/" not in info.name]
    else:  # also what is no file, which is then told as such
        names = [path.name for path in Path(place).glob("shard-*.parquet")]
    shards: list[Shard] = [ParquetShard(store, name) for name in sorted(names) if name.endswith(".parquet")]
    if not shards:
        raise BadInput(
            f"no shard-*.parquet and no set in {place}: make them with `sar-eval train tokenize`"
        )
    return shards


def _shared_metadata(shards: Sequence[Shard], facts: Sequence[ShardFacts]) -> dict[str, str]:
    """Whose codes they are, the same for all.

    Raises:
        BadInput: shards are of several tokenizers.
    """
    known = [{name: found.metadata.get(name) for name in CODEBOOK} for found in facts]
    for shard, found in zip(shards, known, strict=True):
        if found != known[0]:
            raise BadInput(
                f"{shard.where} was made with {_told(found)}, {shards[0].where} with {_told(known[0])}: "
                "codes of several tokenizers cannot be trained together"
            )
    return {name: value for name, value in facts[0].metadata.items() if name in (*CODEBOOK, "downsample")}


def _told(metadata: dict[str, str | None]) -> str:
    said = [f"{name} {shorten(value)}" for name, value in metadata.items() if value is not None]
    return ", ".join(said) or "no metadata"


def _codebook_size(metadata: dict[str, str], where: str) -> int | None:
    text = metadata.get("codebook_size")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text)):
        raise BadInput(f"{where}: the shards use {shorten(text)} codes, which is no number")
    return int(text)
