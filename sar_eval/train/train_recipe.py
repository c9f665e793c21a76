"""What a decoder is trained on, from and how: a recipe (`benchmarks/train/*.toml`), read and checked.

`train pretrain` and `train sft` are recipes of flags alone, so that there is one way from what is asked for
to a training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import msgspec

from sar_eval import discover
from sar_eval.documents import check_text, convert, read_toml, shorten
from sar_eval.errors import BadInput
from sar_eval.options import check_name, check_storable, merged
from sar_eval.recipe import decoder_recipes, find_recipe
from sar_eval.train.evaluation_table import EvaluationTable
from sar_eval.train.published import published
from sar_eval.train.recipe_file import settings_digest
from sar_eval.train.token_stream import WeightedPlace, parse_place
from sar_eval.train.training_options import ROUNDING, TrainingOptions
from sar_eval.types import Json

STARTS = ("init", "shape", "ckpt")
FILES = ("shape", "benchmark")  # keys that a file alone is meant by: a folder may be called so, too
WORDS = ("name", "description", "card")  # of the user's own: no paths
NO_START = "start.init, start.shape or start.ckpt; or --init, --shape or --ckpt"


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the recipe: unknown keys, other types and values out of range are refused."""


class DataTable(_Table, frozen=True):
    """`[data]`: what is learned.

    Attributes:
        places: folders of token shards and sets, with their weights in a mixture: `tokens`, `photos:0.7`.
        visual_tokenizer: the tokenizer that they were made with, a folder or of the hub; "" for that of
            `start.ckpt`.
    """

    places: tuple[str, ...] = ()
    visual_tokenizer: str = ""


class StartTable(_Table, frozen=True):
    """`[start]`: what the decoder is at step 0; one of the first three.

    Attributes:
        init: a language model that gets the visual codes, a folder or of the hub.
        shape: random weights: `demo`, `0.5b`, `1.5b`, or a config.json.
        ckpt: a checkpoint of SimpleAR's kind: a folder, `demo:NAME`, or of the hub.
        text_tokenizer: of `shape`, a folder or of the hub; "" for the shape's own.
        tie: whether head and embedding are one matrix; by default as `init` has it, and true for a shape.
    """

    init: str = ""
    shape: str = ""
    ckpt: str = ""
    text_tokenizer: str = ""
    tie: bool | None = None


class CardTable(_Table, frozen=True):
    """`[card]`: words of the checkpoint's README.md.

    Attributes:
        title: its heading; "" for the folder's name.
        licence: as the hub spells it, as apache-2.0; "" says none.
        description: a paragraph of one's own.
    """

    title: str = ""
    licence: str = ""
    description: str = ""


class TrainRecipe(_Table, frozen=True):
    """A whole recipe. Paths in it are absolute once it is read."""

    training: TrainingOptions
    name: str = ""
    description: str = ""
    data: DataTable = DataTable()
    start: StartTable = StartTable()
    evaluation: EvaluationTable = EvaluationTable()
    card: CardTable = CardTable()

    @property
    def kind(self) -> str:
        """What this training is called: from a checkpoint it is fine-tuning."""
        return "sft" if self.start.ckpt else "pretrain"

    @property
    def places(self) -> list[WeightedPlace]:
        """The data, with weights."""
        return [parse_place(text) for text in self.data.places]

    def settings(self) -> dict[str, Json]:
        """Everything that is asked for, as tables of what TOML has: what was read, and can be again."""
        tables: dict[str, Json] = msgspec.json.decode(msgspec.json.encode(self))
        return {
            name: _without_none(value) if isinstance(value, dict) else value
            for name, value in tables.items()
        }

    @property
    def digest(self) -> str:
        """Of what decides the weights, rounding aside, 16 hex digits; of folders here their names count."""
        rounding = [f"training.{name}" for name in (*ROUNDING, "precision")]
        without = [*rounding, "evaluation.*", "card.*", "name", "description"]
        return settings_digest(public(self.settings()), without)


def public(settings: Mapping[str, Json]) -> dict[str, Json]:
    """A recipe's settings as others may read them: of paths on this machine the last part."""
    return {name: value if name in WORDS else published(value) for name, value in settings.items()}


def _without_none(table: Mapping[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in table.items() if value is not None}


def load_train_recipe(name: str, changes: Mapping[str, Json] | None = None) -> TrainRecipe:
    """A shipped recipe by name, or a TOML file by path, with values of the command line.

    Args:
        name: `demo-sft`, or `mine.toml`. Paths in it are beside it.
        changes: values by table and key that replace the file's. Paths in them are the shell's.

    Raises:
        UnknownName: no recipe is called so.
        BadInput: naming file, table, key and what is wrong.
    """
    path = find_recipe(name, decoder_recipes(), "training recipe")
    return make_train_recipe({"name": path.stem, **read_toml(path)}, changes or {}, str(path), path.parent)


def make_train_recipe(
    tables: Mapping[str, Json],
    changes: Mapping[str, Json],
    where: str = "the command line",
    folder: Path = Path(),
) -> TrainRecipe:
    """A recipe of tables, with the values that replace some.

    Args:
        tables: of a recipe.
        changes: values by table and key; a start replaces the tables' whatever its kind.
        where: the tables are from, for messages.
        folder: that their paths are relative to.

    Raises:
        BadInput: naming `where`, table, key and what is wrong.
    """
    if _keys_of(changes.get("start")) & {*STARTS}:
        tables = {**tables, "start": _without(tables.get("start"), (*STARTS, "text_tokenizer", "tie"))}
    data = merged(_with_paths(tables, folder), _with_paths(changes, Path()))
    check_storable(data, where)
    _check_keys(data.get("training"), where)
    data["training"] = {"learning_rate": usual_rate(data.get("start")), **data["training"]}
    recipe = convert(data, TrainRecipe, where)
    _check(recipe, where)
    return recipe


def usual_rate(start: Json) -> float:
    """The learning rate of `[start]`, where none is asked for: a language model stands little."""
    table = start if isinstance(start, dict) else {}
    return 2e-3 if table.get("shape") == "demo" else 5e-4 if table.get("ckpt") else 1e-4


def _with_paths(tables: Mapping[str, Json], folder: Path) -> dict[str, Json]:
    """The tables with absolute paths where they name what is in `folder`; other names are the hub's."""
    found = dict(tables)
    if isinstance(data := tables.get("data"), dict):
        found["data"] = dict(data)
        if isinstance(places := data.get("places"), list):
            found["data"]["places"] = [_place_in(folder, place) for place in places]
        found["data"] |= _found_in(folder, data, ("visual_tokenizer",))
    if isinstance(start := tables.get("start"), dict):
        found["start"] = start | _found_in(folder, start, (*STARTS, "text_tokenizer"))
    if isinstance(evaluation := tables.get("evaluation"), dict):
        found["evaluation"] = evaluation | _found_in(folder, evaluation, ("benchmark",))
        if isinstance(judges := evaluation.get("judges"), list | tuple):
            found["evaluation"]["judges"] = [_code_in(folder, judge) for judge in judges]
    return found


def _place_in(folder: Path, text: Json) -> Json:
    if not isinstance(text, str) or "://" in text:
        return text
    check_text(text, "data.places")
    found = parse_place(str(folder / text))
    weight = "" if found.weight is None else f":{found.weight}"
    return f"{Path(found.place).resolve()}{weight}"


def _found_in(folder: Path, table: Mapping[str, Json], keys: Sequence[str]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key in keys:
        if isinstance(value := table.get(key), str) and value:
            check_name(value, key)
            path = folder / value
            is_here = path.is_file() if key in FILES else path.exists()
            found[key] = str(path.resolve()) if is_here else value
    return found


def _code_in(folder: Path, name: Json) -> Json:
    """A judge's name; that of one in a file of this folder, `mine.py:JUDGE`, with the whole path."""
    if not isinstance(name, str) or not discover.is_file(name):
        return name
    check_text(name, "evaluation.judges")
    path, _, attribute = name.rpartition(":")
    return f"{(folder / path).resolve()}:{attribute}" if (folder / path).is_file() else name


def _keys_of(table: Json) -> set[str]:
    return set(table) if isinstance(table, dict) else set()


def _without(table: Json, names: Sequence[str]) -> Json:
    return {k: v for k, v in table.items() if k not in names} if isinstance(table, dict) else table


def _check_keys(table: Json, where: str) -> None:
    """Refuse keys that `[training]` does not have, and name the one that it needs."""
    known = [field.name for field in fields(TrainingOptions)]
    if unknown := sorted(_keys_of(table) - {*known}):
        raise BadInput(
            f"{where}: unknown key training.{shorten(unknown[0])[1:-1]}; known are {', '.join(known)}"
        )
    if "steps" not in _keys_of(table):
        raise BadInput(f"{where}: the number of steps is missing: training.steps, or --steps")


def _check(recipe: TrainRecipe, where: str) -> None:
    """Refuse what does not go together."""
    start, named = recipe.start, [key for key in STARTS if getattr(recipe.start, key)]
    faults: Sequence[tuple[bool, str]] = (
        (not recipe.data.places, "no data is named: data.places, or --data"),
        (
            not (recipe.data.visual_tokenizer or start.ckpt),
            "no visual tokenizer is named: data.visual_tokenizer, or --tokenizer",
        ),
        (not named, f"nothing to start from is named: {NO_START}"),
        (len(named) > 1, f"start has {' and '.join(named)}: which?"),
        (
            bool(start.text_tokenizer) and not start.shape,
            "start.text_tokenizer is for a shape: a checkpoint or language model has its own",
        ),
        (
            start.tie is not None and bool(start.ckpt),
            "start.tie is for a new decoder: a checkpoint's head is as it is",
        ),
        (
            recipe.training.lora > 0 and bool(start.shape),
            "training.lora adapts trained weights, and a shape's are random: start from init or ckpt",
        ),
    )
    for is_wrong, message in faults:
        if is_wrong:
            raise BadInput(f"{where}: {message}")
