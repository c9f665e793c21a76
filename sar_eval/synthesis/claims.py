"""Claims: which blocks somebody has in work, as objects of the set's store that run out unless renewed.

A claim is made by create-if-absent, so of two workers one gets the block. Its lease counts from the time
of the object by the store's own clock, which all workers share however wrong theirs are. One that ran out
is followed by the next generation, `claims/000000123-1` after `claims/000000123-0`, again made by
create-if-absent: of two heirs one gets the block, too. A claim saves work and decides nothing: a block
that two workers draw all the same is committed once (see `storage.image_set`).
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sar_eval.documents import parse_json
from sar_eval.errors import SarEvalError
from sar_eval.storage.objects import ObjectMissing, ObjectStore

FOLDER = "claims"
LEASE_S = 180.0  # a worker that has not said a word for so long is taken for dead
BEATS = 6  # renewals of a claim in the time of its lease
CLOCK_S = 600.0  # after which the store's clock is asked again
_NAME = re.compile(rf"{FOLDER}/(\d{{9,}})-(\d+)")


@dataclass(frozen=True, slots=True)
class Claim:
    """The newest claim of a block: its generation, and when it was last renewed by the store's clock."""

    block: int
    generation: int
    renewed: float

    @property
    def name(self) -> str:
        """Of its object."""
        return f"{FOLDER}/{self.block:09d}-{self.generation}"


class Claims:
    """The claims of one worker; as a context manager it renews them, and gives back those left at the end.

    Args:
        store: of the set.
        holder: name of the worker, unlike any other's. A worker that is started again under its old name,
            as a task of a scheduler is, goes on with the claims it had (see `adopt`).
        lease_s: how long a claim holds that is not renewed; the same for all workers of a set.
    """

    def __init__(self, store: ObjectStore, holder: str, lease_s: float = LEASE_S) -> None:
        self.store, self.holder, self.lease_s = store, holder, lease_s
        self.lost_renewals = 0
        self._held: dict[int, Claim] = {}
        self._beat = 0
        self._lock = threading.Lock()  # of `_held`, and of a renewal against a release
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_ended, name="claims", daemon=True)
        self._clock = _StoreClock(store, f"{FOLDER}/clock-{holder}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.release(list(self._held))
        self._clock.close()

    @property
    def held(self) -> frozenset[int]:
        """Blocks that this worker has in work."""
        return frozenset(self._held)

    def others(self) -> dict[int, Claim]:
        """The newest claim of each block that this worker does not hold, those that ran out included."""
        newest: dict[int, Claim] = {}
        for found in self.store.list(f"{FOLDER}/"):
            if match := _NAME.fullmatch(found.name):
                claim = Claim(int(match[1]), int(match[2]), found.modified)
                known = newest.get(claim.block)
                newest[claim.block] = max(claim, known or claim, key=lambda c: c.generation)
        return {block: claim for block, claim in newest.items() if block not in self._held}

    def living(self, claims: Iterable[Claim]) -> set[int]:
        """The blocks of those claims whose lease has not run out."""
        claims = list(claims)
        now = self._clock.now() if claims else 0.0
        return {claim.block for claim in claims if now - claim.renewed < self.lease_s}

    def take(self, block: int, last: Claim | None = None) -> bool:
        """Claim a block; False if another worker did so at the same time.

        Args:
            block: that nobody has in work, as far as this worker knows.
            last: the block's claim that ran out, if there is one.
        """
        claim = Claim(block, last.generation + 1 if last else 0, 0.0)
        with self._lock:
            if not self.store.create(claim.name, self._content()):
                return False
            self._held[block] = claim
        return True

    def adopt(self, claims: Iterable[Claim]) -> set[int]:
        """Hold again those claims that are this worker's own, of its life before; returns their blocks."""
        own = {claim.block: claim for claim in claims if self._is_own(claim)}
        with self._lock:
            self._held |= own
        return set(own)

    def release(self, blocks: Iterable[int]) -> None:
        """Give up the claims of those blocks that are held: they are done, or another may have them."""
        with self._lock:
            names = [self._held.pop(block).name for block in blocks if block in self._held]
            if names:
                self.store.delete(names)

    def remove_all(self) -> None:
        """Remove the claims of a set that is done, which the dead have left."""
        self.store.delete(
            [info.name for info in self.store.list(f"{FOLDER}/") if _NAME.fullmatch(info.name)]
        )

    def _is_own(self, claim: Claim) -> bool:
        try:
            found = parse_json(self.store.read(claim.name), self.store.where(claim.name))
        except ObjectMissing:  # given up since it was listed
            return False
        return isinstance(found, dict) and found.get("holder") == self.holder

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(self.lease_s / BEATS):
            for block in self.held:
                self._renew(block)

    def _renew(self, block: int) -> None:
        """Write a claim anew, which sets its time; one that cannot be written now can in the next beat."""
        self._beat += 1  # another content each time: a store may skip a write that changes nothing
        with self._lock:
            if block in self._held:
                try:
                    self.store.write(self._held[block].name, self._content())
                except SarEvalError:
                    self.lost_renewals += 1

    def _content(self) -> bytes:
        return json.dumps({"holder": self.holder, "beat": self._beat}).encode()


class _StoreClock:
    """The store's time: that of an object just written, then by this machine's monotonic clock."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self.store, self.name = store, name
        self._offset = 0.0
        self._asked: float | None = None

    def now(self) -> float:
        """Seconds since the epoch, as the store's objects have them."""
        if self._asked is None or time.monotonic() - self._asked > CLOCK_S:
            self._ask()
        return time.monotonic() + self._offset

    def _ask(self) -> None:
        before = time.monotonic()
        self.store.write(self.name, str(before).encode())
        # Listings may lag behind writes; then the old time, or the local one, does until the next question.
        found = (info.modified for info in self.store.list(f"{FOLDER}/") if info.name == self.name)
        self._offset = next(found, time.time()) - before
        self._asked = before

    def close(self) -> None:
        """Remove the object."""
        if self._asked is not None:
            self.store.delete([self.name])
