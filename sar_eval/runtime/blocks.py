"""How a run's draws are cut into blocks: the same cut for any number of workers and any resume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sar_eval.spec import RunSpec
from sar_eval.types import Draw, Prompt, Shard, make_draw


@dataclass(frozen=True, slots=True)
class Blocks:
    """All draws of a run, prompt by prompt, in blocks of `size`. A block is made when it is asked for.

    Attributes:
        prompts: of the run, in suite order; only the rows of a block are read.
        images_per_prompt: draws of each prompt.
        seed: of the run.
        size: draws of one block; the last one may have fewer.
        shard: the blocks to be drawn here; numbers and contents of blocks do not depend on it.
    """

    prompts: Sequence[Prompt]
    images_per_prompt: int
    seed: int
    size: int
    shard: Shard = Shard()  # noqa: RUF009 - frozen

    @classmethod
    def of(cls, prompts: Sequence[Prompt], spec: RunSpec, shard: Shard | None = None) -> Blocks:
        """The blocks of a run."""
        return cls(prompts, spec.images_per_prompt, spec.seed, spec.batch_size, shard or Shard())

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
        first, stop = self._range(block)
        start = first // self.images_per_prompt
        prompts = self.prompts[start : -(-stop // self.images_per_prompt)]
        return [
            make_draw(prompts[i // self.images_per_prompt - start], i % self.images_per_prompt, self.seed)
            for i in range(first, stop)
        ]

    def __iter__(self) -> Iterator[list[Draw]]:
        return (self[block] for block in range(len(self)))

    def keys(self, block: int) -> list[str]:
        """Keys of a block's draws, without their seeds, which cost more."""
        first, stop = self._range(block)
        start = first // self.images_per_prompt
        ids = [prompt.id for prompt in self.prompts[start : -(-stop // self.images_per_prompt)]]
        return [
            f"{ids[i // self.images_per_prompt - start]}/{i % self.images_per_prompt}"
            for i in range(first, stop)
        ]

    def draws_in(self, block: int) -> int:
        """Number of draws of one block."""
        first, stop = self._range(block)
        return stop - first

    def _range(self, block: int) -> tuple[int, int]:
        if not 0 <= block < len(self):
            raise IndexError(f"block {block} of {len(self)}")
        return block * self.size, min(self._all_draws, (block + 1) * self.size)
