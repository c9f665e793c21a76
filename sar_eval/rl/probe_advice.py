"""What to change where a probe finds nothing to learn from. Pure functions of its result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sar_eval.errors import BadInput
from sar_eval.rewards.pool import MAX_LOST, MIXED, RewardSpec
from sar_eval.rl.probe import ProbeLine, ProbeResult, expected_share
from sar_eval.types import DrawProtocol

REFUSE_BELOW = 0.2  # share of groups with variance
ALIKE = 0.05  # share of places at which a prompt's pictures differ, below which they are one picture
SURE = 0.1  # nats a token, below which a sampler is as good as deterministic (demo:sft has 0.06)
NEVER, ALWAYS = 0.02, 0.98  # pass rates beyond which hardly a group has both kinds
SHOWN = 6  # tags that a sentence names


def check_variance(
    result: ProbeResult,
    protocol: DrawProtocol,
    rewards: Sequence[RewardSpec],
    refuse_below: float = REFUSE_BELOW,
) -> None:
    """Refuse to train where too few groups have variance.

    Raises:
        BadInput: with what to change.
    """
    if result.varied < refuse_below:
        lines = "".join(f"\n- {line}" for line in advice(result, protocol, rewards, refuse_below))
        raise BadInput(
            f"rewards differ in {result.varied:.0%} of groups of {result.group}, and must in "
            f"{refuse_below:.0%}: a group of equal rewards teaches nothing{lines}"
        )


def advice(
    result: ProbeResult,
    protocol: DrawProtocol,
    rewards: Sequence[RewardSpec],
    refuse_below: float = REFUSE_BELOW,
) -> list[str]:
    """What to change, the most useful first; [] where nothing stands out.

    Args:
        result: of the probe.
        protocol: that it drew under.
        rewards: of the recipe.
        refuse_below: share of groups with variance that is enough.
    """
    found = [*_losses(result)]
    if result.varied < refuse_below:
        found += [*_start(result, rewards), *_grades(result, rewards, refuse_below), *_group(result)]
        found += _sampler(result, protocol)
    return [*found, *_tags(result, rewards, refuse_below)]


def _losses(result: ProbeResult) -> Iterator[str]:
    if result.failed:
        why, number = max(result.failed.items(), key=lambda item: item[1])
        total = sum(result.failed.values())
        yield f"{total} of {result.pictures} draws failed, {number} of them so: {why}"
    for name, share in result.lost.items():
        if share > MAX_LOST:
            yield f"reward {name!r} has no score for {share:.0%} of pictures: a run stops at {MAX_LOST:.0%}"


def _start(result: ProbeResult, rewards: Sequence[RewardSpec]) -> Iterator[str]:
    """A start that is always wrong, or always right."""
    rates = [line.pass_rate for line in _whole(result, rewards) if line.pass_rate is not None]
    if rates and max(rates) < NEVER:
        yield (
            f"{max(rates):.1%} of pictures pass: this start is too weak for these prompts; train it longer "
            "(`train sft`), or take easier prompts"
        )
    elif rates and min(rates) > ALWAYS:
        yield (
            f"{min(rates):.1%} of pictures pass: this start has nothing to learn here; take harder prompts "
            "or an earlier checkpoint"
        )


def _grades(result: ProbeResult, rewards: Sequence[RewardSpec], refuse_below: float) -> Iterator[str]:
    """Rewards that grade where those that are trained on only say right or wrong."""
    unused = [r.name for r in rewards if not r.weight and _varied(result, r.name) >= refuse_below]
    if unused:
        yield f"give {', '.join(unused)} a weight: there, the rewards of a group do differ"
    elif all(line.expected is not None and line.prompts for line in _whole(result, rewards)):
        yield (
            "all rewards are right-or-wrong: add one that grades, as [rewards.shapes-soft] for the demo's "
            "world, or a scorer, as [rewards.hps]"
        )


def _group(result: ProbeResult) -> Iterator[str]:
    """How much a larger group can help a right-or-wrong reward: if its rate were that of every prompt."""
    for line in result.of(MIXED):
        if not line.tag and line.expected is not None and 0 < line.mean < 1:
            larger = 2 * result.group
            share = expected_share(line.mean, larger)
            yield f"groups of {larger} (grpo.group) would differ in at most {share:.0%}"


def _sampler(result: ProbeResult, protocol: DrawProtocol) -> Iterator[str]:
    is_sure = result.nats is not None and result.nats < SURE
    if not is_sure and not result.diversity < ALIKE:
        return
    surprise = "" if result.nats is None else f", and a token surprises by {result.nats:.2f} nats"
    hotter = (
        f"raise protocol.temperature (now {protocol.temperature:g})"
        if protocol.temperature < 1
        else f"lower protocol.guidance (now {protocol.guidance:g})"
        if protocol.guidance > 1
        else "take an earlier checkpoint"
    )
    yield (
        f"the sampler hardly varies: pictures of a prompt differ at {result.diversity:.0%} of their "
        f"places{surprise}; {hotter} (what is learned holds for the protocol that is trained)"
    )


def _tags(result: ProbeResult, rewards: Sequence[RewardSpec], refuse_below: float) -> Iterator[str]:
    """Tasks that are never right, or always, and have no other reward that tells their pictures apart."""
    taught = {line.tag for line in result.of(MIXED) if line.varied >= refuse_below}
    for reward in (reward for reward in rewards if reward.weight):
        lines = [line for line in result.of(reward.name) if line.tag and line.tag not in taught]
        for rate, words in ((0.0, "never"), (1.0, "always")):
            tags = [line.tag for line in lines if line.pass_rate == rate]
            if tags:
                more = f" and {len(tags) - SHOWN} more" if len(tags) > SHOWN else ""
                yield (
                    f"{reward.name} {words} passes {', '.join(tags[:SHOWN])}{more}: leave these prompts "
                    "out, or add a reward that grades them"
                )


def _whole(result: ProbeResult, rewards: Sequence[RewardSpec]) -> list[ProbeLine]:
    """The lines over all prompts of the rewards that are trained on."""
    names = [reward.name for reward in rewards if reward.weight]
    return [line for line in result.lines if line.reward in names and not line.tag]


def _varied(result: ProbeResult, reward: str) -> float:
    return next(line.varied for line in result.of(reward) if not line.tag)
