"""From the declared options (`sar_eval.options`) to Typer's, and arguments that several commands share."""

from __future__ import annotations

import inspect
import os
import re
import tomllib
from collections.abc import Callable, Collection
from dataclasses import MISSING, dataclass, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from sar_eval.documents import check_text, parse_toml
from sar_eval.errors import BadInput
from sar_eval.options import Option, asked, check_name, check_storable, names_of, option, options_of


def _name(parameter: typer.CallbackParam, value: str | None) -> str | None:
    """A word that names a file, or is looked up as one; an empty one is a variable that was not set."""
    if value is not None:
        flag = parameter.opts[0]
        check_name(value, flag)
        if not value:
            raise BadInput(f"{flag} is empty: give a name, or leave it out")
    return value


Ckpt = Annotated[
    str,
    typer.Option(
        "--ckpt",
        help="Checkpoint: demo:NAME, a folder or file, or of the hub ORG/NAME, ORG/NAME/SUBFOLDER or FILE, "
        "@REVISION.",
        rich_help_panel="What",
        callback=_name,
    ),
]
Benchmark = Annotated[
    str, typer.Argument(help="A benchmark (see `sar-eval list`) or a recipe.toml.", callback=_name)
]
PromptFile = Annotated[
    Path,
    typer.Argument(
        help="Prompts: .jsonl, .json, .csv, .tsv, .txt or .parquet, or a folder of ID.txt files.",
    ),
]
FoldOf = Annotated[
    str | None, typer.Option("--benchmark", help="Take the fold from this benchmark instead of the run's.")
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
VisualTokenizer = Annotated[
    str | None,
    typer.Option(
        "--visual-tokenizer",
        help="Folder or hub name of the visual tokenizer; else the checkpoint's, or its family's.",
        callback=_name,
    ),
]
LocalOnly = Annotated[bool, typer.Option("--local-only", help="Never ask the hub: folders and its cache.")]
Code = Annotated[
    list[str] | None,
    typer.Option(
        "--code",
        metavar="PATH.PY:NAME",
        help="Code that the set names and that may run here: an engine, judge or scorer. Repeatable.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON on standard output.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What the terminal shows."""

    as_json: bool = option("Print the summary as JSON on standard output.", "run", "--json", default=False)
    quiet: bool = option("No progress.", "run", "--quiet", "-q", default=False)
    no_report: bool = option(
        "Write no report.html; `sar-eval report` does later.", "run", "--no-report", default=False
    )


TABLE = re.compile(r"[A-Za-z0-9_:-]+")  # of an addition of an addition, as a scorer of the judge score
RESULTS = "Results"  # panel of --help


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Where results go besides the run folder."""

    track: list[str] | None = option(
        "Show the run in this tracker, too; may be repeated. See `sar-eval list`.",
        "run",
        panel=RESULTS,
        metavar="TRACKER",
    )
    project: str = option("What trackers show it under.", "run", default="sar-eval", panel=RESULTS)
    name: str | None = option("The run's name in trackers; by default its folder's.", "run", panel=RESULTS)
    step: int | None = option(
        "Training step; by default the one in the checkpoint's name, as checkpoint-2000.",
        "run",
        panel=RESULTS,
        low=0,
        high=2**53,
    )
    tracker_option: list[str] | None = option(
        "An option of each tracker that has it; may be repeated.",
        "run",
        panel=RESULTS,
        metavar="NAME=VALUE",
    )
    eval_results: Path | None = option(
        "Folder of the model's repository: write .eval_results/*.yaml and README.md's model-index there.",
        "run",
        panel=RESULTS,
    )
    eval_dataset: str | None = option(
        "The benchmark's dataset on the hub, for --eval-results.",
        "run",
        panel=RESULTS,
        metavar="ORG/NAME[:TASK]",
    )


def with_options(*, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function that takes groups of options.

    Each parameter whose annotation is such a dataclass becomes the flags of its fields.

    Args:
        without: names of options that this command does not have.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        parameters = inspect.signature(function, eval_str=True).parameters
        groups: dict[str, Any] = {
            name: p.annotation for name, p in parameters.items() if is_dataclass(p.annotation)
        }
        flags = {name: _flags(group, without) for name, group in groups.items()}

        @wraps(function)
        def command(**values: Any) -> None:
            for name, group in groups.items():
                values[name] = group(**{p.name: values.pop(p.name) for p in flags[name]})
                _check_values(values[name])
            function(**values)

        plain = [p.replace(kind=p.KEYWORD_ONLY) for name, p in parameters.items() if name not in groups]
        every = [*plain, *(p for found in flags.values() for p in found)]
        command.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in every}
        return command

    return decorate


def overrides(*groups: Any) -> dict[str, Any]:
    """What was asked for, as `stages.resolve` takes it; `--local-only` holds from here on."""
    values = asked(*groups)
    keep_offline(bool(values.get("local_only", False)))
    names = {*names_of("spec"), *names_of("protocol"), "protocol"}
    return {
        **{name: value for name, value in values.items() if name in names},
        "engine_options": _own_options("engine", values),
        "judge_options": _own_options("judge", values),
        "scorers": _scorers(values),
    }


def _scorers(values: dict[str, Any]) -> dict[str, Any]:
    """`--scorers` and `--scorer-option`, as options of the judge `score`; empty without the first."""
    options = named_options("--scorer-option", values.get("scorer_option"))
    if values.get("scorers") is None:
        if options:
            raise BadInput("--scorer-option is for scorers: name them with --scorers")
        return {}
    return {"scorers": values["scorers"], **options}


def keep_offline(local_only: bool) -> None:
    """Ask no hub any more, neither this process nor the workers it starts."""
    if local_only:
        os.environ["SAR_EVAL_OFFLINE"] = "1"


def check_push(repository: str, kind: str, *, private: bool = False) -> None:
    """Refuse what cannot be uploaded to, before hours of work: no name, or a hub that may not be asked.

    Args:
        repository: ORG/NAME; "" for no upload.
        kind: dataset or model, for the message.
        private: whether --private is given.

    Raises:
        BadInput: naming the flag.
    """
    from sar_eval.storage.hub_uploads import check_repository
    from sar_eval.tensors.hub import is_offline

    if not repository:
        if private:
            raise BadInput("--private is of the repository of --push, which is missing")
        return
    check_repository(repository, kind)
    if is_offline():
        raise BadInput(
            f"--push {repository}: the hub may not be asked (--local-only, SAR_EVAL_OFFLINE or "
            "HF_HUB_OFFLINE)"
        )


def _flags(group: type, without: Collection[str]) -> list[inspect.Parameter]:
    kinds = get_type_hints(group)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=Annotated[kinds[field.name], _typer_option(field.name, known)],
        )
        for field, known in options_of(group)
        if known.help and field.name not in without
    ]


def _typer_option(name: str, known: Option) -> Any:
    return typer.Option(
        *_flags_of(name, known),
        help=known.help,
        metavar=known.metavar or None,
        rich_help_panel=known.panel or None,
        callback=_name if known.is_name else None,
    )


def _flags_of(name: str, known: Option) -> tuple[str, ...]:
    return known.flags or (f"--{name.replace('_', '-')}",)


def _check_values(group: Any) -> None:
    """Text, paths, and the ranges of this call's own options; `stages.resolve` checks the others."""
    for field, known in options_of(type(group)):
        value, flag = getattr(group, field.name), _flags_of(field.name, known)[0]
        if known.target == "run" and value is not None:
            known.check(field.name, value)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, Path):
                check_name(str(part), flag)
            check_text(part, flag)


def _own_options(owner: str, values: dict[str, Any]) -> dict[str, Any]:
    """`--engine-option` or `--judge-option`, and their short forms, which win."""
    many = f"{owner}_option"
    short = {name: values[name] for name in names_of(owner) if name in values and name != many}  # type: ignore[arg-type]
    return named_options(f"--{owner}-option", values.get(many)) | short


def named_options(flag: str, words: list[str] | None) -> dict[str, Any]:
    """`NAME=VALUE` words as options; a value that is no TOML is text.

    `hps.resize=aliased` is the option `resize` of the table `hps`.

    Raises:
        BadInput: a word of another form, or a value that no manifest holds. The word is not shown in
            full: it may be a key.
    """
    options: dict[str, Any] = {}
    for word in words or []:
        name, equals, value = word.partition("=")
        table, _, own = name.rpartition(".")
        if not equals or not own.isidentifier() or not (not table or TABLE.fullmatch(table)):
            start = re.match(r"\w{0,20}", word)
            raise BadInput(f"{flag} {start and start[0]}... is not of the form NAME=VALUE")
        within = options.setdefault(table, {}) if table else options
        if not isinstance(within, dict):
            raise BadInput(f"{flag} {table} is an option, and a table in {name}")
        within[own] = toml_value(value, f"{flag} {name}")
        check_storable(within[own], f"{flag} {name}")
    return options


def toml_value(text: str, where: str) -> Any:
    """A word's value as TOML reads it; what is no TOML is text."""
    try:
        parsed = parse_toml(f"value = {text}", where)
    except BadInput as error:
        if isinstance(error.__cause__, tomllib.TOMLDecodeError):
            return text
        raise
    return parsed["value"] if len(parsed) == 1 else text
