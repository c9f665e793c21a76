"""Which blocks one of several workers on a set takes: those of its share, then what slow shares have left.

Share I of N owns the blocks b with b % N == I - 1. Its worker takes them from the first on, and then
steals from the end of the shares that have the most left, so that all end at about the same time. Whatever
is in work is claimed (`synthesis.claims`), also by the owner, so nothing is drawn twice but where a lease
ran out. N workers need nothing of each other but the store: any scheduler can start them, in any order.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import Protocol

from sar_eval.synthesis.claims import Claim, Claims
from sar_eval.types import Shard

REFRESH_S = 20.0  # how old a worker's picture of done-records and claims may be
POLL_S = 5.0  # between two looks at what others have in work
MISSES = 4  # lost races for a block after which the picture is too old
SLEEP_S = 0.2  # a signal's handler only sets a flag: waits are cut so that it is seen soon


class Progress(Protocol):
    """What a share asks of a set; `synthesis.committed.CommittedBlocks` answers."""

    def finished(self) -> set[int]:
        """Numbers of the blocks that have a done-record, whatever it says."""
        ...

    def has(self, block: int) -> bool:
        """Whether this block has one by now."""
        ...


class Share:
    """The blocks that one worker takes.

    Args:
        share: which of how many.
        blocks: of the whole set.
        progress: of the set.
        claims: of this worker, entered.
        again: committed blocks that are to be drawn again, as they lack draws; only those of the share
            itself are, so that a prompt that always fails is tried once a start and not once a worker.
        is_stopped: asked before each block; from True on, no more are given out.
    """

    def __init__(
        self,
        share: Shard,
        blocks: int,
        progress: Progress,
        claims: Claims,
        again: Collection[int] = (),
        is_stopped: Callable[[], bool] = bool,
    ) -> None:
        self.share, self.total, self.claims = share, blocks, claims
        self._is_stopped = is_stopped
        self._progress = progress
        self._again = frozenset(again)
        self._taken: set[int] = set()
        self._finished: set[int] = set()
        self._others: dict[int, Claim] = {}
        self._living: set[int] = set()
        self._candidates: Iterator[int] = iter(())  # of one look; sought when the first is asked for
        self._looked = float("-inf")
        self._random = random.Random(f"{claims.holder} {share}")  # spreads thieves

    def blocks(self) -> Iterator[int]:
        """Block after block, each claimed as it is given out; the next is sought when it is asked for.

        It never waits for others, who may hold the last blocks: see `wait`.
        """
        yield from self._own()
        while not self._is_stopped() and (block := self._steal()) is not None:
            yield block

    def done(self, block: int) -> None:
        """The block is committed, or given up for this start: its claim is not needed any more."""
        self.claims.release([block])

    def wait(self) -> bool:
        """Wait for the blocks that others have in work; call it when nothing of one's own is in work.

        Returns:
            True as soon as there is a block to take, since its worker has died or given it back. False if
            all are finished, if this worker was stopped, or if after a lease all are in living hands.
        """
        end = time.monotonic() + self.claims.lease_s + POLL_S
        while not self._is_stopped():
            self._look()
            if any(map(self._is_free, range(self.total))):
                return True
            if not self._left(range(self.total)) or time.monotonic() > end:
                return False
            self._sleep(POLL_S * self._random.uniform(0.5, 1.5))
        return False

    def left(self) -> tuple[int, int]:
        """How many blocks are not committed by now: of this share, and of the whole set."""
        self._look()
        own, of_all = len(self._left(self._numbers())), len(self._left(range(self.total)))
        if not of_all:
            self.claims.remove_all()
        return own, of_all

    def _numbers(self) -> range:
        return range(self.share.index - 1, self.total, self.share.of)

    def _own(self) -> Iterator[int]:
        """The share's own blocks that nobody else has in work, from the first on."""
        self._look()
        own = self._of_share(self._others)
        adopted = self.claims.adopt(own)
        for block in self._numbers():
            self._look_if_old()
            if self._is_stopped():
                return
            # What this worker had in work when it was ended is claimed already, in its name.
            mine = block in adopted and block in self.claims.held
            if (mine and not self._is_finished(block)) or (self._is_free(block) and self._take(block)):
                self._taken.add(block)
                yield block

    def _of_share(self, claims: dict[int, Claim]) -> list[Claim]:
        return [claim for block, claim in claims.items() if block % self.share.of == self.share.index - 1]

    def _steal(self) -> int | None:
        """A block of whoever has the most left, from the end; None if there is none that nobody has."""
        self._look_if_old()
        for is_new in (False, True):
            if is_new:
                self._look()
            free = (block for block in self._candidates if self._is_free(block))
            for block in islice(free, MISSES):
                if self._take(block):
                    return block
        return None

    def _find_candidates(self) -> Iterator[int]:
        """Blocks to steal, the best first: of the share with most left; of each, from the last half."""
        left: dict[int, list[int]] = defaultdict(list)
        for block in range(self.total):
            if self._is_free(block):
                left[block % self.share.of].append(block)
        own = self.share.index - 1
        for share in sorted(left, key=lambda share: (-len(left[share]), (share - own) % self.share.of)):
            yield from self._from_the_end(left[share])

    def _from_the_end(self, blocks: list[int]) -> list[int]:
        """Which of the last half is left to chance: else many thieves would all try for the last."""
        half = len(blocks) // 2
        late = blocks[half:]
        self._random.shuffle(late)
        return late + blocks[:half][::-1]

    def _take(self, block: int) -> bool:
        if not self.claims.take(block, self._others.get(block)):
            self._living.add(block)
            return False
        if block not in self._again and self._progress.has(block):  # since this worker last looked
            self._finished.add(block)
            self.claims.release([block])
            return False
        self._taken.add(block)
        return True

    def _is_free(self, block: int) -> bool:
        return not (self._is_finished(block) or block in self._living or block in self._taken)

    def _is_finished(self, block: int) -> bool:
        again = block in self._again and block % self.share.of == self.share.index - 1
        return block in self._finished and not again

    def _left(self, blocks: range) -> list[int]:
        return [block for block in blocks if block not in self._finished]

    def _look_if_old(self) -> None:
        if time.monotonic() - self._looked > REFRESH_S:
            self._look()

    def _look(self) -> None:
        """Read claims and done-records anew. In this order: a claim is released after its block is done."""
        self._others = self.claims.others()
        self._living = self.claims.living(self._others.values())
        self._finished = self._progress.finished()
        self.claims.release([b for b in self.claims.held if b in self._finished and b not in self._again])
        self._candidates = self._find_candidates()
        self._looked = time.monotonic()

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._is_stopped() and time.monotonic() < end:
            time.sleep(min(SLEEP_S, max(0.0, end - time.monotonic())))


def incomplete_shares(finished: Collection[int], blocks: int, shares: int) -> list[int]:
    """Numbers, from 1, of the shares that have blocks left.

    Args:
        finished: numbers of the committed blocks; a set, or anything that answers `in` quickly.
        blocks: of the whole set.
        shares: in how many it is cut.
    """
    return [
        index + 1
        for index in range(min(shares, blocks))
        if any(block not in finished for block in range(index, blocks, shares))
    ]
