"""Stage: from a recipe and what was asked for to one resolved spec; refuses what cannot work."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sar_eval import discover
from sar_eval.errors import BadInput
from sar_eval.families.diffusers_folder import is_pipeline
from sar_eval.families.family import TokenCheckpoint
from sar_eval.families.prompting import PREFIX_SETS, PRESETS
from sar_eval.families.recognise import find_checkpoint
from sar_eval.options import check_kinds, check_value, declared, merged, names_of
from sar_eval.recipe import PROTOCOL_KEYS, SETTINGS, Recipe, check_size, joined_protocol
from sar_eval.spec import RunSpec
from sar_eval.suites.checks import check_classes
from sar_eval.suites.locate import read_suite
from sar_eval.types import CheckpointFacts, DrawProtocol, Json, Prompt

DEFAULT_ENGINE = "native"


def resolve(
    recipe: Recipe, checkpoint: str, overrides: Mapping[str, Json], notes: list[str] | None = None
) -> RunSpec:
    """Recipe, then overrides (those that are not None), then defaults.

    Args:
        recipe: of the benchmark.
        checkpoint: its name.
        overrides: by name of an option (see `options`); `engine_options` and `judge_options` are tables.
        notes: what was assumed about the checkpoint and the suite is appended.

    Raises:
        BadInput: a value out of range, an unusable suite or checkpoint, classes that the judge cannot know.
        UnknownName: an engine, judge or checkpoint that is not known.
    """
    overrides = {key: value for key, value in overrides.items() if value is not None}
    suite = read_suite(recipe.suite)
    spec, found = _resolve_drawing(recipe, str(recipe.suite), suite.digest, checkpoint, overrides)
    if notes is not None:
        notes += [*found.notes, *_protocol_notes(found, spec), *suite.notes]
    check_judgeable(spec, suite.prompts)
    return _checked(spec, found)


def resolve_drawing(
    prompts: str,
    digest: str,
    checkpoint: str,
    overrides: Mapping[str, Json],
    notes: list[str] | None = None,
) -> RunSpec:
    """The spec of draws of a file of prompts that nobody reads as a whole; it has no judge.

    Args:
        prompts: where the file is: a path or an address.
        digest: of the file.
        checkpoint: its name.
        overrides: as for `resolve`.
        notes: what was assumed about the checkpoint is appended.

    Raises:
        BadInput, UnknownName: as `resolve`, but for prompts.
    """
    overrides = {key: value for key, value in overrides.items() if value is not None}
    recipe = Recipe("synth", None, {"images_per_prompt": 1}, {}, {})
    spec, found = _resolve_drawing(recipe, prompts, digest, checkpoint, overrides)
    if notes is not None:
        notes += [*found.notes, *_protocol_notes(found, spec)]
    return _checked(spec, found)


def _resolve_drawing(
    recipe: Recipe, suite: str, suite_digest: str, checkpoint: str, overrides: Mapping[str, Json]
) -> tuple[RunSpec, TokenCheckpoint | CheckpointFacts]:
    """The spec of a checkpoint's draws, not yet checked."""
    options = {**recipe.engine_options, **overrides.get("engine_options", {})}
    settings = _settings(recipe, overrides)
    settings["engine"] = _engine(settings, overrides, checkpoint)
    found = find_drawn(settings["engine"], checkpoint, options)
    spec = RunSpec(
        benchmark=recipe.name,
        suite=suite,
        suite_digest=suite_digest,
        checkpoint=found.name,
        checkpoint_digest=found.digest,
        protocol=_protocol(recipe, found, settings["engine"], overrides),
        engine_options=options,
        judge_options=_judge_options(recipe, settings, overrides),
        **settings,
    )
    return spec, found


def _protocol_notes(found: TokenCheckpoint | CheckpointFacts, spec: RunSpec) -> tuple[str, ...]:
    """What a family says of a protocol.

    Raises:
        BadInput: the family cannot draw by it.
    """
    if isinstance(found, CheckpointFacts):
        return ()
    with discover.guarded(f"family {found.family!r} cannot check the protocol {spec.protocol.name!r}"):
        return found.check_protocol(spec.protocol)


def _engine(settings: Mapping[str, Json], overrides: Mapping[str, Json], checkpoint: str) -> str:
    """The engine that is asked for; `diffusers` for a pipeline where none is but native."""
    engine = str(settings.get("engine", DEFAULT_ENGINE))
    asked = "engine" in overrides or engine != DEFAULT_ENGINE
    return "diffusers" if not asked and is_pipeline(checkpoint) else engine


def find_drawn(engine: str, name: str, options: Mapping[str, Json]) -> TokenCheckpoint | CheckpointFacts:
    """The checkpoint, by the engine's own `find` if it has one.

    Raises:
        BadInput, UnknownName: there is no such checkpoint, or no such engine.
    """
    find = getattr(discover.load("engines", engine), "find", None)
    if find is None:
        return find_checkpoint(name, str(options.get("visual_tokenizer", "")))
    with discover.guarded(f"engine {engine!r} cannot find checkpoint {name!r}"):
        facts: CheckpointFacts = find(name, options)
        return facts


def resolve_images(
    recipe: Recipe,
    folder: Path,
    digest: str,
    layout: str,
    resolution: int,
    overrides: Mapping[str, Json],
) -> RunSpec:
    """The spec of images that others drew: `checkpoint` is their folder, the protocol is theirs.

    Args:
        recipe: of the benchmark.
        folder: of the images.
        digest: of the images.
        layout: how they lie in the folder, in words.
        resolution: the longer side of one in pixels.
        overrides: as for `resolve`.

    Raises:
        BadInput, UnknownName: a value out of range, an unusable suite or judge.
    """
    overrides = {key: value for key, value in overrides.items() if value is not None}
    settings, suite = _settings(recipe, overrides), read_suite(recipe.suite)
    spec = RunSpec(
        benchmark=recipe.name,
        suite=str(recipe.suite),
        suite_digest=suite.digest,
        checkpoint=str(folder.resolve()),
        checkpoint_digest=digest,
        protocol=DrawProtocol(name=f"images as they are, {layout}", resolution=resolution),
        judge_options=_judge_options(recipe, settings, overrides),
        **settings | {"engine": "none", "dtype": "none"},
    )
    _check_values(spec)
    check_judgeable(spec, suite.prompts)
    return with_judge(spec)


def check_judgeable(spec: RunSpec, prompts: Iterable[Prompt]) -> None:
    """Refuse prompts about objects of classes that the spec's judge says it does not know.

    Raises:
        BadInput, UnknownName: naming prompt and class; or there is no such judge.
    """
    if spec.judge and (known := getattr(discover.load("judges", spec.judge), "classes", ())):
        check_classes(prompts, known, spec.judge)


def with_judge(spec: RunSpec) -> RunSpec:
    """The spec with what its judge says of itself: name, version, options that no verdict depends on.

    Raises:
        BadInput, UnknownName: there is no such judge, or it does not take its options.
    """
    if not spec.judge:
        return spec
    judge = build_judge(spec, "cpu")
    with discover.guarded(f"judge {spec.judge!r} does not say what it is"):
        return replace(
            spec,
            judge=discover.listed("judges", spec.judge) or spec.judge,  # one name, one digest
            judge_version=version_of(judge, f"judge {spec.judge!r}"),
            judge_speed_options=tuple(getattr(judge, "speed_options", ())),
            judge_path_options=tuple(getattr(judge, "path_options", ())),
        )


def version_of(addition: Any, name: str) -> str:
    """What an addition says of itself; BadInput if it says nothing."""
    version = getattr(addition, "version", None)
    if version is None:
        raise BadInput(f"{name} has no `version`: what it gives is stored under it")
    return str(version)


def build_judge(spec: RunSpec, device: str) -> Any:
    """The spec's judge, not yet entered.

    Raises:
        BadInput, UnknownName: there is no such judge, or it does not take its options.
    """
    return make_judge(spec.judge, spec.judge_options, device)


def make_judge(name: str, options: Mapping[str, Json], device: str) -> Any:
    """A judge by name, not yet entered; raises as `build_judge`."""
    make = discover.load("judges", name)
    return _construct(f"judge {name!r}", make, (), {"device": device}, options)


def build_engine(spec: RunSpec, device: str) -> Any:
    """The spec's engine, not yet entered.

    Raises:
        BadInput, UnknownName: there is no such engine, or it does not take its options.
    """
    make = discover.load("engines", spec.engine)
    settings = {"device": device, "dtype": spec.dtype, "batch_size": spec.batch_size}
    name = f"engine {spec.engine!r}"
    check_kinds(make, spec.engine_options, name)
    return _construct(name, make, (spec.checkpoint, spec.protocol), settings, spec.engine_options)


def _construct(
    name: str, make: Any, what: tuple[Any, ...], settings: Mapping[str, Any], options: Mapping[str, Json]
) -> Any:
    """Call an addition's constructor, which checks its options and loads nothing."""
    if twice := sorted(settings.keys() & options.keys()):
        flag = {"device": "--devices"}.get(twice[0], f"--{twice[0].replace('_', '-')}")
        raise BadInput(f"{twice[0]!r} is no option of {name}: say {flag}")
    try:
        json.dumps(dict(options), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"an option of {name} cannot be stored in run.json: {error}") from error
    with discover.guarded(f"{name} cannot be made with the options {dict(options)}"):
        try:
            return make(*what, **settings, **options)
        except TypeError as error:
            raise BadInput(f"{name} does not take the options {dict(options)}: {error}") from error


def gpus_of_a_worker(spec: RunSpec) -> int:
    """How many GPUs one worker of the spec's engine takes: 1 unless the engine's `gpus` says more."""
    gpus = getattr(discover.load("engines", spec.engine), "gpus", None)
    with discover.guarded(f"engine {spec.engine!r} does not say how many GPUs it takes"):
        return 1 if gpus is None else int(gpus(spec.engine_options))


def most_workers(spec: RunSpec) -> int | None:
    """How many workers of the spec's engine are of use; None for any number."""
    most = getattr(discover.load("engines", spec.engine), "most_workers", None)
    return None if most is None else int(most)


def _check_values(spec: RunSpec) -> None:
    """Refuse values of the spec and its protocol that are out of their options' ranges."""
    for name in names_of("spec"):
        check_value(name, getattr(spec, name))
    for name in names_of("protocol"):
        check_value(name, getattr(spec.protocol, name))


def _settings(recipe: Recipe, overrides: Mapping[str, Json]) -> dict[str, Json]:
    chosen = {key: value for key, value in overrides.items() if key in SETTINGS}
    settings = {"fold": "", "judge": "", **recipe.settings, **chosen}
    if "fold" not in chosen and settings["judge"] != recipe.settings.get("judge"):
        settings["fold"] = own_fold(settings["judge"]) or settings["fold"]
    return settings


def own_fold(judge: str) -> str:
    """The fold for a judge's verdicts on any suite, if it names one; another's then needs no --fold.

    Raises:
        BadInput, UnknownName: there is no such judge.
    """
    return str(getattr(discover.load("judges", judge), "fold", "")) if judge else ""


def _judge_options(
    recipe: Recipe, settings: Mapping[str, Json], overrides: Mapping[str, Json]
) -> dict[str, Json]:
    """The recipe's, if the judge is the recipe's, then those of the command line."""
    same = settings["judge"] == recipe.settings.get("judge")
    return merged(recipe.judge_options if same else {}, named_judge_options(settings["judge"], overrides))


def named_judge_options(judge: str, overrides: Mapping[str, Json]) -> dict[str, Json]:
    """The judge's options that the command line names; `--scorers` are the judge `score`'s own."""
    scorers = overrides.get("scorers", {}) if judge == "score" else {}
    return merged(overrides.get("judge_options", {}), scorers)


def _protocol(
    recipe: Recipe, found: TokenCheckpoint | CheckpointFacts, engine: str, overrides: Mapping[str, Json]
) -> DrawProtocol:
    """The recipe's protocol with the command line's changes, which its name then shows."""
    start: dict[str, Json] = {"name": "custom", "resolution": found.native_resolution}
    name = overrides.get("protocol")
    base = _base_protocol(recipe, name, PRESETS if isinstance(found, CheckpointFacts) else found.presets)
    asked = {key: value for key, value in overrides.items() if key in PROTOCOL_KEYS}
    check_size(asked, "--")
    own: Mapping[str, Json] = {}
    if isinstance(found, CheckpointFacts):
        own = found.protocol
        foreign = name is None and recipe.settings.get("engine") != engine
        base = _own_keys(base, asked, found, found.recipe_keys if foreign else found.protocol_keys)
    preset = DrawProtocol(**joined_protocol(start, own, base))
    changed = DrawProtocol(**joined_protocol(start, own, base, asked))
    return preset if changed == preset else replace(changed, name=f"{preset.name}+")


def _base_protocol(
    recipe: Recipe, name: str | None, presets: Mapping[str, Mapping[str, Json]]
) -> Mapping[str, Json]:
    """The preset that is asked for, else the recipe's protocol.

    A recipe that pins a preset of SimpleAR means it for SimpleAR, and one that says nothing leaves
    guidance off: a checkpoint of another family is drawn with its family's first.
    """
    pinned = recipe.protocol.get("name")
    is_other = bool(presets) and presets.keys().isdisjoint(PRESETS)
    meant = pinned not in PRESETS or pinned in presets
    if name is None and meant and (recipe.protocol or not is_other):
        return recipe.protocol
    chosen = next(iter(presets)) if name is None else name
    if chosen not in presets:
        raise discover.unknown("protocol", chosen, list(presets))
    return {**presets[chosen], "name": chosen}


def _own_keys(
    base: Mapping[str, Json], asked: Mapping[str, Json], found: CheckpointFacts, kept: Iterable[str]
) -> dict[str, Json]:
    """What is kept of a recipe or preset; its name stays if all of it does."""
    if other := sorted(asked.keys() - set(found.protocol_keys)):
        flag = f"--{other[0].replace('_', '-')}"
        raise BadInput(f"{flag} is of no use for {found.name}: its engine draws without it")
    own = {key: value for key, value in base.items() if key in kept}
    return own | ({"name": base["name"]} if len(own) == len(base) - 1 and "name" in base else {})


def _checked(spec: RunSpec, checkpoint: TokenCheckpoint | CheckpointFacts) -> RunSpec:
    """The spec with what its engine and judge say of themselves; loads nothing.

    Raises:
        BadInput, UnknownName: naming the value that cannot work.
    """
    _check_values(spec)
    for name in ("width", "height") if spec.protocol.width else ("resolution",):
        side = replace(declared()[name], low=checkpoint.downsample)
        side.check(name, getattr(spec.protocol, name))
    if spec.protocol.prefixes and spec.protocol.prefixes not in PREFIX_SETS:
        raise discover.unknown("set of prefixes", spec.protocol.prefixes, list(PREFIX_SETS))
    # Constructors check their options and load nothing, so faults show before a worker starts.
    engine = build_engine(spec, "cpu")
    if spec.fold:
        discover.load("benchmarks", spec.fold)
    with discover.guarded(f"engine {spec.engine!r} does not say what it is"):
        speed = tuple(getattr(engine, "speed_options", ()))
        version = version_of(engine, f"engine {spec.engine!r}")
    return with_judge(replace(spec, engine_version=version, engine_speed_options=speed))
