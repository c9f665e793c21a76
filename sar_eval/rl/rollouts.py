"""The rollouts of a step with their verdicts: judges look at one wave while the engine draws the next."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sar_eval.decoding.rollouts import Rollout
from sar_eval.rewards.judged_waves import judged
from sar_eval.rewards.pool import RewardPool
from sar_eval.types import Draw, Prompt, Verdict, draw_seed


@dataclass(frozen=True, slots=True)
class JudgedRollouts:
    """The pictures of some draws with the verdicts of every reward, all in the draws' order.

    Attributes:
        rollouts: one for each draw.
        verdicts: by reward's name; of a draw that failed, the draw's error.
        drawing_s: seconds until the last token was drawn.
        judging_s: seconds from then until the last verdict.
    """

    rollouts: list[Rollout]
    verdicts: dict[str, list[Verdict]]
    drawing_s: float
    judging_s: float


def step_draws(prompts: Sequence[Prompt], group: int, seed: int, step: int) -> list[Draw]:
    """The draws of a step's groups; a function of seed, step, prompt and index alone."""
    return [
        Draw(prompt, index, draw_seed(seed, f"{step}/{prompt.id}", index))
        for prompt in prompts
        for index in range(group)
    ]


def draw_and_judge(engine: Any, rewards: RewardPool, draws: Sequence[Draw]) -> JudgedRollouts:
    """Draw with an engine that gives log-probabilities, and judge wave by wave meanwhile.

    Args:
        engine: entered; see `decoding.token_engine.TokenEngine.roll`.
        rewards: entered.
        draws: with different keys.
    """
    clock = _Clock()
    found = {
        rollout.draw.key: (rollout, verdicts)
        for rollout, verdicts in judged(clock.waves(engine.roll(draws)), _item, rewards)
    }
    ordered = [found[draw.key] for draw in draws]
    by_reward = {
        spec.name: [v[n] or _failed(spec.name, r) if v else _failed(spec.name, r) for r, v in ordered]
        for n, spec in enumerate(rewards.specs)
    }
    judging_s = time.perf_counter() - clock.drawn_at
    return JudgedRollouts([r for r, _ in ordered], by_reward, clock.drawn_at - clock.started_at, judging_s)


class _Clock:
    """When the waves began and ended."""

    def __init__(self) -> None:
        self.started_at = self.drawn_at = time.perf_counter()

    def waves(self, waves: Iterator[Future[list[Rollout]]]) -> Iterator[Future[list[Rollout]]]:
        yield from waves
        self.drawn_at = time.perf_counter()


def _item(rollout: Rollout) -> tuple[Prompt, Any]:
    return rollout.draw.prompt, rollout.generation


def _failed(reward: str, rollout: Rollout) -> Verdict:
    return Verdict(rollout.draw.key, reward, "", error=f"not drawn: {rollout.generation.error}")
