"""What is asked for: a benchmark's recipe (`benchmarks/<name>.toml`), read and checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sar_eval import discover
from sar_eval.documents import read_toml, shorten
from sar_eval.errors import BadInput
from sar_eval.options import check_name, check_storable, declared, kind_of, names_of
from sar_eval.suites.locate import find_suite
from sar_eval.types import Json

PACKAGE = Path(__file__).parent
SETTINGS = names_of("spec")  # keys at the top
PROTOCOL_KEYS = ("name", *names_of("protocol"))
SIZE = ("resolution", "width", "height")  # fields of a protocol that say a picture's size
TABLES = ("protocol", "judge_options", "engine_options")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A pinned benchmark.

    Attributes:
        name: of the benchmark.
        suite: its prompt file; None (`suite = ""`) if the images that it scores bring their prompts.
        settings: by name of an option of the spec.
        protocol: by name of an option of the protocol, and `name`.
        judge_options, engine_options: what the judge and the engine are made with.
    """

    name: str
    suite: Path | None
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
    return {path.stem: description(path) for path in paths}


def training_recipes() -> dict[str, Path]:
    """Every shipped recipe of `train grpo`."""
    return _recipes_in("grpo")


def decoder_recipes() -> dict[str, Path]:
    """Every shipped recipe of `train run`."""
    return _recipes_in("train")


def _recipes_in(folder: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted((shipped("benchmarks") / folder).glob("*.toml"))}


def find_recipe(name: str, known: Mapping[str, Path], what: str) -> Path:
    """The file of a shipped recipe of a training, or of one by path.

    Raises:
        UnknownName: no recipe is called so.
    """
    check_name(name, "recipe")
    path = Path(name) if name.endswith(".toml") else known.get(name)
    if path is None or not path.is_file():
        raise discover.unknown(what, name, list(known))
    return path


def description(path: Path) -> str:
    """What a recipe says it is, in a line."""
    return str(read_toml(path).get("description", ""))


def load_recipe(name: str) -> Recipe:
    """A shipped recipe by name, or a TOML file by path.

    Raises:
        UnknownName: no recipe is called so.
        BadInput: broken TOML, an unknown key, a value of the wrong kind.
    """
    check_name(name, "benchmark")
    path = Path(name) if name.endswith(".toml") else shipped("benchmarks") / f"{name}.toml"
    if not _exists(path):
        raise discover.unknown("benchmark", name, list(recipe_names()))
    data = read_toml(path)
    _check_keys(data, path)
    settings = {key: data[key] for key in SETTINGS if key in data}
    protocol = _typed(data.get("protocol", {}), path)
    check_size(protocol, "protocol.", str(path))
    return Recipe(
        name=str(_typed({"name": data.get("name", path.stem)}, path)["name"]),
        suite=find_suite(data["suite"], (path.parent, shipped("prompts"))) if data["suite"] else None,
        settings=_typed(settings, path) | _files_beside(data, path),
        protocol=protocol,
        judge_options=_with_files_beside(data.get("judge_options", {}), path.parent),
        engine_options=data.get("engine_options", {}),
    )


def check_size(values: Mapping[str, Json], prefix: str = "", where: str = "") -> None:
    """Refuse a picture's size that is said by halves, or twice.

    Args:
        values: fields of a protocol, as somebody asks for them in one place.
        prefix: of a field's name in messages: "--" on the command line.
        where: file of the fields, for messages.

    Raises:
        BadInput: saying what to add or to leave out; or a width or height that is no number above 0.
    """
    sides = {name: values[name] for name in ("width", "height") if name in values}
    for name, value in sides.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            shown = f"{where and f'{where}: '}{prefix}{name} is {shorten(value)}"
            raise BadInput(f"{shown}: it must be a whole number of at least 1")
    if fault := _size_fault(sides, "resolution" in values, prefix):
        raise BadInput(f"{where}: {fault}" if where else fault)


def _size_fault(sides: Mapping[str, int], has_resolution: bool, prefix: str) -> str:
    """Why width, height and resolution do not go together; "" if they do."""
    width, height, resolution = (f"{prefix}{name}" for name in ("width", "height", "resolution"))
    if sides and has_resolution:
        said = " and ".join(f"{prefix}{name}" for name in sides)
        return (
            f"{resolution} is the side of a square, and {said} say another size: leave out {resolution} or "
            f"leave out {width} and {height}"
        )
    if len(sides) == 1:
        [there] = sides
        missing = height if there == "width" else width
        return (
            f"{prefix}{there} is {sides[there]}, and no {missing} is said: say both, or for a square "
            f"{resolution} alone"
        )
    return ""


def joined_protocol(*layers: Mapping[str, Json]) -> dict[str, Json]:
    """Fields of a protocol from several tables; a later one's replace an earlier one's, sizes as a whole.

    Raises:
        BadInput: see `check_size`.
    """
    found: dict[str, Json] = {}
    for layer in layers:
        check_size(layer)
        if not layer.keys().isdisjoint(SIZE):
            found = {name: value for name, value in found.items() if name not in SIZE}
        found |= layer
    return found | _one_way(found)


def _one_way(found: Mapping[str, Json]) -> dict[str, Json]:
    """Width and height as a protocol has them."""
    if "width" not in found:
        return {}
    width, height = found["width"], found["height"]
    sides = {"width": 0, "height": 0} if width == height else {}
    return {"resolution": max(width, height), **sides}


def with_suite(recipe: Recipe, suite: Path) -> Recipe:
    """The recipe over another prompt file."""
    return replace(recipe, suite=suite)


def free_recipe(suite: Path) -> Recipe:
    """A recipe for prompts without a benchmark: one image a prompt, no judge."""
    name = Path(os.path.normpath(suite.absolute())).stem  # `.` may be a folder of prompts
    return Recipe(name, suite, {"images_per_prompt": 1}, {}, {})


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # in a folder that may not be entered
        raise BadInput(f"cannot read {path}: {error.strerror}") from error


def _check_keys(data: Mapping[str, Json], path: Path) -> None:
    _check_top(data, path)
    if extra := set(data.get("protocol", {})) - set(PROTOCOL_KEYS):
        raise BadInput(
            f"{path}: unknown key protocol.{shorten(min(extra))[1:-1]}; known are "
            f"{', '.join(sorted(PROTOCOL_KEYS))}"
        )
    for table in ("judge_options", "engine_options"):
        check_storable(data.get(table, {}), f"{path}: {table}")
    if not isinstance(data.get("suite"), str):
        raise BadInput(f"{path}: no key 'suite' with the name of a prompt file")
    if data["suite"]:
        check_name(data["suite"], f"{path}: suite")


def _check_top(data: Mapping[str, Json], path: Path) -> None:
    known = {"name", "description", "suite", *SETTINGS, *TABLES}
    for key, value in data.items():
        if key not in known:
            raise BadInput(f"{path}: unknown key {shorten(key)}; known are {', '.join(sorted(known))}")
        if isinstance(value, dict) != (key in TABLES):
            raise BadInput(f"{path}: {key} must be {'a table' if key in TABLES else 'one value'}")


def _typed(values: Mapping[str, Json], path: Path) -> dict[str, Json]:
    """The values as their options want them; whole numbers become floats where asked."""
    typed: dict[str, Json] = {}
    for key, value in values.items():
        kind = str if key == "name" else kind_of(key)
        whole = kind is float and isinstance(value, int)
        if isinstance(value, bool) != (kind is bool) or not (whole or isinstance(value, kind)):
            raise BadInput(f"{path}: {key} is {shorten(value)}, it must be of kind {kind.__name__}")
        if kind is str and (key == "name" or declared()[key].is_name):
            check_name(value, f"{path}: {key}")
        typed[key] = float(value) if whole else value
    return typed


def _files_beside(data: Mapping[str, Json], recipe: Path) -> dict[str, Json]:
    """`mine.py:JUDGE` beside the recipe, wherever the command is given."""
    beside = {key: recipe.parent / str(data[key]) for key in ("engine", "judge", "fold") if key in data}
    found = {
        key: path
        for key, path in beside.items()
        if ".py:" in path.name and _exists(Path(str(path).rpartition(":")[0]))
    }
    return {key: str(path.resolve()) for key, path in found.items()}


def _with_files_beside(options: Mapping[str, Json], beside: Path) -> Mapping[str, Json]:
    """The judge's options with an answerer `mine.py:NAME` and a rubric's texts found beside the recipe."""
    found: dict[str, Json] = {}
    for key in ("answerer", "template_file", "system_file"):
        value = str(options.get(key, ""))
        check_name(value, f"judge_options.{key}")
        file, colon, name = value.rpartition(":") if ".py:" in value else (value, "", "")
        is_code = key == "answerer"
        if file.endswith(".py") == is_code and file and _is_file(beside / file):
            found[key] = f"{(beside / file).resolve()}{colon}{name}"
    return {**options, **found}


def _is_file(path: Path) -> bool:
    return _exists(path) and path.is_file()
