"""`prompts`: make, import, fetch and check suites."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli.options import PromptFile
from sar_eval.cli.terminal import one_line, say
from sar_eval.errors import BadInput, Incomplete

if TYPE_CHECKING:
    from sar_eval.suites.source import SuiteSource

# The suites that can be sampled anew, each with the module of its `make_suite`.
SUITE_SAMPLERS = {
    "geneval": "sar_eval.suites.geneval.suite",
    "geneval-train": "sar_eval.suites.geneval.training",
    "shapes": "sar_eval.suites.shapes.suite",
    "shapes-train": "sar_eval.suites.shapes.train_suite",
    "dpg-shapes": "sar_eval.suites.shapes.questions",
}

LISTED_TAGS = 50

app = typer.Typer(help="Make and check prompt suites.", no_args_is_help=True)


@app.command()
def make(
    suite: Annotated[
        str, typer.Argument(help="One of geneval, geneval-train, shapes, shapes-train and dpg-shapes.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file to write.")],
    seed: Annotated[int, typer.Option(help="Seed of the sampler.", min=0)] = 43,
    per_task: Annotated[
        int | None,
        typer.Option(help="Prompts of each task; by default as the shipped suite.", min=1, max=100_000),
    ] = None,
    output_format: Annotated[
        str, typer.Option("--format", help="prompts (ours), or metadata (GenEval's own file).")
    ] = "prompts",
) -> None:
    """Sample a suite anew; seed 43 gives the shipped one (for geneval, the official 553 prompts)."""
    import importlib

    from sar_eval import discover
    from sar_eval.storage.files import write_bytes

    if output_format not in ("prompts", "metadata"):
        raise BadInput(f"unknown --format {output_format!r}: prompts or metadata")
    if suite not in SUITE_SAMPLERS:
        raise discover.unknown("suite", suite, list(SUITE_SAMPLERS))
    target = _regular_file(out)
    maker = importlib.import_module(SUITE_SAMPLERS[suite]).make_suite
    rows = maker(seed) if per_task is None else maker(seed, per_task)
    if output_format == "metadata" and "include" not in rows[0]["checks"]:
        raise BadInput(f"suite {suite!r} has no GenEval metadata: leave out --format metadata")
    lines = [row["checks"] if output_format == "metadata" else row for row in rows]
    write_bytes(target, "".join(json.dumps(line) + "\n" for line in lines).encode())
    say(f"{len(rows)} prompts in {out}")


FetchedSuite = Annotated[
    str, typer.Argument(metavar="SUITE", help="Which suite; without one, they are listed.")
]
OutFile = Annotated[
    Path | None, typer.Option(help="The .jsonl file to write; by default where the suite's recipe looks.")
]


@app.command("import")
def import_(
    suite: FetchedSuite = "",
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Folder of the official files, or the file if there is one alone."),
    ] = None,
    out: OutFile = None,
) -> None:
    """Turn a benchmark's official files into one suite file, and name every inconsistency in them."""
    from sar_eval.suites import source as sources

    if not suite:
        _list_sources()
        return
    found = sources.load(suite)
    if source is None:
        raise BadInput(f"--from is missing: give {found.takes}")
    _import(suite, found, source, _suite_file(suite, out))


@app.command()
def fetch(suite: FetchedSuite = "", out: OutFile = None) -> None:
    """Download a benchmark's official prompts and its judge's texts, and import them."""
    from sar_eval.cli.progress import downloading
    from sar_eval.stages.fetch import fetch as download
    from sar_eval.suites import source as sources

    if not suite:
        _list_sources()
        return
    found, path = sources.load(suite), _suite_file(suite, out)
    say(f"{found.title}, {len(found.files)} files; licence: {found.licence}", err=True)
    try:
        with downloading() as show:
            download(found.files, progress=show)
    except KeyboardInterrupt as error:
        raise Incomplete("interrupted; run the same command again to go on") from error
    _import(suite, found, sources.fetched(found, suite), path)


def _list_sources() -> None:
    from sar_eval.suites import source as sources

    for name in sources.names():
        found = sources.load(name)
        say(f"{name:<16} {found.title}; licence: {found.licence}")


def _suite_file(suite: str, out: Path | None) -> Path:
    from sar_eval.tensors.published_weights import cache_folder

    if out is not None and out.suffix != ".jsonl":
        raise BadInput(f"--out {out}: the name must end in .jsonl")
    return out or cache_folder() / f"{suite}.jsonl"


def _regular_file(out: Path) -> Path:
    """The file to write, behind links; nothing replaces a device, a pipe or a folder."""
    try:
        target = out.resolve()
        if target.is_file() or not target.exists():
            return target
    except (OSError, RuntimeError) as error:  # a loop of links, a name that is too long
        raise BadInput(f"--out {out}: {error}") from error
    raise BadInput(f"--out {out} is {'a directory' if target.is_dir() else 'no regular file'}: name a file")


def _import(suite: str, source: SuiteSource, files: Path, path: Path) -> None:
    from sar_eval.stages.import_suite import import_suite
    from sar_eval.suites.prompts import load_suite

    found = import_suite(suite, source, files, _regular_file(path))
    for note in found.notes:
        say(note)
    number = len(found.prompts)
    official = "" if source.prompts in (0, number) else f" ({source.title} has {source.prompts:,})"
    counted = f" {found.counted}" if found.counted else ""
    say(
        f"{number:,} prompts{official}{counted} in {path}, digest {load_suite(path).digest}; "
        f"{len(found.notes)} notes"
    )


@app.command()
def check(file: PromptFile) -> None:
    """Read prompts as a run would, and say what is in them and what was assumed."""
    from collections import Counter

    from sar_eval.suites.prompts import load_suite
    from sar_eval.suites.streamed import STEP, StreamedPrompts

    suite = load_suite(file)
    for note in suite.notes:
        say(f"note: {note}", err=True)
    if isinstance(suite.prompts, StreamedPrompts):
        first = suite.prompts[:STEP]
        say(f"{len(suite.prompts)} prompts, of which the first {len(first)} are as they should be")
        return
    numbers = Counter(prompt.tag for prompt in suite.prompts)
    tags = [f"{number} {one_line(tag) or 'without tag'}" for tag, number in numbers.items()]
    more = f" and {len(tags) - LISTED_TAGS} more tags" if len(tags) > LISTED_TAGS else ""
    say(f"{len(suite.prompts)} prompts ({', '.join(tags[:LISTED_TAGS])}{more}), digest {suite.digest}")
