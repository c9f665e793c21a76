"""From the numbers in file names to the indices of draws: from 0, from 1, or by seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sar_eval.errors import BadInput
from sar_eval.images.listing import shown
from sar_eval.types import Prompt


@dataclass(frozen=True, slots=True)
class Match:
    """A file and the prompt that it shows; `number` is as the file's name or a manifest says it."""

    prompt: Prompt
    number: int
    path: Path


def index_files(matches: Iterable[Match], images_per_prompt: int, notes: list[str]) -> dict[str, Path]:
    """Draw key to file; how numbers were read other than as indices is added to `notes`.

    Raises:
        BadInput: two files of one draw, or more of a prompt than `images_per_prompt`.
    """
    by_prompt: dict[str, dict[int, Path]] = {}
    for match in matches:
        numbers = by_prompt.setdefault(match.prompt.id, {})
        if (other := numbers.setdefault(match.number, match.path)) is not match.path:
            raise BadInput(
                f"{shown(other)} and {shown(match.path)} are both image {match.number} "
                f"of prompt {match.prompt.id!r}"
            )
    order = _indices(by_prompt, images_per_prompt, notes)
    return {
        f"{prompt}/{order[prompt][number]}": numbers[number]
        for prompt, numbers in by_prompt.items()
        for number in sorted(numbers)
    }


def _indices(
    by_prompt: Mapping[str, Mapping[int, Path]], each: int, notes: list[str]
) -> dict[str, dict[int, int]]:
    """Of every prompt, which number is which index."""
    union = sorted({number for numbers in by_prompt.values() for number in numbers})
    if not union:
        return {}
    from_one = union[-1] <= each and all(_counts_from_one(numbers) for numbers in by_prompt.values())
    if from_one or (union[0] == 1 and union[-1] == each):
        notes.append(f"files are counted from 1: taken as 0 to {union[-1] - 1}")
        return {prompt: {number: number - 1 for number in union} for prompt in by_prompt}
    if union[-1] < each:
        return {prompt: {number: number for number in union} for prompt in by_prompt}
    if len(union) <= each:
        notes.append(
            f"files are numbered {_listed(union)} (by seed?): taken in order as 0 to {len(union) - 1}"
        )
        return {prompt: {number: i for i, number in enumerate(union)} for prompt in by_prompt}
    if union[0] > 1 and all(len(numbers) == each for numbers in by_prompt.values()):
        notes.append(f"each prompt has numbers of its own (by seed?): taken in order as 0 to {each - 1}")
        return {p: {number: i for i, number in enumerate(sorted(n))} for p, n in by_prompt.items()}
    raise _too_many(by_prompt, each)


def _counts_from_one(numbers: Mapping[int, Path]) -> bool:
    return sorted(numbers) == list(range(1, len(numbers) + 1))


def _listed(numbers: list[int]) -> str:
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")


def _too_many(by_prompt: Mapping[str, Mapping[int, Path]], each: int) -> BadInput:
    prompt = max(by_prompt, key=lambda name: (len(by_prompt[name]), max(by_prompt[name])))
    number, path = max(by_prompt[prompt].items())
    return BadInput(
        f"{shown(path)} is image {number} of prompt {prompt!r}, which has {len(by_prompt[prompt])} images, "
        f"but {each} a prompt are expected: set their number with --images-per-prompt"
    )
