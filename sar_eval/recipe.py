"""What is asked for: a benchmark's recipe (`benchmarks/<name>.toml`), read and checked."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sar_eval import discover
from sar_eval.errors import BadInput
from sar_eval.options import kind_of, names_of
from sar_eval.suites.locate import find_suite
from sar_eval.types import Json

PACKAGE = Path(__file__).parent
SETTINGS = names_of("spec")  # keys at the top
PROTOCOL_KEYS = ("name", *names_of("protocol"))
TABLES = ("protocol", "judge_options", "engine_options")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A pinned benchmark.

    Attributes:
        name: of the benchmark.
        suite: its prompt file.
        settings: by name of an option of the spec.
        protocol: by name of an option of the protocol, and `name`.
        judge_options, engine_options: what the judge and the engine are made with.
    """

    name: str
    suite: Path
    settings: Mapping[str, Json]
    protocol: Mapping[str, Json]
    judge_options: Mapping[str, Json]
    engine_options: Mapping[str, Json] = field(default_factory=dict)


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
    _check_keys(data, path)
    settings = {key: data[key] for key in SETTINGS if key in data}
    return Recipe(
        name=str(_typed({"name": data.get("name", path.stem)}, path)["name"]),
        suite=find_suite(str(data["suite"]), (path.parent, shipped("prompts"))),
        settings=_typed(settings, path) | _files_beside(data, path),
        protocol=_typed(data.get("protocol", {}), path),
        judge_options=_with_answerer_beside(data.get("judge_options", {}), path.parent),
        engine_options=data.get("engine_options", {}),
    )


def with_suite(recipe: Recipe, suite: Path) -> Recipe:
    """The recipe over another prompt file."""
    return replace(recipe, suite=suite)


def free_recipe(suite: Path) -> Recipe:
    """A recipe for prompts without a benchmark: one image a prompt, no judge."""
    name = Path(os.path.normpath(suite.absolute())).stem  # `.` may be a folder of prompts
    return Recipe(name, suite, {"images_per_prompt": 1}, {}, {})


def _check_keys(data: Mapping[str, Json], path: Path) -> None:
    known = {"name", "description", "suite", *SETTINGS, *TABLES}
    for key, value in data.items():
        if key not in known:
            raise BadInput(f"{path}: unknown key {key!r}; known are {', '.join(sorted(known))}")
        if isinstance(value, dict) != (key in TABLES):
            raise BadInput(f"{path}: {key} must be {'a table' if key in TABLES else 'one value'}")
    if extra := set(data.get("protocol", {})) - set(PROTOCOL_KEYS):
        raise BadInput(
            f"{path}: unknown key protocol.{min(extra)}; known are {', '.join(sorted(PROTOCOL_KEYS))}"
        )
    if "suite" not in data:
        raise BadInput(f"{path}: no key 'suite'")


def _typed(values: Mapping[str, Json], path: Path) -> dict[str, Json]:
    """The values as their options want them; whole numbers become floats where asked."""
    typed: dict[str, Json] = {}
    for key, value in values.items():
        kind = str if key == "name" else kind_of(key)
        whole = kind is float and isinstance(value, int)
        if isinstance(value, bool) != (kind is bool) or not (whole or isinstance(value, kind)):
            raise BadInput(f"{path}: {key} is {value!r}, it must be of kind {kind.__name__}")
        typed[key] = float(value) if whole else value
    return typed


def _files_beside(data: Mapping[str, Json], recipe: Path) -> dict[str, Json]:
    """`mine.py:JUDGE` beside the recipe, wherever the command is given."""
    beside = {key: recipe.parent / str(data[key]) for key in ("engine", "judge", "fold") if key in data}
    found = {
        key: path
        for key, path in beside.items()
        if ".py:" in path.name and Path(str(path).rpartition(":")[0]).is_file()
    }
    return {key: str(path.resolve()) for key, path in found.items()}


def _with_answerer_beside(options: Mapping[str, Json], beside: Path) -> Mapping[str, Json]:
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
