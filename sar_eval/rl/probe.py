"""Look before training: would groups of this start, protocol and reward have anything to learn from?

A group whose pictures all get the same reward has advantage 0 everywhere. A start that is always right, or
never, or always draws the same picture, cannot be trained by its rewards, and a minute of drawing says so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from sar_eval.rewards.judged_waves import Judges, judged
from sar_eval.rewards.pool import MIXED, RewardSpec, scores
from sar_eval.types import Draw, Prompt, Verdict, draw_seed

if TYPE_CHECKING:
    from sar_eval.decoding.rollouts import Rollout
    from sar_eval.decoding.token_engine import TokenEngine


class ProbeLine(msgspec.Struct, frozen=True, kw_only=True):
    """One reward over the prompts of one tag.

    Attributes:
        reward: its name, or `MIXED`.
        tag: of the prompts; "" for all.
        prompts: with a score.
        mean: of the scores, in the reward's unit.
        pass_rate: share of pictures that passed; None where the judge gives no such verdict.
        varied: share of groups whose rewards are not all the same.
        expected: the same from the prompts' pass rates p, the mean of 1 - p^G - (1 - p)^G; None where
            scores are not 0 or 1.
    """

    reward: str
    tag: str
    prompts: int
    mean: float
    pass_rate: float | None
    varied: float
    expected: float | None


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """What K draws of each prompt say.

    Attributes:
        draws: K, of each prompt.
        group: G, pictures of a group in training.
        pictures: asked for.
        lines: by reward in the recipe's order, then of all together; each over all prompts, then by tag.
        lost: share of pictures without a score, by reward.
        failed: how many draws failed, by reason.
        diversity: share of places at which two pictures of a prompt have different tokens, 0 to 1.
        nats: mean surprise of a sampled token, in nats; near 0 the sampler is deterministic. None where
            the engine gives no log-probabilities.
    """

    draws: int
    group: int
    pictures: int
    lines: tuple[ProbeLine, ...]
    lost: Mapping[str, float]
    failed: Mapping[str, int]
    diversity: float
    nats: float | None

    @property
    def varied(self) -> float:
        """Share of groups with variance of what is trained on."""
        return next((line.varied for line in self.of(MIXED) if not line.tag), 0.0)

    def of(self, reward: str) -> list[ProbeLine]:
        """The lines of one reward."""
        return [line for line in self.lines if line.reward == reward]


@dataclass(frozen=True, slots=True)
class Probed:
    """One picture as the probe remembers it.

    Attributes:
        prompt, tag: its prompt's id and tag.
        scores: of each reward; NaN where it gave none.
        passed: of each reward; None where its judge says no such thing.
        codes: its visual tokens; () if it failed.
        nats: their mean surprise; None where it is not known.
        error: why there is no picture.
    """

    prompt: str
    tag: str
    scores: tuple[float, ...]
    passed: tuple[bool | None, ...]
    codes: tuple[int, ...] = ()
    nats: float | None = None
    error: str | None = None


def probe(
    engine: TokenEngine,
    judges: Judges,
    prompts: Sequence[Prompt],
    rewards: Sequence[RewardSpec],
    *,
    draws: int,
    group: int,
    seed: int,
) -> ProbeResult:
    """Draw each prompt K times under the engine's protocol, and reward the pictures.

    Args:
        engine: open, under the protocol of the rollouts.
        judges: an open pool of `rewards`.
        prompts: a sample of those to train on (see `train_prompts.evenly_by_tag`).
        rewards: of the recipe.
        draws: K.
        group: G.
        seed: of the draws, which are those of no step.
    """
    asked = [Draw(p, n, draw_seed(seed, f"probe/{p.id}", n)) for p in prompts for n in range(draws)]
    rolled = judged(engine.roll(asked), lambda rollout: (rollout.draw.prompt, rollout.generation), judges)
    found = {rollout.draw.key: _remember(rollout, verdicts, len(rewards)) for rollout, verdicts in rolled}
    return summed_up([found[draw.key] for draw in asked], rewards, draws=draws, group=group)


def _remember(rollout: Rollout, verdicts: Sequence[Verdict], rewards: int) -> Probed:
    prompt, generation = rollout.draw.prompt, rollout.generation
    return Probed(
        prompt.id,
        prompt.tag,
        tuple(scores(verdicts)) or (math.nan,) * rewards,
        tuple(verdict.passed for verdict in verdicts) or (None,) * rewards,
        generation.tokens,
        float(-rollout.log_probs.mean()) if len(rollout.log_probs) else None,
        generation.error,
    )


def summed_up(
    pictures: Sequence[Probed], rewards: Sequence[RewardSpec], *, draws: int, group: int
) -> ProbeResult:
    """The result of pictures in any order, `draws` of each prompt."""
    groups = _groups(pictures)
    surprises = [picture.nats for picture in pictures if picture.nats is not None]
    missing = {s.name: [math.isnan(p.scores[n]) for p in pictures] for n, s in enumerate(rewards)}
    return ProbeResult(
        draws=draws,
        group=group,
        pictures=len(pictures),
        lines=tuple(_lines(groups, rewards, group)),
        lost={name: sum(found) / len(found) for name, found in missing.items()},
        failed=Counter(picture.error for picture in pictures if picture.error),
        diversity=_mean([diversity([p.codes for p in found if p.codes]) for found in groups.values()]),
        nats=_mean(surprises) if surprises else None,
    )


def varied_share(rewards: Sequence[float], group: int) -> float:
    """How often a group of this size, taken from a prompt's pictures, has two different rewards.

    With at least `group` rewards it is the share of all such subsets (without bias); with fewer, they are
    drawn with replacement. NaN is left out.
    """
    known = [reward for reward in rewards if not math.isnan(reward)]
    alike, size = Counter(known).values(), len(known)
    if size < 2:
        return 0.0
    if size < group:
        return 1 - math.fsum((number / size) ** group for number in alike)
    return 1 - sum(math.comb(number, group) for number in alike) / math.comb(size, group)


def expected_share(pass_rate: float, group: int) -> float:
    """Chance of a group of independent pictures with a right and a wrong one: 1 - p^G - (1 - p)^G."""
    return 1 - float(pass_rate) ** group - float(1 - pass_rate) ** group


def diversity(codes: Sequence[Sequence[int]]) -> float:
    """Share of places at which two pictures differ, over all pairs; NaN for fewer than two."""
    pairs = combinations(np.array(codes), 2)
    return _mean([float((first != second).mean()) for first, second in pairs])


def _groups(pictures: Iterable[Probed]) -> dict[str, list[Probed]]:
    found: dict[str, list[Probed]] = {}
    for picture in pictures:
        found.setdefault(picture.prompt, []).append(picture)
    return found


def _lines(
    groups: Mapping[str, Sequence[Probed]], rewards: Sequence[RewardSpec], group: int
) -> Iterator[ProbeLine]:
    """Each reward over all prompts, then by tag; then all together."""
    tags = [found[0].tag for found in groups.values()]
    several = list(dict.fromkeys(tags)) if len(set(tags)) > 1 else []
    for n, (name, values) in enumerate(_values(groups.values(), rewards)):
        passed = [
            [p.passed[n] for p in found] if name != MIXED else [None] * len(found)
            for found in groups.values()
        ]
        for tag in ("", *several):
            chosen = [place for place, of in enumerate(tags) if tag in ("", of)]
            yield _line(name, tag, [values[c] for c in chosen], [passed[c] for c in chosen], group)


def _values(
    groups: Collection[Sequence[Probed]], rewards: Sequence[RewardSpec]
) -> Iterator[tuple[str, list[list[float]]]]:
    """Each reward's scores by prompt, then the sum that is trained on (see `advantages.mix_rewards`)."""
    import torch

    from sar_eval.rl.advantages import mix_rewards

    found = torch.tensor([[p.scores for p in group] for group in groups], dtype=torch.float64)
    by_reward = found.permute(2, 0, 1)
    settings = ([getattr(r, name) for r in rewards] for name in ("weight", "normalise", "quantise"))
    mixed = mix_rewards(by_reward, *settings)
    yield from zip((reward.name for reward in rewards), by_reward.tolist(), strict=True)
    yield MIXED, mixed.tolist()


def _line(
    reward: str,
    tag: str,
    values: Sequence[Sequence[float]],
    passed: Sequence[Sequence[bool | None]],
    group: int,
) -> ProbeLine:
    scored = [known for row in values if (known := [value for value in row if not math.isnan(value)])]
    passes = [flag for row in passed for flag in row if flag is not None]
    is_binary = all(value in (0.0, 1.0) for row in scored for value in row)
    return ProbeLine(
        reward=reward,
        tag=tag,
        prompts=len(scored),
        mean=_mean([value for row in scored for value in row]),
        pass_rate=_mean(passes) if passes else None,
        varied=_mean([varied_share(row, group) for row in values]),
        expected=_mean([expected_share(_mean(row), group) for row in scored]) if is_binary else None,
    )


def _mean(values: Sequence[float]) -> float:
    """NaN of nothing."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
