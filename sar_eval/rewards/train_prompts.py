"""Prompts to train on: none of a test, each once before any comes twice, the same at every resume."""

from __future__ import annotations

import hashlib
import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.recipe import load_recipe, recipe_names, shipped
from sar_eval.suites.locate import find_suite, read_suite
from sar_eval.types import Prompt

SHOWN = 3  # prompts that a message names
_ENDS = re.compile(r"[\s.,;:!?…。！？，；：]+$")  # noqa: RUF001 - full-width punctuation is what is meant


@dataclass(frozen=True, slots=True)
class TrainPrompts:
    """What a training run draws its steps from.

    Attributes:
        prompts: in file order, at least one.
        seed: of their order.
        tested: how many of them stand in a test suite, which `--train-on-test` allowed; every output of
            the run must then say so.
        notes: what was assumed about the file, for the user.
    """

    prompts: tuple[Prompt, ...]
    seed: int
    tested: int = 0
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of what is drawn: ids, texts, tags and their order."""
        rows = [[p.id, p.text, p.tag] for p in self.prompts]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

    @classmethod
    def read(
        cls,
        suite: Path,
        *,
        seed: int,
        split: str = "",
        exclude: Sequence[Path] = (),
        holdout: Sequence[Path] = (),
        train_on_test: bool = False,
    ) -> TrainPrompts:
        """Read a suite file (any that `suites.prompts` reads) and refuse what a test asks.

        Args:
            suite: the file, or a folder of `ID.txt` files.
            seed: of the prompts' order.
            split: keep only the prompts of this split; "" keeps all.
            exclude: suites whose texts are left out.
            holdout: suites that judge this run, beside those that are shipped.
            train_on_test: count prompts of a test instead of refusing them.

        Raises:
            BadInput: no such file, no prompt is left, or prompts of a test are among them.
        """
        found = read_suite(suite)
        left_out = {normalised(prompt.text) for path in exclude for prompt in read_suite(path).prompts}
        kept = tuple(p for p in found.prompts if split in ("", p.split))
        if not kept:
            splits = ", ".join(sorted({shorten(p.split) for p in found.prompts}))
            raise BadInput(f"{suite}: no prompt has the split {split!r}; there are {splits}")
        prompts = tuple(p for p in kept if normalised(p.text) not in left_out)
        if not prompts:
            raise BadInput(f"{suite}: all {len(kept)} prompts stand in the suites of `exclude`")
        tested = refuse_test_prompts(prompts, str(suite), train_on_test, holdout)
        return cls(prompts, seed, tested, found.notes)

    def at(self, step: int, number: int) -> list[Prompt]:
        """The prompts of a step (from 0): a function of the seed, the step and the number alone.

        Passes over all prompts, each shuffled anew, follow each other without a gap. No prompt comes twice
        in a step unless `number` is more than there are.
        """
        order = _passes(len(self.prompts), self.seed, number)
        return [self.prompts[position] for position in order.at(step)]


def normalised(text: str) -> str:
    """A text without what makes no other prompt of it: case, white space, punctuation at its end."""
    words = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return _ENDS.sub("", words)


def refuse_test_prompts(
    prompts: Iterable[Prompt], where: str, allowed: bool, holdout: Sequence[Path] = ()
) -> int:
    """Refuse to train on what a benchmark asks: its figure would measure memory.

    Args:
        prompts: to train on.
        where: their file, for the message.
        allowed: `--train-on-test` was given.
        holdout: suites that judge the run, beside those of the shipped benchmarks that are on this disk.

    Returns:
        How many of them stand in a test suite; 0 unless `allowed`.

    Raises:
        BadInput: some do, and it is not allowed; names the first few with their ids and the tests'.
    """
    tests = _test_texts((*holdout, *_benchmark_suites()))
    found = [(p, tests[text]) for p in prompts if (text := normalised(p.text)) in tests]
    if found and not allowed:
        shown = "; ".join(f"{p.id} {shorten(p.text)} is {test}" for p, test in found[:SHOWN])
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise BadInput(
            f"{where}: {len(found)} training prompts stand in a test suite: {shown}{more}. Leave them out "
            "(`exclude` in the recipe's table `prompts`), or give --train-on-test, which marks every output"
        )
    return len(found)


def suite_path(name: str, beside: Path) -> Path:
    """The suite that a recipe names: a shipped benchmark's by its name, else a file beside the recipe,
    among the shipped prompts, or (external suites) in the cache.

    Raises:
        BadInput: a name that no file can have, or a benchmark without prompts of its own.
    """
    if name not in recipe_names():
        return find_suite(name, (beside, shipped("prompts")))
    suite = load_recipe(name).suite
    if suite is None:
        raise BadInput(f"the benchmark {name!r} has no prompts of its own: name a prompt file")
    return suite


def evenly_by_tag(prompts: Sequence[Prompt], number: int) -> tuple[Prompt, ...]:
    """The first of each tag, as many of one as of another as far as there are; in file order."""
    seen: Counter[str] = Counter()
    places = []
    for position, prompt in enumerate(prompts):
        places.append((seen[prompt.tag], position))
        seen[prompt.tag] += 1
    return tuple(prompts[position] for position in sorted(p for _, p in sorted(places)[:number]))


@cache
def _test_texts(suites: tuple[Path, ...]) -> dict[str, str]:
    """Where each normalised text stands: `shapes.jsonl: colors-003`."""
    return {
        normalised(prompt.text): f"{path.name}: {prompt.id}"
        for path in dict.fromkeys(suites)
        for prompt in read_suite(path).prompts
    }


def _benchmark_suites() -> Iterator[Path]:
    """The prompt files of the shipped benchmarks that are on this disk, fetched ones among them."""
    for name in recipe_names():
        suite = load_recipe(name).suite
        if suite is not None and suite.exists():
            yield suite


class _Passes:
    """Positions of `number` prompts a step, from passes over `size` prompts."""

    def __init__(self, size: int, seed: int, number: int) -> None:
        self.size, self.seed, self.number = size, seed, number
        self.orders: list[list[int]] = []

    def at(self, step: int) -> list[int]:
        places = range(step * self.number, (step + 1) * self.number)
        while len(self.orders) <= places[-1] // self.size:
            self.orders.append(self._next())
        return [self.orders[place // self.size][place % self.size] for place in places]

    def _next(self) -> list[int]:
        """Shuffled; what the step across the seam has from the pass before goes behind that step's end."""
        index = len(self.orders)
        order = list(range(self.size))
        random.Random(f"{self.seed}/{index}").shuffle(order)
        begun = index * self.size % self.number  # prompts that the step has already
        if not begun or self.number > self.size:
            return order
        already = set(self.orders[-1][-begun:])
        head = [position for position in order if position not in already][: self.number - begun]
        taken = set(head)
        return head + [position for position in order if position not in taken]


@cache
def _passes(size: int, seed: int, number: int) -> _Passes:
    return _Passes(size, seed, number)
