"""What `train grpo` is asked for: a recipe (`benchmarks/grpo/*.toml`), read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sar_eval import discover
from sar_eval.documents import convert, read_toml
from sar_eval.errors import BadInput
from sar_eval.families.prompting import PREFIX_SETS, PRESETS
from sar_eval.options import check_storable, check_value, declared, merged
from sar_eval.recipe import PROTOCOL_KEYS, check_size, find_recipe, joined_protocol, training_recipes
from sar_eval.rewards.pool import RewardSpec, reward_specs
from sar_eval.rewards.recipe_tables import HoldoutTable, NotNegative, Positive, Rate, Seed, Table, Whole
from sar_eval.rewards.train_prompts import suite_path
from sar_eval.types import DrawProtocol, Json

# Names of settings (see `GrpoRecipe.settings`) that decide about memory, time and when a run stops, and of
# what is trained about rounding alone: a run may go on with others. `*` is any part.
MAY_CHANGE = (
    *("options.micro", "options.gradient_checkpointing", "options.save_every", "options.max_gap"),
    *("engine.device", "engine.batch_size", "holdout.device"),
    *("rewards.*.device", "rewards.*.workers", "rewards.*.timeout_s"),
)


class PromptsTable(Table, frozen=True):
    """`[prompts]`: what is drawn in training.

    Attributes:
        suite: a prompt file, beside the recipe, shipped, or fetched.
        split: only prompts of this split ("" for all).
        exclude: prompt files whose texts are left out.
    """

    suite: str
    split: str = ""
    exclude: tuple[str, ...] = ()


class GrpoOptions(Table, frozen=True):
    """`[grpo]`: the algorithm.

    Attributes:
        steps: rollouts, each followed by `updates` passes over what was kept of it.
        prompts, group: groups of a step, and pictures of a group.
        keep: pictures of a group that are trained on, half the best and half the worst; 0 for all.
        drop_equal_groups: leave out groups whose rewards are all the same.
        updates: passes over a rollout.
        minibatch: pictures of an optimiser step on all devices; 0 for all of the rollout.
        micro: pictures of one forward pass of the trainer on a device.
        learning_rate: peak, after a linear warm-up of `warmup` steps.
        schedule: what follows: constant, or cosine down to a tenth.
        weight_decay: AdamW's.
        max_grad_norm: gradients are scaled down to it.
        loss, level: clip (PPO's) or cispo; ratios of tokens or of whole pictures (GSPO).
        clip_low, clip_high: how far below and above 1 a ratio counts.
        importance_cap: largest weight of a token for the trainer's chance over the engine's.
        kl, beta: estimate of the distance to the reference, and its weight.
        reference_every: steps after which the present policy becomes the reference; 0 keeps the start.
        scale, floor: what advantages are divided by: the spread of the rewards that are kept of the group,
            of the batch, or nothing; and the least of it.
        policy: which log-probabilities are trained (see `policy.GuidedPolicy`).
        token_weights: uniform, or more weight for tokens that guidance decided (contrast).
        contrast: how much more: the exponent of `advantages.contrast_weights`.
        entropy: weight of the entropy in the loss; with a target, where it starts.
        entropy_target: nats a token that the entropy is steered to; 0 for none.
        precision: of the trainer's forward pass; weights, head and loss are float32.
        gradient_checkpointing: compute activations again instead of keeping them.
        max_gap: nats that the engine's log-probabilities may be off on the mean; 0 for the dtype's.
        save_every: steps between states that a run can resume from.
        seed: of the prompts' order, the draws, the hold-out and the placebo.
        placebo: permute the rewards within each group; nothing may come of it.
        train_on_test: allow prompts that a benchmark tests with; marked in every output.
    """

    steps: Positive
    prompts: Positive = 12
    group: Annotated[int, Meta(ge=2, le=4096)] = 8
    keep: Whole = 0
    drop_equal_groups: bool = True
    updates: Positive = 1
    minibatch: Whole = 0
    micro: Positive = 16
    learning_rate: Rate = 1e-6
    warmup: Whole = 5
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: NotNegative = 0.0
    max_grad_norm: Rate = 1.0
    loss: Literal["clip", "cispo"] = "clip"
    level: Literal["token", "sequence"] = "token"
    clip_low: NotNegative = 0.2
    clip_high: NotNegative = 0.28
    importance_cap: Annotated[float, Meta(ge=1, le=1e6)] = 2.0
    kl: Literal["k3", "js", "off"] = "k3"
    beta: NotNegative = 0.0
    reference_every: Whole = 0
    scale: Literal["group", "batch", "none"] = "group"
    floor: NotNegative = 1e-4
    policy: Literal["guided", "detached", "conditional", "unguided"] = "guided"
    token_weights: Literal["uniform", "contrast"] = "uniform"
    contrast: Annotated[float, Meta(ge=0, le=100)] = 1.0
    entropy: Annotated[float, Meta(ge=-1e3, le=1e3)] = 0.0
    entropy_target: NotNegative = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    max_gap: NotNegative = 0.0
    save_every: Positive = 10
    seed: Seed = 0
    placebo: bool = False
    train_on_test: bool = False


class EngineTable(Table, frozen=True):
    """`[engine]`: what draws the rollouts.

    Attributes:
        name: of the engine; it must give log-probabilities (native, vllm).
        dtype: of its weights.
        device: "" for that of the trainer, else as `cuda:1`.
        batch_size: pictures drawn at once, at most.
        options: its own.
    """

    name: str = "native"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = ""
    batch_size: Annotated[int, Meta(ge=1, le=65_536)] = 128
    options: dict[str, Any] = msgspec.field(default_factory=dict)


class _RecipeFile(Table, frozen=True):
    prompts: PromptsTable
    grpo: GrpoOptions
    rewards: dict[str, dict[str, Any]]
    name: str = ""
    description: str = ""
    protocol: dict[str, Any] = msgspec.field(default_factory=dict)
    holdout: HoldoutTable | None = None
    engine: EngineTable = EngineTable()


class GrpoRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """A whole recipe.

    Attributes:
        path: of its file.
        suite, exclude: the files that `prompts` names.
        protocol: keys of the protocol that rollouts are drawn under (see `protocol_of`).
        rewards: in the recipe's order.
    """

    name: str
    path: Path
    suite: Path
    exclude: tuple[Path, ...]
    prompts: PromptsTable
    protocol: Mapping[str, Json]
    options: GrpoOptions
    rewards: tuple[RewardSpec, ...]
    holdout: HoldoutTable | None
    engine: EngineTable

    def protocol_of(self, native_resolution: int) -> DrawProtocol:
        """The rollouts' protocol for a checkpoint that was trained at this resolution in pixels."""
        start = {"name": "grpo", "resolution": native_resolution}
        return DrawProtocol(**joined_protocol(start, self.protocol))

    def settings(self) -> dict[str, Json]:
        """Everything that is asked for, JSON-shaped."""
        tables = {
            name: getattr(self, name) for name in ("prompts", "options", "rewards", "holdout", "engine")
        }
        found: dict[str, Json] = msgspec.json.decode(msgspec.json.encode(tables))
        return {"name": self.name, "protocol": dict(self.protocol), **found}


def load_grpo_recipe(name: str, changes: Mapping[str, Json] | None = None) -> GrpoRecipe:
    """A shipped recipe by name, or a TOML file by path.

    Args:
        name: `shapes`, or `mine.toml`.
        changes: values by table and key that replace the file's.

    Raises:
        UnknownName: no recipe is called so.
        BadInput: naming file, table, key and what is wrong.
    """
    path = find_recipe(name, training_recipes(), "GRPO recipe")
    data = merged(read_toml(path), changes or {})
    check_storable(data, str(path))
    file = convert(data, _RecipeFile, str(path))
    _check_numbers(file, str(path))
    return GrpoRecipe(
        name=file.name or path.stem,
        path=path,
        suite=suite_path(file.prompts.suite, path.parent),
        exclude=tuple(suite_path(each, path.parent) for each in file.prompts.exclude),
        prompts=file.prompts,
        protocol=_protocol(file.protocol, str(path)),
        options=file.grpo,
        rewards=tuple(reward_specs(file.rewards, str(path), path.parent)),
        holdout=file.holdout,
        engine=file.engine,
    )


def _protocol(table: Mapping[str, Json], where: str) -> dict[str, Json]:
    """The keys of a preset, if `name` is one's, with those of the table."""
    if unknown := sorted(set(table) - set(PROTOCOL_KEYS)):
        raise BadInput(
            f"{where}: unknown key protocol.{unknown[0]}; known are {', '.join(sorted(PROTOCOL_KEYS))}"
        )
    keys = {**PRESETS.get(str(table.get("name", "")), {}), **table}
    check_size(keys, "protocol.", where)
    convert(joined_protocol({"name": "", "resolution": 64}, keys), DrawProtocol, f"{where}: protocol")
    for key, value in keys.items():
        if key in declared():
            check_value(key, value, f"{where}: protocol")
    if (prefixes := keys.get("prefixes")) and prefixes not in PREFIX_SETS:
        raise discover.unknown("set of prefixes", str(prefixes), list(PREFIX_SETS))
    return keys


def _check_numbers(file: _RecipeFile, where: str) -> None:
    """Refuse numbers that do not go together."""
    grpo = file.grpo
    faults: Sequence[tuple[bool, str]] = (
        (not file.rewards, "no table [rewards.NAME]: name a judge or scorer, as [rewards.shapes-soft]"),
        (grpo.keep > grpo.group, f"grpo.keep is {grpo.keep}, more than a group, {grpo.group}"),
        (
            grpo.keep == 1,
            "grpo.keep is 1: one picture has no other to be better than; take 2 or more, or 0",
        ),
        (grpo.keep % 2 == 1, f"grpo.keep is {grpo.keep}: half best and half worst need an even number"),
        (
            grpo.clip_low >= 1,
            f"grpo.clip_low is {grpo.clip_low:g}: a ratio cannot lie below 0, take under 1",
        ),
        (grpo.beta > 0 and grpo.kl == "off", f"grpo.beta is {grpo.beta:g} and grpo.kl is off: which?"),
        (
            grpo.reference_every > 0 and grpo.beta == 0,
            f"grpo.reference_every is {grpo.reference_every} and grpo.beta 0, which makes no use of it",
        ),
        (grpo.warmup >= grpo.steps, f"grpo.warmup is {grpo.warmup} of {grpo.steps} steps"),
    )
    for is_wrong, message in faults:
        if is_wrong:
            raise BadInput(f"{where}: {message}")
