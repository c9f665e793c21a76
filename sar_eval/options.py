"""The options of a run, declared once: what to draw, how to draw, how to judge, where to run.

A field of one of these classes is an option. From it come the flag with its help (`cli/options.py`), the
recipe's key (`recipe.py`), the page docs/commands.md, and the check of its value (`check_value`). None
means not asked for: the recipe's value holds, else the default.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sar_eval.documents import check_text, shorten
from sar_eval.errors import BadInput
from sar_eval.types import Json, Shard

Target = Literal["spec", "protocol", "engine", "judge", "run"]
SIDE = 8192  # of a picture, at most
MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 4096  # of a part of a path, and of the whole
PROTOCOL, MACHINE, WHAT = "Protocol", "Machine", "What"  # panels of --help


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of one option.

    Attributes:
        help: one line; "" for a key that only recipes have.
        target: whose value it is. `spec`: a field of the run's spec and a key of a recipe; `protocol`: a
            field of the protocol and a key of a recipe's table [protocol]; `engine`, `judge`: the short
            form of an engine's or a judge's own option; `run`: of this call alone.
        flags: on the command line, where they are others than `--name`.
        panel: of `--help`.
        metavar: what stands for the value in `--help`.
        low, high: least and greatest value (a `high` alone is checked by whoever knows the least).
        above: the value must be greater than this.
        is_name: the value names a file, or something that is looked up as one.
    """

    help: str
    target: Target
    flags: tuple[str, ...] = ()
    panel: str = ""
    metavar: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    is_name: bool = False

    def check(self, name: str, value: Json) -> None:
        """Refuse a value out of range.

        Raises:
            BadInput: naming the option, the value and the range.
        """
        if self.low is self.above is None:
            return
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and self._holds(value):
            return
        shown = f"{'--' if self.target == 'run' else ''}{name.replace('_', '-')}"
        raise BadInput(f"{shown} is {value!r}: it must {self._range()}")

    def _holds(self, value: float) -> bool:
        low, high = (
            -math.inf if self.low is None else self.low,
            math.inf if self.high is None else self.high,
        )
        return math.isfinite(value) and low <= value <= high and (self.above is None or value > self.above)

    def _range(self) -> str:
        if self.high is None:
            return f"be at least {self.low}" if self.above is None else f"be above {self.above}"
        between = f"above {self.above} and at most at" if self.low is None else f"between {self.low} and"
        return f"lie {between} {self.high}"


def option(help: str, target: Target, *flags: str, default: Any = None, **known: Any) -> Any:  # noqa: A002
    """A dataclass field that is an option (see `Option`); with `default=MISSING` it must be given."""
    return field(default=default, metadata={"option": Option(help, target, flags, **known)})


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatToDraw:
    """Prompts, and how many images of each."""

    suite: Path | None = option("Another prompt file for the benchmark.", "run")
    images_per_prompt: int | None = option(
        "Images of each prompt.", "spec", "--images-per-prompt", "-n", low=1, high=100_000
    )
    seed: int | None = option("Seed of the run.", "spec", low=-(2**63), high=2**63 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToDraw:
    """The engine, and the protocol that it draws under."""

    engine: str | None = option("Engine that draws the images; see `sar-eval list`.", "spec", is_name=True)
    engine_option: list[str] | None = option(
        "An option of the engine; may be repeated.", "engine", panel=MACHINE, metavar="NAME=VALUE"
    )
    visual_tokenizer: str | None = option(
        "Folder or hub name of the visual tokenizer; else the checkpoint's, or its family's.",
        "engine",
        panel=WHAT,
        is_name=True,
    )
    local_only: bool = option("Never ask the hub: folders and its cache.", "run", default=False, panel=WHAT)
    protocol: str | None = option(
        "A preset of the checkpoint's family, as simplear, simplear-paper or janus-pro.",
        "run",
        panel=PROTOCOL,
    )
    prefix: str | None = option("", "protocol")
    prefixes: str | None = option("", "protocol")
    template: str | None = option("", "protocol")
    guidance: float | None = option(
        "Guidance scale; 1 is off.", "protocol", panel=PROTOCOL, low=0, high=1000
    )
    temperature: float | None = option(
        "0 takes the likeliest token.", "protocol", panel=PROTOCOL, low=0, high=100
    )
    top_k: int | None = option("0 keeps all.", "protocol", panel=PROTOCOL, low=0, high=1_000_000)
    top_p: float | None = option("1 keeps all.", "protocol", panel=PROTOCOL, above=0, high=1)
    min_p: float | None = option(
        "Share of the likeliest token's probability that the others must have; 0 keeps all.",
        "protocol",
        panel=PROTOCOL,
        low=0,
        high=1,
    )
    resolution: int | None = option("Side of a square in pixels.", "protocol", panel=PROTOCOL, high=SIDE)
    width: int | None = option("With --height: in pixels.", "protocol", panel=PROTOCOL, high=SIDE)
    height: int | None = option("With --width: in pixels.", "protocol", panel=PROTOCOL, high=SIDE)
    negative_prompt: str | None = option("Text of the negative branch.", "protocol", panel=PROTOCOL)
    full_vocab: bool | None = option(
        "Sample from text tokens too, as the reference does; they become code 0.",
        "protocol",
        "--full-vocab/--visual-only",
        panel=PROTOCOL,
    )
    truncate: bool | None = option(
        "Cut too long prompts.", "protocol", "--truncate/--no-truncate", panel=PROTOCOL
    )
    speculate: bool | None = option(
        "Engine native: fewer steps for few images, the same tokens.",
        "engine",
        "--speculate/--no-speculate",
        panel=MACHINE,
    )
    image_format: str | None = option("png or webp, both lossless.", "engine", panel=MACHINE)
    dtype: str | None = option("float32, bfloat16 or float16.", "spec", panel=MACHINE)
    batch_size: int | None = option(
        "Images of one block: stored together, drawn at most so many at once.",
        "spec",
        panel=MACHINE,
        low=1,
        high=65_536,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToJudge:
    """The judge, and how its verdicts become figures."""

    judge: str | None = option("Judge that gives the verdicts; see `sar-eval list`.", "spec", is_name=True)
    fold: str | None = option("", "spec", is_name=True)
    judge_option: list[str] | None = option(
        "An option of the judge; may be repeated.", "judge", metavar="NAME=VALUE"
    )
    detector: str | None = option("Judge geneval: mask2former (ours) or mmdet, if installed.", "judge")
    scorers: str | None = option(
        "Scorers beside the verdicts, or of the judge score, as hps,clip:hessel; see `sar-eval list`.",
        "run",
        metavar="NAMES",
    )
    scorer_option: list[str] | None = option(
        "An option of a scorer, as hps.resize=aliased; may be repeated.", "run", metavar="SCORER.NAME=VALUE"
    )
    partial: bool = option(
        "Score what is there although images are missing, and say so; exit 0.", "run", default=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WhereToRun:
    """The run folder, and the workers."""

    out: Path | None = option("Run folder; by default runs/<benchmark>-<checkpoint>-<digest>.", "run")
    shard: str | None = option(
        "Draw one share of the run, as 2/8 for the second of eight; see `sar-eval join`.",
        "run",
        metavar="I/N",
    )
    workers: int | None = option(
        "Processes; one a GPU or a core by default.", "run", panel=MACHINE, low=1, high=1024
    )
    threads: int = option("CPU threads of a worker.", "run", default=1, panel=MACHINE, low=1, high=1024)
    devices: str | None = option("GPUs, as 0,1,3; `cpu` for none.", "run", panel=MACHINE)
    runtime: str = option(
        "Where workers run: `local`, on this machine; `ray`, on those of a Ray cluster, which share the "
        "run folder; or `slurm`, as the tasks of an array job.",
        "run",
        default="local",
        panel=MACHINE,
        metavar="local|ray|slurm",
    )
    ray_address: str | None = option(
        "Head of the Ray cluster; by default RAY_ADDRESS, this machine's cluster, or a new one here.",
        "run",
        panel=MACHINE,
        metavar="HOST:PORT",
    )


GROUPS = (WhatToDraw, HowToDraw, HowToJudge, WhereToRun)


def options_of(group: type) -> Iterator[tuple[Field[Any], Option]]:
    """The options among a dataclass's fields."""
    return ((f, f.metadata["option"]) for f in fields(group) if "option" in f.metadata)


@cache
def declared() -> Mapping[str, Option]:
    """Every option by name."""
    return {f.name: found for group in GROUPS for f, found in options_of(group)}


def names_of(target: Target) -> tuple[str, ...]:
    """Names of the options of a target."""
    return tuple(name for name, found in declared().items() if found.target == target)


def kind_of(name: str) -> type:
    """The kind of value that an option takes: str, int, float or bool."""
    annotation = next(str(f.type) for group in GROUPS for f in fields(group) if f.name == name)
    return {"str": str, "int": int, "float": float, "bool": bool}[annotation.partition(" ")[0]]


def merged(base: Mapping[str, Json], changes: Mapping[str, Json]) -> dict[str, Json]:
    """The options of a recipe with those of the command line; of tables, only what is named changes."""
    found = {**base, **changes}
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(name), dict):
            found[name] = merged(base[name], value)
    return found


def asked(*groups: Any) -> dict[str, Any]:
    """The values that were asked for, by name."""
    values = {f.name: getattr(group, f.name) for group in groups for f, _ in options_of(type(group))}
    return {name: value for name, value in values.items() if value is not None}


def parse_shard(text: str | None, flag: str = "--shard") -> Shard | None:
    """`--shard`: "2/8" is the second of eight shares.

    Raises:
        BadInput: it is none of these.
    """
    if text is None:
        return None
    index, _, of = text.partition("/")
    if not (index.isascii() and index.isdecimal() and of.isascii() and of.isdecimal() and len(of) < 7):
        raise BadInput(f"{flag} is {text!r}: I/N, as 2/8 for the second of eight shares")
    if not 1 <= int(index) <= int(of):
        raise BadInput(
            f"{flag} is {text!r}: shares are counted from 1, so use 1/{of} to {of}/{of} "
            f"(in SLURM, --array=1-N and {flag} $SLURM_ARRAY_TASK_ID/N)"
        )
    return Shard(int(index), int(of))


def check_value(name: str, value: Json, where: str = "") -> None:
    """Refuse a value out of its option's range.

    Raises:
        BadInput: naming `where` it stands (if given), the option, the value and the range.
    """
    try:
        declared()[name].check(name, value)
    except BadInput as error:
        raise BadInput(f"{where}: {error}" if where else str(error)) from error


def check_name(text: str, where: str) -> None:
    """Refuse what no file system takes for a name: before something asks it.

    Args:
        text: a path, or a name that is looked up as one.
        where: flag, or file and key, for the message.

    Raises:
        BadInput: a NUL character, half a character, or a part of more than 255 bytes.
    """
    check_text(text, where)
    longest = max(len(part.encode()) for part in text.split("/"))
    if longest > MAX_NAME_BYTES or len(text.encode()) > MAX_PATH_BYTES:
        raise BadInput(
            f"{where}: a name of {longest:,} bytes, of at most {MAX_NAME_BYTES} that a file can have: "
            f"{shorten(text)}"
        )


def check_storable(values: Json, where: str) -> None:
    """Refuse values of options that JSON, and with it the run's manifest, cannot hold.

    Raises:
        BadInput: naming the value; TOML has dates and times, which JSON has not.
    """
    if isinstance(values, Mapping):
        for name, value in values.items():
            check_storable(value, f"{where}.{name}")
    elif isinstance(values, list):
        for number, value in enumerate(values):
            check_storable(value, f"{where}[{number}]")
    elif not isinstance(values, (str, int, float, bool)):
        raise BadInput(
            f"{where} is a {type(values).__name__} ({values}): write it in quotes if text is meant"
        )


def check_kinds(make: type, values: Mapping[str, Json], owner: str) -> None:
    """Hold options against the annotations of the constructors that take them, where these are simple.

    Raises:
        BadInput: naming the option, its value and the kind that `owner` (as "engine 'native'") wants.
    """
    for name, kinds in _annotated_kinds(make).items():
        value = values.get(name)
        if value is None or (type(value) in kinds) or (type(value) is int and float in kinds):
            continue
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise BadInput(f"{name} {shorten(value)} of {owner} must be of kind {wanted}")


def _annotated_kinds(make: type) -> dict[str, list[type]]:
    """Parameters of the class's constructors, its bases' included, whose kinds are those of TOML."""
    known = {"str": str, "int": int, "float": float, "bool": bool, "None": type(None)}
    found: dict[str, list[type]] = {}
    for cls in make.__mro__ if isinstance(make, type) else ():
        constructor = vars(cls).get("__init__")
        parameters = inspect.signature(constructor).parameters if callable(constructor) else {}
        for name, parameter in parameters.items():
            words = str(parameter.annotation).split(" | ")
            if all(word in known for word in words):
                found.setdefault(name, [known[word] for word in words])
    return found


# Checks of a judge's or answerer's own options; `owner` names it in the message, as "judge 'vqa'".


def check_names(values: Mapping[str, Json], known: Sequence[str], owner: str) -> None:
    """Raise BadInput for the first option, by name, that `owner` does not have."""
    if unknown := sorted(values.keys() - set(known)):
        raise BadInput(f"{owner} has no option {unknown[0]!r}; known are {', '.join(known)}")


def check_whole_number(name: str, value: Json, owner: str, minimum: int = 1, maximum: int = 10**9) -> None:
    """Raise BadInput unless the value is an int from `minimum` to `maximum`; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise BadInput(f"{name} {shorten(value)} of {owner}: a whole number >= {minimum}")
    if value > maximum:
        raise BadInput(f"{name} {shorten(value)} of {owner}: a whole number <= {maximum:,}")


def check_dtype(dtype: Json, owner: str) -> None:
    """Raise BadInput unless a network can be loaded in this dtype."""
    if dtype not in ("float32", "bfloat16", "float16"):
        raise BadInput(f"dtype {dtype!r} of {owner}: float32, bfloat16 or float16")


def check_choice(name: str, value: Json, choices: Sequence[str], owner: str) -> None:
    """Raise BadInput unless the value is one of the texts that `owner` takes."""
    if value not in choices:
        raise BadInput(f"{name} {shorten(value)} of {owner}: {' or '.join(map(repr, choices))}")
