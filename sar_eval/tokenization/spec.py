"""What was asked for, as workers take it and as the folder keeps it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sar_eval.documents import convert
from sar_eval.errors import SpecMismatch
from sar_eval.tokenization.options import TokenizeOptions
from sar_eval.types import Json

MEND = "use the same as before, or another --out"


@dataclass(frozen=True, slots=True)
class StoredSpec:
    """A `tokenization.json`; see `TokenizeSpec`."""

    places: tuple[str, ...]
    pinned: tuple[str, ...]
    tokenizer: dict[str, str]
    options: dict[str, Json]
    plan: str
    blocks: int

    @classmethod
    def read(cls, value: Json, where: str) -> StoredSpec:
        """What a folder keeps.

        Raises:
            BadInput: naming `where`, key and what is wrong.
        """
        return convert(value, cls, where, MEND)


@dataclass(frozen=True, slots=True)
class TokenizeSpec:
    """A tokenization.

    Attributes:
        places: folders, files and addresses, as they were given.
        pinned: the same, with datasets of the hub at their commits.
        tokenizer: folder of the visual tokenizer.
        options: see `TokenizeOptions`.
        metadata: what shards say of their codes.
        plan: digest of the plan.
        blocks: how many there are.
    """

    places: tuple[str, ...]
    pinned: tuple[str, ...]
    tokenizer: Path
    options: TokenizeOptions
    metadata: Mapping[str, str]
    plan: str
    blocks: int

    def to_json(self) -> dict[str, Json]:
        """As `tokenization.json` has it; where the tokenizer lies decides nothing."""
        return {
            "places": list(self.places),
            "pinned": list(self.pinned),
            "tokenizer": dict(self.metadata),
            "options": self.options.to_json(),
            "plan": self.plan,
            "blocks": self.blocks,
        }

    def check_same(self, stored: StoredSpec, out: str, change: Callable[[], str]) -> None:
        """Refuse to go on with what was begun otherwise.

        Args:
            stored: what is there.
            out: the folder, for messages.
            change: says what differs from the stored plan.

        Raises:
            SpecMismatch: naming what differs.
        """
        own = self.to_json()
        if own["tokenizer"] != stored.tokenizer:
            raise SpecMismatch(f"{out} was begun with another tokenizer ({stored.tokenizer}): {MEND}")
        for name, value in own["options"].items():
            if (before := stored.options.get(name)) != value:
                raise SpecMismatch(f"{out} was begun with {name} {before}, not {value}: {MEND}")
        if self.places != stored.places:
            raise SpecMismatch(f"{out} was begun from {', '.join(stored.places)}: {MEND}")
        if self.plan != stored.plan:
            raise SpecMismatch(
                f"the pictures have changed since {out} was begun: {change()}. Use another --out"
            )
