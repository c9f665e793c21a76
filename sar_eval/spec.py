"""What a run is: a recipe (TOML) and the command line's overrides in, one resolved spec out."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from sar_eval import discover
from sar_eval.errors import BadInput
from sar_eval.models.checkpoint import Checkpoint, find_checkpoint
from sar_eval.models.prompting import PREFIX_SETS, PRESETS
from sar_eval.suites import find_suite, read_suite
from sar_eval.types import DrawProtocol, Json

PACKAGE = Path(__file__).parent
PROTOCOL_KEYS = {f.name for f in fields(DrawProtocol)}


# Options of engines that change how long a picture takes or how it is filed, not what it shows (the visual
# tokenizer's bytes are in the checkpoint's digest). By engine: another one's option of such a name counts.
FILING = ("image_format", "visual_tokenizer")
HOW: Mapping[str, tuple[str, ...]] = {
    "native": ("speculate", "window", "compile"),
    "vllm": (
        *("waves", "rounding", "tensor_parallel_size", "pipeline_parallel_size", "gpu_memory_utilization"),
        *("max_num_seqs", "max_num_batched_tokens", "kv_cache_memory_bytes", "enable_prefix_caching"),
        *("async_scheduling", "enforce_eager", "block_size", "disable_log_stats"),
    ),
}

# Options of judges that change where and how fast questions are answered, not what is answered.
JUDGED_HOW = ("url", "api_key_env", "timeout_s", "retries", "concurrency", "images_at_once")

# What may change between two starts of a run: it decides verdicts and figures, not pictures.
JUDGED_BY = ("benchmark", "fold", "judge", "judge_version", "judge_options")


def pictured(engine: str, options: Mapping[str, Json]) -> dict[str, Json]:
    """The engine's options that a picture depends on."""
    return {k: v for k, v in options.items() if k not in (*FILING, *HOW.get(engine, ()))}


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything that decides a run's pictures and verdicts.

    Attributes:
        benchmark: the recipe's name.
        fold: the module under `benchmarks/` whose `BENCHMARK` folds the verdicts ("" for none).
        suite: the prompt file.
        suite_digest: of its contents.
        checkpoint, checkpoint_digest: what draws.
        engine, engine_version, engine_options: who draws.
        protocol: how it draws.
        judge, judge_version, judge_options: who looks at the pictures ("" for nobody).
        images_per_prompt: draws of each prompt.
        seed: of the run; each draw's own seed is made from it.
        dtype: of the weights and the computation.
        batch_size: draws of one block, that is of one forward and of one stored part.
    """

    benchmark: str
    fold: str
    suite: str
    suite_digest: str
    checkpoint: str
    checkpoint_digest: str
    protocol: DrawProtocol
    engine: str = "native"
    engine_version: str = ""
    engine_options: Mapping[str, Json] = field(default_factory=dict)
    judge: str = ""
    judge_version: str = ""
    judge_options: Mapping[str, Json] = field(default_factory=dict)
    images_per_prompt: int = 4
    seed: int = 0
    dtype: str = "float32"
    batch_size: int = 64

    @property
    def digest(self) -> str:
        """Of what decides the pictures: not the judge, the batch size, names, or where files lie."""
        told = asdict(self)
        del told["protocol"]["name"]
        for name in (*JUDGED_BY, "suite", "checkpoint", "batch_size"):
            del told[name]
        told["engine_options"] = pictured(self.engine, self.engine_options)
        return _hash(told)

    @property
    def judge_digest(self) -> str:
        """Of what decides the verdicts on given pictures."""
        options = {k: v for k, v in self.judge_options.items() if k not in JUDGED_HOW}
        return _hash({"judge": self.judge, "version": self.judge_version, "options": options})

    def to_json(self) -> dict[str, Json]:
        """As `run.json` stores it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> RunSpec:
        """From `run.json`.

        Raises:
            BadInput: its fields are not this version's.
        """
        try:
            return cls(**{**data, "protocol": DrawProtocol(**data["protocol"])})
        except (TypeError, KeyError) as error:
            raise BadInput(f"run.json was written by another version of sar-eval ({error})") from error


@dataclass(frozen=True, slots=True)
class Recipe:
    """A pinned benchmark: `benchmarks/<name>.toml`, read and checked."""

    name: str
    suite: Path
    settings: Mapping[str, Json]
    protocol: Mapping[str, Json]
    judge_options: Mapping[str, Json]
    engine_options: Mapping[str, Json] = field(default_factory=dict)


SETTINGS = ("fold", "engine", "judge", "images_per_prompt", "seed", "dtype", "batch_size")


def shipped(folder: str) -> Path:
    """`benchmarks` or `prompts`: inside an installed package, or in the source checkout."""
    inside = PACKAGE / {"benchmarks": "recipes", "prompts": "prompt_files"}[folder]
    return inside if inside.is_dir() else PACKAGE.parent / folder


def recipe_names() -> dict[str, str]:
    """Every shipped recipe with its description."""
    paths = sorted(shipped("benchmarks").glob("*.toml"))
    return {path.stem: str(_read_toml(path).get("description", "")) for path in paths}


def load_recipe(name: str) -> Recipe:
    """A shipped recipe by name, or a TOML file by path.

    Raises:
        UnknownName: no recipe is called so.
        BadInput: broken TOML, an unknown key, a value of the wrong kind.
    """
    path = Path(name) if name.endswith(".toml") else shipped("benchmarks") / f"{name}.toml"
    if not path.is_file():
        raise discover.unknown("benchmark", name, list(recipe_names()))
    data = _read_toml(path)
    known = {"name", "description", "suite", *SETTINGS}
    tables = {"protocol": PROTOCOL_KEYS, "judge_options": None, "engine_options": None}
    for key, value in data.items():
        if key not in known | set(tables):
            raise BadInput(
                f"{path}: unknown key {key!r}; known are {', '.join(sorted(known | set(tables)))}"
            )
        if isinstance(value, dict) != (key in tables):
            raise BadInput(f"{path}: {key} must be {'a table' if key in tables else 'one value'}")
    if extra := set(data.get("protocol", {})) - PROTOCOL_KEYS:
        raise BadInput(
            f"{path}: unknown key protocol.{min(extra)}; known are {', '.join(sorted(PROTOCOL_KEYS))}"
        )
    if "suite" not in data:
        raise BadInput(f"{path}: no key 'suite'")
    return Recipe(
        name=str(data.get("name", path.stem)),
        suite=find_suite(str(data["suite"]), (path.parent, shipped("prompts"))),
        settings=_typed({key: data[key] for key in SETTINGS if key in data}, RunSpec, path)
        | _files(data, path),
        protocol=_typed(data.get("protocol", {}), DrawProtocol, path),
        judge_options=_answerer(data.get("judge_options", {}), path.parent),
        engine_options=data.get("engine_options", {}),
    )


def _typed(values: Mapping[str, Json], owner: type, where: Path) -> dict[str, Json]:
    """The values as the fields of a dataclass want them; whole numbers become floats where asked."""
    kinds = {field.name: str(field.type) for field in fields(owner)}
    typed: dict[str, Json] = {}
    for key, value in values.items():
        good = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}[kinds[key]]
        if isinstance(value, bool) != (bool in good) or not isinstance(value, good):
            raise BadInput(f"{where}: {key} is {value!r}, it must be of kind {kinds[key]}")
        typed[key] = float(value) if kinds[key] == "float" else value
    return typed


def _files(data: Mapping[str, Json], recipe: Path) -> dict[str, Json]:
    """`mine.py:JUDGE` beside the recipe, wherever the command is given."""
    beside = {key: recipe.parent / str(data[key]) for key in ("engine", "judge", "fold") if key in data}
    found = {
        key: p
        for key, p in beside.items()
        if ".py:" in p.name and Path(str(p).rpartition(":")[0]).is_file()
    }
    return {key: str(path.resolve()) for key, path in found.items()}


def _answerer(options: Mapping[str, Json], beside: Path) -> Mapping[str, Json]:
    """The judge's options with an answerer `mine.py:NAME` found beside the recipe."""
    file, _, name = str(options.get("answerer", "")).rpartition(":")
    if file.endswith(".py") and (beside / file).is_file():
        return {**options, "answerer": f"{(beside / file).resolve()}:{name}"}
    return options


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: broken TOML: {error}") from error


def resolve(recipe: Recipe, checkpoint: str, overrides: Mapping[str, Json]) -> RunSpec:
    """Recipe, then overrides (those that are not None), then defaults.

    Raises:
        BadInput: a value out of range, an unusable suite or checkpoint.
        UnknownName: an engine, judge or checkpoint that is not known.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    options = {**recipe.engine_options, **given.get("engine_options", {})}
    found = find_checkpoint(checkpoint, str(options.get("visual_tokenizer", "")))
    settings = _settings(recipe, given)
    spec = RunSpec(
        benchmark=recipe.name,
        suite=str(recipe.suite),
        suite_digest=read_suite(recipe.suite).digest,
        checkpoint=found.name,
        checkpoint_digest=found.digest,
        protocol=_protocol(recipe, found, given),
        engine_options=options,
        judge_options=_judge_options(recipe, settings, given),
        **settings,
    )
    return checked(spec, found)


def resolve_images(
    recipe: Recipe, folder: Path, digest: str, told: str, resolution: int, overrides: Mapping[str, Json]
) -> RunSpec:
    """The spec of pictures that others drew: `checkpoint` is their folder, the protocol is theirs.

    `told` says how they lay in the folder, `resolution` is the longer side of one in pixels.

    Raises:
        BadInput, UnknownName: a value out of range, an unusable suite or judge.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    settings = _settings(recipe, given)
    spec = RunSpec(
        benchmark=recipe.name,
        suite=str(recipe.suite),
        suite_digest=read_suite(recipe.suite).digest,
        checkpoint=str(folder.resolve()),
        checkpoint_digest=digest,
        protocol=DrawProtocol(name=f"pictures as given, {told}", resolution=resolution),
        judge_options=_judge_options(recipe, settings, given),
        **settings | {"engine": "none", "dtype": "none"},
    )
    return with_judge_version(spec)


def _settings(recipe: Recipe, given: Mapping[str, Json]) -> dict[str, Json]:
    chosen = {key: value for key, value in given.items() if key in SETTINGS}
    return {"fold": "", "judge": "", **recipe.settings, **chosen}


def _judge_options(
    recipe: Recipe, settings: Mapping[str, Json], given: Mapping[str, Json]
) -> dict[str, Json]:
    """The recipe's, if the judge is the recipe's, then those of the command line."""
    same = settings["judge"] == recipe.settings.get("judge")
    return {**(recipe.judge_options if same else {}), **given.get("judge_options", {})}


def _protocol(recipe: Recipe, found: Checkpoint, given: Mapping[str, Json]) -> DrawProtocol:
    """The recipe's protocol with the command line's changes, which its name then shows."""
    start = {"name": "custom", "resolution": found.native_resolution}
    name = given.get("protocol")
    if name is not None and name not in PRESETS:
        raise discover.unknown("protocol", name, list(PRESETS))
    told = recipe.protocol if name is None else {**PRESETS[name], "name": name}
    preset = DrawProtocol(**{**start, **told})
    changed = replace(preset, **{key: value for key, value in given.items() if key in PROTOCOL_KEYS})
    return preset if changed == preset else replace(changed, name=f"{preset.name}+")


def checked(spec: RunSpec, checkpoint: Checkpoint) -> RunSpec:
    """The spec with its engine's and judge's versions; refuses what cannot work, loads nothing.

    Raises:
        BadInput, UnknownName: naming the value.
    """
    protocol = spec.protocol
    rules = {
        "images_per_prompt": (spec.images_per_prompt, 1, 100_000),
        "batch_size": (spec.batch_size, 1, 65_536),
        "temperature": (protocol.temperature, 0, 100),
        "guidance": (protocol.guidance, 0, 1000),
        "top_k": (protocol.top_k, 0, 1_000_000),
        "resolution": (protocol.resolution, checkpoint.downsample, 8192),
    }
    for name, (value, low, high) in rules.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise BadInput(f"{name.replace('_', '-')} is {value!r}: it must lie between {low} and {high}")
    if not 0 < protocol.top_p <= 1:
        raise BadInput(f"top-p is {protocol.top_p!r}: it must lie above 0 and at most at 1")
    if protocol.prefixes and protocol.prefixes not in PREFIX_SETS:
        raise discover.unknown("set of prefixes", protocol.prefixes, list(PREFIX_SETS))
    # Constructors check their options and load nothing, so faults show before a worker starts.
    engine = make_the_engine(spec, "cpu")
    if spec.fold:
        discover.load("benchmarks", spec.fold)
    return with_judge_version(replace(spec, engine_version=str(engine.version)))


def make_the_engine(spec: RunSpec, device: str) -> Any:
    """The spec's engine, not yet entered.

    Raises:
        BadInput, UnknownName: naming what does not fit it.
    """
    make = discover.load("engines", spec.engine)
    options = dict(spec.engine_options)
    try:
        return make(
            spec.checkpoint,
            spec.protocol,
            device=device,
            dtype=spec.dtype,
            batch_size=spec.batch_size,
            **options,
        )
    except TypeError as error:
        raise BadInput(f"engine {spec.engine!r} does not take the options {options}: {error}") from error


def gpus_of_a_worker(spec: RunSpec) -> int:
    """How many GPUs one worker of the spec's engine takes: 1 unless the engine's `gpus` says more."""
    told = getattr(discover.load("engines", spec.engine), "gpus", None)
    return 1 if told is None else int(told(spec.engine_options))


def with_judge_version(spec: RunSpec) -> RunSpec:
    """The spec with the version of its judge, which must exist and know its options.

    Raises:
        BadInput, UnknownName: naming the judge.
    """
    if not spec.judge:
        return spec
    try:
        judge = discover.load("judges", spec.judge)(**spec.judge_options)
    except TypeError as error:
        options = dict(spec.judge_options)
        raise BadInput(f"judge {spec.judge!r} does not take the options {options}: {error}") from error
    return replace(spec, judge_version=str(judge.version))


def run_folder(spec: RunSpec, root: Path) -> Path:
    """Where a run goes unless told: the same command finds the same folder, so it resumes."""
    checkpoint = spec.checkpoint.removeprefix("demo:").rstrip("/").split("/")[-1]
    names = [re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") for name in (spec.benchmark, checkpoint)]
    return root / "-".join([*names, spec.digest[:8]])


def with_suite(recipe: Recipe, suite: Path) -> Recipe:
    """The recipe over another prompt file."""
    return replace(recipe, suite=suite)


def free_recipe(suite: Path) -> Recipe:
    """A recipe for prompts without a benchmark: one image a prompt, no judge."""
    return Recipe(suite.stem, suite, {"images_per_prompt": 1}, {}, {})


def _hash(data: Json) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
