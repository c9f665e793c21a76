"""`run.json`: what a run is and what it was begun with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sar_eval.types import DrawingOrder, Json, Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPrompts:
    """`prompts.parquet` as it was written: the digest of its bytes, and how many prompts are in it.

    Of a suite of many millions there is no copy: `source` is its own file, and the digest is that file's.
    """

    digest: str
    number: int
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Where a sequential run stopped on purpose.

    Attributes:
        blocks: the number of blocks that it drew, from the first.
        statement: what was decided, in a sentence.
    """

    blocks: int
    statement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The contents of `run.json`.

    Attributes:
        spec: as `RunSpec.from_json` takes it.
        digest: of the spec.
        earlier_digests: that the same spec had under earlier versions; stored parts may name them.
        versions: of the packages that began the run.
        git_commit: of the source checkout that began it, if it was one.
        prompts: what `prompts.parquet` must be; None in runs that version 0.2.0 or earlier began.
        shard: the share of the run that is in this folder; None for all of it.
        order: of drawing, in a sequential run; None for that of the suite. Images do not depend on it.
        stop: where a sequential run stopped because its question was answered.
        beside: judges whose verdicts stand beside those of the spec's judge: its fields about judging.
        checksum: of all else, as it stands in the file: the digest leaves out judge, fold and names.
    """

    spec: Mapping[str, Json]
    digest: str
    earlier_digests: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    git_commit: str | None = None
    prompts: StoredPrompts | None = None
    shard: Shard | None = None
    order: DrawingOrder | None = None
    stop: Stop | None = None
    beside: tuple[Mapping[str, Json], ...] = ()
    checksum: str = ""
