"""The average reward of ImageReward's benchmark as its official script computes it.

Reimplemented from the behaviour of `test-benchmark.py` in https://github.com/THUDM/ImageReward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def official_rewards(
    prompts: Sequence[str], files: int, rewards: Mapping[str, float]
) -> dict[str, list[float]] | None:
    """The rewards that the script averages for each prompt; its figure is the mean of their means.

    It takes k = files // prompts pictures of each prompt, whatever they were meant to be: files beyond are
    ignored, and too few make fewer of all prompts. In place of a missing picture it takes the one before.

    Args:
        prompts: ids, in order.
        files: how many lie in the folder, of whatever kind.
        rewards: of the pictures that are there, by `ID_NUMBER`.

    Returns:
        k rewards of each prompt; None where the script fails: k is 0, or a first picture is missing.
    """
    number = files // len(prompts) if prompts else 0
    if not number or any(f"{prompt}_0" not in rewards for prompt in prompts):
        return None
    found = {}
    for prompt in prompts:
        taken: list[float] = []
        for index in range(number):
            key = f"{prompt}_{index}"
            taken.append(rewards[key] if key in rewards else taken[-1])
        found[prompt] = taken
    return found
