"""How a run's draws are cut into blocks: the same cut for any number of workers and any resume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sar_eval.runtime.drawing_order import draw_in_order
from sar_eval.spec import RunSpec
from sar_eval.types import Draw, DrawingOrder, Prompt, Shard, make_draw


@dataclass(frozen=True, slots=True)
class Blocks:
    """All draws of a run, prompt by prompt, in blocks of `size`. A block is made when it is asked for.

    Attributes:
        prompts: of the run, in suite order; only the rows of a block are read.
        images_per_prompt: draws of each prompt.
        seed: of the run.
        size: draws of one block; the last one may have fewer.
        shard: the blocks to be drawn here; numbers and contents of blocks do not depend on it.
        order: positions in `prompts` in the order of drawing; None for that of the suite.
    """

    prompts: Sequence[Prompt]
    images_per_prompt: int
    seed: int
    size: int
    shard: Shard = Shard()  # noqa: RUF009 - frozen
    order: Sequence[int] | None = None

    @classmethod
    def of(
        cls,
        prompts: Sequence[Prompt],
        spec: RunSpec,
        shard: Shard | None = None,
        order: DrawingOrder | None = None,
    ) -> Blocks:
        """The blocks of a run."""
        drawn = None if order is None else draw_in_order(prompts, order)
        return cls(prompts, spec.images_per_prompt, spec.seed, spec.batch_size, shard or Shard(), drawn)

    @property
    def numbers(self) -> range:
        """Numbers of the shard's blocks."""
        return range(self.shard.index - 1, len(self), self.shard.of)

    @property
    def draws(self) -> int:
        """Number of draws in the shard's blocks."""
        return sum(map(self.draws_in, self.numbers)) if self.shard.of > 1 else self._all_draws

    @property
    def _all_draws(self) -> int:
        return len(self.prompts) * self.images_per_prompt

    def __len__(self) -> int:
        return (self._all_draws + self.size - 1) // self.size

    def __getitem__(self, block: int) -> list[Draw]:
        return [make_draw(prompt, index, self.seed) for prompt, index in self._pairs(block)]

    def __iter__(self) -> Iterator[list[Draw]]:
        return (self[block] for block in range(len(self)))

    def keys(self, block: int) -> list[str]:
        """Keys of a block's draws, without their seeds, which cost more."""
        return [f"{prompt.id}/{index}" for prompt, index in self._pairs(block)]

    def blocks_of(self, prompts: int) -> int:
        """How many blocks, from the first, hold all draws of the first prompts in the order of drawing."""
        return -(-prompts * self.images_per_prompt // self.size)

    def prompts_in(self, blocks: int) -> int:
        """How many prompts, in the order of drawing, have all their draws in the first blocks."""
        return min(len(self.prompts), blocks * self.size // self.images_per_prompt)

    def draws_in(self, block: int) -> int:
        """Number of draws of one block."""
        first, stop = self._range(block)
        return stop - first

    def _pairs(self, block: int) -> Iterator[tuple[Prompt, int]]:
        """Prompt and index of each draw of a block."""
        each, (first, stop) = self.images_per_prompt, self._range(block)
        start, end = first // each, -(-stop // each)
        order = None if self.order is None else self.order[start:end]
        prompts = self.prompts[start:end] if order is None else [self.prompts[i] for i in order]
        return ((prompts[i // each - start], i % each) for i in range(first, stop))

    def _range(self, block: int) -> tuple[int, int]:
        if not 0 <= block < len(self):
            raise IndexError(f"block {block} of {len(self)}")
        return block * self.size, min(self._all_draws, (block + 1) * self.size)
